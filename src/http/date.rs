//! HTTP dates: the three grammars of RFC 9110 section 5.6.7 in, IMF-fixdate out, as seconds since 1970.
//!
//! Names are read in any case, and the day's name is not checked against the date. Anything else is no date.
//! Cache rules, conditions and our own pages call it.

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const LONG_DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const DAY: i64 = 86_400;
/// 9999-12-31 23:59:59, the last that four digits hold.
const LAST: i64 = 253_402_300_799;
/// 0000-01-01 00:00:00.
const FIRST: i64 = -62_167_219_200;

/// `parse_near` for callers to whom a two-digit year is not worth a clock: 70–99 are of the 20th century.
pub fn parse(text: &[u8]) -> Option<i64> {
    parse_near(text, 50 * 365 * DAY)
}

/// Reads a date of any of the three forms; `now` decides the century of a two-digit year.
pub fn parse_near(text: &[u8], now: i64) -> Option<i64> {
    imf_fixdate(text)
        .or_else(|| rfc850_date(text, now))
        .or_else(|| asctime_date(text))
}

// IMF-fixdate = day-name "," SP date1 SP time-of-day SP GMT, as in "Sun, 06 Nov 1994 08:49:37 GMT"
fn imf_fixdate(text: &[u8]) -> Option<i64> {
    let text: &[u8; 29] = text.try_into().ok()?;
    let fixed = &text[3..5] == b", " && text[7] == b' ' && text[11] == b' ' && text[16] == b' ';
    if !fixed || !is_day(&text[..3]) || !is_gmt(&text[25..]) {
        return None;
    }
    seconds(
        number(&text[12..16])?,
        month(&text[8..11])?,
        number(&text[5..7])?,
        &text[17..25],
    )
}

// rfc850-date = day-name-l "," SP date2 SP time-of-day SP GMT, as in "Sunday, 06-Nov-94 08:49:37 GMT"
fn rfc850_date(text: &[u8], now: i64) -> Option<i64> {
    let comma = memchr::memchr(b',', text)?;
    if !LONG_DAYS
        .iter()
        .any(|day| day.as_bytes().eq_ignore_ascii_case(&text[..comma]))
    {
        return None;
    }
    let text: &[u8; 23] = text[comma + 1..].try_into().ok()?;
    let fixed = text[0] == b' ' && text[3] == b'-' && text[7] == b'-' && text[10] == b' ';
    if !fixed || !is_gmt(&text[19..]) {
        return None;
    }
    // "Recipients of a timestamp value in rfc850-date format, which uses a two-digit year, MUST interpret a timestamp that
    // appears to be more than 50 years in the future as representing the most recent year in the past that had the
    // same last two digits."
    let (this_year, ..) = civil(now.clamp(FIRST, LAST).div_euclid(DAY));
    let mut year = this_year - this_year.rem_euclid(100) + number(&text[8..10])?;
    if year > this_year + 50 {
        year -= 100;
    } else if year <= this_year - 50 {
        year += 100;
    }
    seconds(
        year,
        month(&text[4..7])?,
        number(&text[1..3])?,
        &text[11..19],
    )
}

// asctime-date = day-name SP date3 SP time-of-day SP year, as in "Sun Nov  6 08:49:37 1994"
fn asctime_date(text: &[u8]) -> Option<i64> {
    let text: &[u8; 24] = text.try_into().ok()?;
    let fixed = text[3] == b' ' && text[7] == b' ' && text[10] == b' ' && text[19] == b' ';
    if !fixed || !is_day(&text[..3]) {
        return None;
    }
    // date3 = month SP ( 2DIGIT / ( SP 1DIGIT ))
    let day = if text[8] == b' ' {
        &text[9..10]
    } else {
        &text[8..10]
    };
    seconds(
        number(&text[20..24])?,
        month(&text[4..7])?,
        number(day)?,
        &text[11..19],
    )
}

fn is_day(name: &[u8]) -> bool {
    DAYS.iter().any(|day| day.eq_ignore_ascii_case(name))
}

fn is_gmt(text: &[u8]) -> bool {
    text.eq_ignore_ascii_case(b" GMT")
}

fn month(name: &[u8]) -> Option<i64> {
    MONTHS
        .iter()
        .position(|month| month.eq_ignore_ascii_case(name))
        .map(|index| index as i64 + 1)
}

fn number(digits: &[u8]) -> Option<i64> {
    super::syntax::decimal(digits).map(|number| number as i64)
}

fn seconds(year: i64, month: i64, day: i64, time: &[u8]) -> Option<i64> {
    if time.len() != 8 || time[2] != b':' || time[5] != b':' {
        return None;
    }
    let (hour, minute, second) = (
        number(&time[..2])?,
        number(&time[3..5])?,
        number(&time[6..])?,
    );
    // A leap second is 60.
    if !(1..=days_in(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the Gregorian calendar, by eras of 400 years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of `days`: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends `unix` as IMF-fixdate; years before 0 and after 9999 become the nearest there is.
pub fn write(unix: i64, out: &mut Vec<u8>) {
    let unix = unix.clamp(FIRST, LAST);
    let (days, second) = (unix.div_euclid(DAY), unix.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let two = |number: i64| [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
    out.extend_from_slice(DAYS[days.rem_euclid(7) as usize]);
    out.extend_from_slice(b", ");
    out.extend_from_slice(&two(day));
    out.push(b' ');
    out.extend_from_slice(MONTHS[month as usize - 1]);
    out.push(b' ');
    out.extend_from_slice(&two(year / 100));
    out.extend_from_slice(&two(year % 100));
    for (mark, number) in [
        (b' ', second / 3600),
        (b':', second / 60 % 60),
        (b':', second % 60),
    ] {
        out.push(mark);
        out.extend_from_slice(&two(number));
    }
    out.extend_from_slice(b" GMT");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms() {
        let expected = Some(784_111_777);
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "sUN, 06 nOV 1994 08:49:37 gmt",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "wednesday, 06-nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse(b"Sat, 29 Feb 2020 23:59:60 GMT"), Some(1_583_020_800));
    }

    #[test]
    fn anything_else_is_no_date() {
        for text in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Xxx, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37GMT ",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "Sunday, ",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_century_of_two_digits() {
        let now = parse(b"Sat, 21 Nov 2026 00:00:00 GMT").unwrap();
        let year = |text: &str| civil(parse_near(text.as_bytes(), now).unwrap().div_euclid(DAY)).0;
        assert_eq!(year("Sunday, 06-Nov-76 08:49:37 GMT"), 2076);
        assert_eq!(year("Sunday, 06-Nov-77 08:49:37 GMT"), 1977);
        assert_eq!(year("Sunday, 06-Nov-26 08:49:37 GMT"), 2026);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_reads_the_same(unix in FIRST..=LAST) {
            let mut text = Vec::new();
            write(unix, &mut text);
            prop_assert_eq!(parse(&text), Some(unix));
        }

        #[test]
        fn octets_never_panic(text in proptest::collection::vec(any::<u8>(), 20..36), unix in any::<i64>()) {
            let _ = parse_near(&text, unix);
            write(unix, &mut Vec::new());
        }
    }
}
