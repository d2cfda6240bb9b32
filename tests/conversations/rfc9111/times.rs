//! Times in a row: `{now-60}` is that moment as an HTTP date, `{now+60 rfc850}` in another of its forms.

use jiff::{SignedDuration, Timestamp};

/// Puts times in the place of what stands between braces; other braces stay.
pub fn fill(text: &str, now: Timestamp) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("{now") {
        let (before, from) = rest.split_at(at);
        let Some(end) = from.find('}') else { break };
        filled += before;
        filled += &time(&from["{now".len()..end], now);
        rest = &from[end + 1..];
    }
    filled + rest
}

fn time(what: &str, now: Timestamp) -> String {
    let (distance, form) = what.split_once(' ').unwrap_or((what, ""));
    let seconds: i64 = match distance.trim_start_matches('+') {
        "" => 0,
        number => number
            .parse()
            .unwrap_or_else(|_| panic!("seconds in {{now{what}}}")),
    };
    let then = now + SignedDuration::from_secs(seconds);
    let fixdate = then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    match form {
        "" => fixdate,
        "rfc850" => then.strftime("%A, %d-%b-%y %H:%M:%S GMT").to_string(),
        "asctime" => then.strftime("%a %b %e %H:%M:%S %Y").to_string(),
        "lower" => fixdate.to_ascii_lowercase(),
        "upper" => fixdate.to_ascii_uppercase(),
        // Any form a row wants to be wrong in, in the words of strftime.
        other => then.strftime(other).to_string(),
    }
}

#[test]
fn times_are_filled_in() {
    let now = Timestamp::from_second(784_111_777).unwrap();
    for (text, filled) in [
        ("Expires: {now}", "Expires: Sun, 06 Nov 1994 08:49:37 GMT"),
        ("{now-37}{x}", "Sun, 06 Nov 1994 08:49:00 GMT{x}"),
        ("{now+3 rfc850}", "Sunday, 06-Nov-94 08:49:40 GMT"),
        ("{now asctime}", "Sun Nov  6 08:49:37 1994"),
        ("{now lower}", "sun, 06 nov 1994 08:49:37 gmt"),
        ("{now %H.%M}", "08.49"),
    ] {
        assert_eq!(fill(text, now), filled);
    }
}
