//! One request as a line: the common formats, extended by what only this proxy knows.
//!
//! Octets from the network are escaped, so a request can write neither a second line nor a second field.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::line::Line;

/// How the origin's connection for a request came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginUse {
    /// No origin was asked.
    None,
    New,
    Reused,
}

impl OriginUse {
    pub fn as_str(self) -> &'static str {
        match self {
            OriginUse::None => "-",
            OriginUse::New => "new",
            OriginUse::Reused => "reused",
        }
    }
}

/// What is known of one request when it has ended.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Unix time of the request's end, milliseconds.
    pub unix_ms: i64,
    pub client: SocketAddr,
    pub method: &'a str,
    /// The request target as received.
    pub target: &'a [u8],
    pub version: &'a str,
    pub status: u16,
    /// Octets of the response's content sent.
    pub octets: u64,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
    pub content_type: Option<&'a [u8]>,
    pub worker: usize,
    pub connection: u64,
    /// From 1, on this connection.
    pub request: u32,
    /// Time the connection waited for a worker before this request (its first here).
    pub queued: Duration,
    pub took: Duration,
    /// `hit`, `miss` … and the reason that the cache returned.
    pub cache: &'a str,
    pub reason: &'a str,
    pub origin: Option<SocketAddr>,
    pub origin_use: OriginUse,
    /// Why a response was cut short or refused; empty for an orderly one.
    pub end: &'a str,
    /// What it was to others that wanted the same; empty: nothing.
    pub herd: &'a str,
}

/// Parts of a line that the next one most likely has as well, as pipelined requests do: formatted once.
#[derive(Default)]
pub struct Recurring {
    second: i64,
    date: String,
    client: Option<IpAddr>,
    beginning: Vec<u8>,
    connection: Option<(usize, u64)>,
    place: Vec<u8>,
}

impl Recurring {
    /// What the combined format begins with, up to the method.
    fn beginning(&mut self, client: IpAddr, unix_ms: i64) -> &[u8] {
        let second = unix_ms.div_euclid(1000);
        let is_same_second = second == self.second && !self.date.is_empty();
        if is_same_second && self.client == Some(client) {
            return &self.beginning;
        }
        if !is_same_second {
            let time = Timestamp::from_second(second)
                .unwrap_or(Timestamp::UNIX_EPOCH)
                .to_zoned(TimeZone::system());
            self.date = time.strftime(" - - [%d/%b/%Y:%H:%M:%S %z] \"").to_string();
            self.second = second;
        }
        self.beginning.clear();
        Line(&mut self.beginning).address(client).text(&self.date);
        self.client = Some(client);
        &self.beginning
    }

    /// Where it was: the worker and the connection, up to the number of the request.
    fn place(&mut self, worker: usize, connection: u64) -> &[u8] {
        if self.connection != Some((worker, connection)) {
            self.place.clear();
            Line(&mut self.place)
                .text("worker=")
                .number(worker as u64)
                .text(" connection=")
                .number(connection)
                .text(" request=");
            self.connection = Some((worker, connection));
        }
        &self.place
    }
}

impl Record<'_> {
    /// Apache's combined format, then `key=value` fields.
    pub fn combined(&self, recurring: &mut Recurring, out: &mut Vec<u8>) {
        let mut line = Line(out);
        line.octets(recurring.beginning(self.client.ip(), self.unix_ms))
            .text(self.method)
            .text(" ")
            .escaped(self.target)
            .text(" ")
            .text(self.version)
            .text("\" ");
        line.number(self.status.into())
            .text(" ")
            .number(self.octets)
            .text(" \"");
        match (self.referer, self.user_agent) {
            (None, None) => line.text("-\" \"-\" "),
            (referer, user_agent) => line
                .escaped(referer.unwrap_or(b"-"))
                .text("\" \"")
                .escaped(user_agent.unwrap_or(b"-"))
                .text("\" "),
        };
        self.extension(recurring, &mut line);
    }

    /// Squid's native format, then `key=value` fields.
    pub fn squid(&self, recurring: &mut Recurring, out: &mut Vec<u8>) {
        let verdict = match (self.cache, self.status) {
            ("hit", _) => "TCP_HIT",
            ("joined", _) => "TCP_CF_HIT",
            ("revalidated", _) => "TCP_REFRESH_UNMODIFIED",
            (_, 403 | 407) if self.origin.is_none() => "TCP_DENIED",
            ("miss" | "pass", _) => "TCP_MISS",
            ("tunnel", _) => "TCP_TUNNEL",
            _ => "NONE",
        };
        let _ = write!(
            out,
            "{}.{:03} {:>6} ",
            self.unix_ms.div_euclid(1000),
            self.unix_ms.rem_euclid(1000),
            self.took.as_millis()
        );
        let mut line = Line(out);
        line.address(self.client.ip())
            .text(" ")
            .text(verdict)
            .text("/")
            .number(self.status.into())
            .text(" ");
        line.number(self.octets)
            .text(" ")
            .text(self.method)
            .text(" ")
            .escaped(self.target);
        match self.origin {
            Some(origin) => line.text(" - HIER_DIRECT/").address(origin.ip()),
            None => line.text(" - HIER_NONE/-"),
        };
        line.text(" ")
            .escaped(self.content_type.map_or(b"-", essence))
            .text(" ");
        self.extension(recurring, &mut line);
    }

    /// One JSON object a line.
    pub fn json(&self, out: &mut Vec<u8>) {
        let text = |octets: &[u8]| serde_json::Value::from(String::from_utf8_lossy(octets));
        let time = Timestamp::from_millisecond(self.unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let line = serde_json::json!({
            "time": format!("{time:.3}"),
            "client": self.client.ip().to_canonical().to_string(),
            "method": self.method,
            "target": text(self.target),
            "version": self.version,
            "status": self.status,
            "octets": self.octets,
            "referer": self.referer.map(text),
            "user_agent": self.user_agent.map(text),
            "worker": self.worker,
            "connection": self.connection,
            "request": self.request,
            "queued_ms": milliseconds(self.queued),
            "took_ms": milliseconds(self.took),
            "cache": self.cache,
            "reason": self.reason,
            "origin": self.origin.map(|origin| origin.to_string()),
            "origin_connection": self.origin_use.as_str(),
            "end": self.end,
            "herd": self.herd,
        });
        let _ = writeln!(out, "{line}");
    }

    fn extension(&self, recurring: &mut Recurring, line: &mut Line<'_>) {
        line.octets(recurring.place(self.worker, self.connection))
            .number(self.request.into());
        // Nearly all requests.
        match self.queued.is_zero() {
            true => line.text(" queued=0.000000 took="),
            false => line.text(" queued=").seconds(self.queued).text(" took="),
        };
        line.seconds(self.took);
        line.text(" cache=")
            .or_dash(self.cache)
            .text(" reason=")
            .or_dash(self.reason);
        if let (None, "", "") = (self.origin, self.end, self.herd) {
            // Nearly all hits.
            line.text(" origin=- end=-\n");
            return;
        }
        line.text(" origin=");
        match self.origin {
            Some(origin) if origin.is_ipv6() => line
                .text("[")
                .address(origin.ip())
                .text("]:")
                .number(origin.port().into()),
            Some(origin) => line
                .address(origin.ip())
                .text(":")
                .number(origin.port().into()),
            None => line.text("-"),
        };
        if self.origin.is_some() {
            line.text("/").text(self.origin_use.as_str());
        }
        match (self.end, self.herd) {
            ("", "") => line.text(" end=-\n"),
            (end, "") => line.text(" end=").text(end).text("\n"),
            (end, herd) => line
                .text(" end=")
                .or_dash(end)
                .text(" herd=")
                .text(herd)
                .text("\n"),
        };
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A media type without its parameters.
fn essence(content_type: &[u8]) -> &[u8] {
    content_type
        .split(|octet| *octet == b';')
        .next()
        .unwrap_or(content_type)
        .trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            unix_ms: 1_700_000_000_123,
            client: "[::ffff:127.0.0.1]:5000".parse().unwrap(),
            method: "GET",
            target: b"http://a.example/\"x\n",
            version: "HTTP/1.1",
            status: 200,
            octets: 5,
            referer: None,
            user_agent: Some(b"curl/8\x1b[31m"),
            content_type: Some(b"text/html; charset=utf-8"),
            worker: 1,
            connection: 7,
            request: 2,
            queued: Duration::from_micros(1500),
            took: Duration::from_micros(12_345),
            cache: "miss",
            reason: "uri-miss",
            origin: Some("10.0.0.1:80".parse().unwrap()),
            origin_use: OriginUse::Reused,
            end: "",
            herd: "",
        }
    }

    #[test]
    fn nothing_from_the_network_ends_a_field_or_a_line() {
        let mut out = Vec::new();
        record().combined(&mut Recurring::default(), &mut out);
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
        assert!(line.contains("\"GET http://a.example/\\\"x\\x0A HTTP/1.1\" 200 5 \"-\" \"curl/8\\x1B[31m\" worker=1"), "{line}");
        assert!(line.ends_with("queued=0.001500 took=0.012345 cache=miss reason=uri-miss origin=10.0.0.1:80/reused end=-\n"), "{line}");
    }

    #[test]
    fn what_is_not_there_is_a_dash_or_naught() {
        let line = |record: Record<'_>| {
            let mut out = Vec::new();
            record.combined(&mut Recurring::default(), &mut out);
            String::from_utf8(out).unwrap()
        };
        let hit = Record {
            user_agent: None,
            queued: Duration::ZERO,
            took: Duration::from_micros(1_000_007),
            cache: "hit",
            reason: "fresh",
            origin: None,
            ..record()
        };
        let line_of_hit = line(hit.clone());
        assert!(
            line_of_hit.ends_with(
                " HTTP/1.1\" 200 5 \"-\" \"-\" worker=1 connection=7 request=2 queued=0.000000 took=1.000007 \
                 cache=hit reason=fresh origin=- end=-\n"
            ),
            "{line_of_hit}"
        );
        let cut = Record {
            end: "client-gone",
            ..hit
        };
        assert!(line(cut.clone()).ends_with(" end=client-gone\n"));
        let led = Record { herd: "led", ..cut };
        assert!(line(led).ends_with(" end=client-gone herd=led\n"));
    }

    #[test]
    fn a_line_is_the_same_whatever_was_written_before_it() {
        let records = [
            record(),
            Record {
                client: "192.0.2.7:1".parse().unwrap(),
                ..record()
            },
            Record {
                unix_ms: 1_700_000_001_123,
                ..record()
            },
            Record {
                connection: 8,
                ..record()
            },
            Record {
                worker: 2,
                ..record()
            },
        ];
        let write = |record: &Record<'_>, recurring: &mut Recurring| {
            let (mut combined, mut squid) = (Vec::new(), Vec::new());
            record.combined(recurring, &mut combined);
            record.squid(recurring, &mut squid);
            String::from_utf8([combined, squid].concat()).unwrap()
        };
        let mut recurring = Recurring::default();
        for before in &records {
            for after in &records {
                write(before, &mut recurring);
                let alone = write(after, &mut Recurring::default());
                assert_eq!(write(after, &mut recurring), alone);
            }
        }
    }

    #[test]
    fn what_it_was_to_others_comes_last() {
        let mut out = Vec::new();
        let record = Record {
            herd: "led",
            ..record()
        };
        record.combined(&mut Recurring::default(), &mut out);
        assert!(out.ends_with(b" end=- herd=led\n"));
    }

    #[test]
    fn squid_and_json_say_the_same() {
        let (mut squid, mut json) = (Vec::new(), Vec::new());
        record().squid(&mut Recurring::default(), &mut squid);
        record().json(&mut json);
        let squid = String::from_utf8(squid).unwrap();
        assert!(
            squid.starts_with("1700000000.123     12 127.0.0.1 TCP_MISS/200 5 GET http"),
            "{squid}"
        );
        assert!(
            squid.contains(" - HIER_DIRECT/10.0.0.1 text/html "),
            "{squid}"
        );
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["queued_ms"], 1.5);
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["target"], "http://a.example/\"x\n");
    }
}
