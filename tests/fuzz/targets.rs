//! What each fuzz target checks. The fuzzer calls these with what it invents, an ordinary test with each corpus.

// Each fuzz binary uses one of them.
#![allow(dead_code)]

use baton::config::Sources;
use baton::http::{
    Decoder, Encoder, Framing, Headers, Limits, RequestHead, ResponseHead, Scan, TargetUri,
};
use baton::http::{connection, framing};
use baton::ipc::{Message, ToMaster, ToWorker};

const LIMITS: Limits = Limits {
    max_bytes: 4096,
    max_headers: 40,
    max_target: 1024,
};

/// Heads: never a panic, octet by octet as in one piece, and what is written reads the same.
pub fn head(data: &[u8]) {
    let mut request = RequestHead::new();
    let whole = request.parse(data, &LIMITS);
    let (mut slow, mut scan) = (RequestHead::new(), Scan::default());
    let mut found = Ok(None);
    for end in 0..=data.len() {
        found = slow.parse_more(&mut scan, &data[..end], &LIMITS);
        if found != Ok(None) {
            break;
        }
    }
    assert_eq!(
        found.is_err(),
        whole.is_err(),
        "the head reads differently in pieces"
    );
    if let (Ok(Some(length)), Ok(other)) = (whole, found) {
        assert_eq!(other, Some(length));
        assert_eq!(slow, request);
        assert!(length <= data.len());
        no_control_characters(&request.headers);
        let mut out = Vec::new();
        request.write(&mut out);
        let mut again = RequestHead::new();
        assert_eq!(again.parse(&out, &Limits::default()), Ok(Some(out.len())));
        assert_eq!(
            (&again.method, &again.target, &again.headers),
            (&request.method, &request.target, &request.headers)
        );
        if let Ok(uri) = TargetUri::of(&request, None) {
            let mut key = Vec::new();
            uri.write_key(&mut key);
            assert!(
                key.iter().all(|c| (0x21..0x7f).contains(c)),
                "{}",
                key.escape_ascii()
            );
        }
        connection::strip_request(&mut request.headers);
        assert!(!request.headers.contains("connection"));
    }
    let mut response = ResponseHead::new();
    if let Ok(Some(length)) = response.parse(data, &LIMITS) {
        assert!(length <= data.len() && (100..1000).contains(&response.status));
        no_control_characters(&response.headers);
        let mut out = Vec::new();
        response.write(&mut out);
        let mut again = ResponseHead::new();
        assert_eq!(again.parse(&out, &Limits::default()), Ok(Some(out.len())));
        assert_eq!(
            (again.status, &again.headers),
            (response.status, &response.headers)
        );
    }
}

fn no_control_characters(headers: &Headers) {
    for (name, value) in headers.iter() {
        assert!(!name.is_empty() && name.bytes().all(|c| c.is_ascii_graphic() && c != b':'));
        assert!(
            value
                .iter()
                .all(|&c| c == b'\t' || (c >= b' ' && c != 0x7f))
        );
        assert!(!matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']));
    }
}

/// Framing: what passes is unambiguous, stays so when it is written again, and delimits the body.
pub fn framing(data: &[u8]) {
    let mut request = RequestHead::new();
    let Ok(Some(length)) = request.parse(data, &LIMITS) else {
        return;
    };
    let found = framing::of_request(&request);
    let (codings, lengths) = (
        request.headers.count("transfer-encoding"),
        request.headers.count("content-length"),
    );
    if let Ok(framing) = found {
        assert!(codings + lengths <= 1, "{framing:?}");
        assert_eq!(framing == Framing::Chunked, codings == 1);
        assert_eq!(matches!(framing, Framing::Length(_)), lengths == 1);
        assert_ne!(framing, Framing::UntilClose);
        let mut out = Vec::new();
        request.write(&mut out);
        let mut again = RequestHead::new();
        assert_eq!(again.parse(&out, &Limits::default()), Ok(Some(out.len())));
        assert_eq!(framing::of_request(&again), Ok(framing));
        let (decoded, _) = decode(framing, &[&data[length..]]);
        if let Framing::Length(length) = framing {
            assert!(decoded.len() as u64 <= length);
        }
    } else {
        assert!(codings + lengths >= 1);
    }
    for status in [100, 200, 204, 304] {
        let response = ResponseHead {
            version: request.version,
            status,
            headers: request.headers.clone(),
            ..ResponseHead::new()
        };
        let of_response = framing::of_response(&request.method, &response);
        assert_eq!(
            of_response.is_err(),
            found.is_err(),
            "the same fields are as bad in a response"
        );
    }
}

/// The chunked coding: the cut makes no difference, and what is encoded again decodes to the same.
pub fn chunked(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    let pieces: Vec<_> = data.chunks(usize::from(cut).max(1)).collect();
    let (whole, in_pieces) = (
        decode(Framing::Chunked, &[data]),
        decode(Framing::Chunked, &pieces),
    );
    assert_eq!(whole, in_pieces);
    let (mut encoder, mut out) = (Encoder::new(Framing::Chunked), Vec::new());
    for piece in whole.0.chunks(usize::from(cut).max(1)) {
        assert!(encoder.data(piece, &mut out).is_ok());
    }
    assert!(encoder.end(&mut out).is_ok());
    assert_eq!(decode(Framing::Chunked, &[&out]), (whole.0, End::Done));
}

/// Messages between processes: whatever is read is written the same, and says how many descriptors it has.
pub fn ipc(data: &[u8]) {
    message::<ToMaster>(data);
    message::<ToWorker>(data);
}

fn message<M: Message>(data: &[u8]) {
    let Ok(message) = M::decode(data) else {
        return;
    };
    assert_eq!(message.descriptors(), M::stated_descriptors(data));
    let mut again = Vec::new();
    assert!(message.encode(&mut again).is_ok());
    assert_eq!(again, data);
}

/// Configuration files: an error says where and what; what is read and printed reads the same.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let sources = Sources {
        file: Some("proxy.conf".into()),
        ..Sources::default()
    };
    match sources.resolve(text) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            let printed = baton::config::effective(&config);
            assert_eq!(sources.resolve(&printed), Ok(config), "{printed}");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    More,
    Refused,
}

/// The payload up to where decoding ends, and how it ends.
fn decode(framing: Framing, pieces: &[&[u8]]) -> (Vec<u8>, End) {
    let (mut decoder, mut payload) = (Decoder::new(framing), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let Ok(step) = decoder.decode(rest) else {
                return (payload, End::Refused);
            };
            payload.extend_from_slice(&rest[step.data]);
            rest = &rest[step.consumed..];
            if step.done {
                return (payload, End::Done);
            }
            if step.consumed == 0 || rest.is_empty() {
                // A decoder keeps its own place: it takes all there is.
                assert!(rest.is_empty());
                break;
            }
        }
    }
    (payload, End::More)
}
