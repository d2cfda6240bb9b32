//! How Cache-Control, Age, Expires and Pragma are read: RFC 9111 sections 1.2.2, 4.2.1, 5.1 to 5.4, RFC 9110 section 5.6.7.

use super::engine::Table;
use super::words::{Row, get, must, not_reused, reused};

#[test]
fn in_reverse_mode() {
    table().holds_in_reverse_mode();
}

#[test]
fn in_forward_mode() {
    table().holds_in_forward_mode();
}

fn table() -> Table {
    Table::new(
        "parsing",
        [
            directives(),
            duplicates(),
            ages(),
            dates(),
            wrong_dates(),
            pragma(),
        ],
    )
}

/// 5.2: "Cache directives are identified by a token, to be compared case-insensitively, and have an optional argument that
/// can use both token and quoted-string syntax."
#[rustfmt::skip]
fn directives() -> Vec<Row> {
    vec![
        reused("9111 5.2", "MaX-aGe", "Cache-Control: MaX-aGe=3600"),
        not_reused("9111 5.2", "No-StOrE", "Cache-Control: No-StOrE, max-age=3600"),
        not_reused("9111 5.2", "No-CaChE", "Cache-Control: No-CaChE, max-age=3600"),
        not_reused("9111 5.2", "PRIVATE", "Cache-Control: PRIVATE, max-age=3600"),
        reused("9111 5.2", "S-MaxAge", "Cache-Control: S-MaxAge=3600"),
        reused("9111 5.2", "max-age quoted", "Cache-Control: max-age=\"3600\""),
        not_reused("9111 5.2", "max-age=0 quoted", "Cache-Control: max-age=\"0\""),
        reused("9111 5.2", "max-age with leading zeros", "Cache-Control: max-age=00003600"),
        reused("9111 5.2.3", "an unknown directive", "Cache-Control: foo, max-age=3600"),
        reused("9111 5.2.3", "an unknown directive with an argument", "Cache-Control: max-age=3600, foo=bar"),
        reused("9111 5.2.3", "an unknown directive that ends like max-age", "Cache-Control: xmax-age=0, max-age=3600"),
        reused("9111 5.2.3", "an unknown directive that begins like no-store", "Cache-Control: no-stores, max-age=3600"),
        // A directive that stands inside a quoted argument is text.
        reused("9111 5.2", "no-store inside quotes", "Cache-Control: foo=\"no-store\", max-age=3600"),
        reused("9111 5.2", "max-age=0 inside quotes, before", "Cache-Control: foo=\"max-age=0\", max-age=3600"),
        reused("9111 5.2", "max-age=0 inside quotes, behind a comma", "Cache-Control: foo=\"a, max-age=0\", max-age=3600"),
        not_reused("9111 5.2", "max-age inside quotes", "Cache-Control: foo=\"max-age=3600\", max-age=0"),
        reused("9111 5.2", "an escaped quote inside quotes", "Cache-Control: foo=\"a\\\", no-store\", max-age=3600"),
        reused("9110 5.6.1", "white space around commas", "Cache-Control: foo ,\tmax-age=3600 , bar"),
        reused("9110 5.6.1", "no white space at all", "Cache-Control: foo,max-age=3600,bar"),
        reused("9110 5.6.1.2", "empty members", "Cache-Control: , ,max-age=3600,,"),
        reused("9110 5.2", "several lines are one list", "Cache-Control: foo\nCache-Control: max-age=3600"),
        not_reused("9110 5.2", "several lines are one list, no-store on the second", "Cache-Control: max-age=3600\nCache-Control: no-store"),
        // 4.2.1: "caches are encouraged to consider responses that have invalid freshness information (e.g., a max-age
        // directive present without a value, or with a non-integer value) to be stale."
        not_reused("9111 4.2.1", "max-age without an argument", "Cache-Control: max-age"),
        not_reused("9111 4.2.1", "max-age with an empty argument", "Cache-Control: max-age="),
        not_reused("9111 4.2.1", "max-age with a letter before", "Cache-Control: max-age=a3600"),
        not_reused("9111 4.2.1", "max-age with a letter behind", "Cache-Control: max-age=3600a"),
        not_reused("9111 4.2.1", "max-age with a fraction of zero", "Cache-Control: max-age=3600.0"),
        not_reused("9111 4.2.1", "max-age with a fraction", "Cache-Control: max-age=3600.5"),
        not_reused("9111 4.2.1", "max-age below zero", "Cache-Control: max-age=-3600"),
        not_reused("9111 4.2.1", "max-age with a plus", "Cache-Control: max-age=+3600"),
        not_reused("9111 4.2.1", "max-age in apostrophes", "Cache-Control: max-age='3600'"),
        not_reused("9111 4.2.1", "white space before the equals sign", "Cache-Control: max-age =3600"),
        not_reused("9111 4.2.1", "white space behind the equals sign", "Cache-Control: max-age= 3600"),
        not_reused("9111 4.2.1", "max-age with a colon", "Cache-Control: max-age:3600"),
        not_reused("9111 4.2.1", "an invalid s-maxage", "Cache-Control: s-maxage=a, max-age=3600"),
        not_reused("9111 4.2.1", "an invalid max-age beside Expires", "Cache-Control: max-age=a\nExpires: {now+3600}"),
        must("9111 4.2.1", "what a quoted max-age allows has passed", &[
            get().says("Cache-Control: max-age=\"1\""), get().later(2).reaches(),
        ]),
    ]
}

/// 4.2.1: "either the first occurrence should be used or the response should be considered stale. If directives conflict
/// (e.g., both max-age and no-cache are present), the most restrictive directive should be honored."
#[rustfmt::skip]
fn duplicates() -> Vec<Row> {
    vec![
        not_reused("9111 4.2.1", "max-age=0, then more, on one line", "Cache-Control: max-age=0, max-age=3600"),
        not_reused("9111 4.2.1", "max-age=0, then more, on two lines", "Cache-Control: max-age=0\nCache-Control: max-age=3600"),
        reused("9111 4.2.1", "the same max-age twice", "Cache-Control: max-age=3600, max-age=3600"),
        not_reused("9111 4.2.1", "s-maxage=0, then more", "Cache-Control: s-maxage=0, s-maxage=3600"),
        must("9111 4.2.1", "max-age=1, then more, is stale after a second", &[
            get().says("Cache-Control: max-age=1, max-age=3600"), get().later(2).reaches(),
        ]),
        not_reused("9111 4.2.1", "no-store beside public", "Cache-Control: public, max-age=3600, no-store"),
        not_reused("9111 4.2.1", "private beside public", "Cache-Control: public, private, max-age=3600"),
        not_reused("9111 4.2.1", "no-cache with fields and without", "Cache-Control: no-cache=\"foo\", no-cache, max-age=3600"),
        not_reused("9111 4.2.1", "private with fields and without", "Cache-Control: private=\"foo\", private, max-age=3600"),
    ]
}

/// 5.1: "Although it is defined as a singleton header field, a cache encountering a message with a list-based Age field
/// value SHOULD use the first value in the field value, discarding subsequent ones. If the field value (after discarding
/// additional values, as above) is invalid (e.g., it contains something other than a non-negative integer), a cache SHOULD
/// ignore the field."
#[rustfmt::skip]
fn ages() -> Vec<Row> {
    let hour = |age: &str| format!("Cache-Control: max-age=3600\n{age}");
    vec![
        reused("9111 5.1", "Age below zero is ignored", &hour("Age: -7200")),
        reused("9111 5.1", "Age with a fraction is ignored", &hour("Age: 7200.0")),
        reused("9111 5.1", "Age in quotes is ignored", &hour("Age: \"7200\"")),
        reused("9111 5.1", "Age with a letter before is ignored", &hour("Age: a7200")),
        reused("9111 5.1", "Age with a letter behind is ignored", &hour("Age: 7200a")),
        reused("9111 5.1", "Age that is a word is ignored", &hour("Age: abc")),
        reused("9111 5.1", "Age with a parameter is ignored", &hour("Age: 7200;foo=111")),
        reused("9111 5.1", "an empty Age is ignored", &hour("Age: ")),
        reused("9111 5.1", "of several Ages the first counts: 0, then old", &hour("Age: 0, 7200")),
        reused("9111 5.1", "of several lines the first counts: 0, then old", &hour("Age: 0\nAge: 7200")),
        not_reused("9111 5.1", "of several Ages the first counts: old, then 0", &hour("Age: 7200, 0")),
        not_reused("9111 5.1", "of several lines the first counts: old, then 0", &hour("Age: 7200\nAge: 0")),
        not_reused("9111 1.2.2", "an Age beyond 32 bits", &hour("Age: 4294967297")),
        not_reused("9111 1.2.2", "an Age beyond 64 bits", &hour("Age: 99999999999999999999999")),
        not_reused("9111 1.2.2", "an Age of 2^31", &hour("Age: 2147483648")),
        not_reused("9111 5.1", "an Age with leading zeros", &hour("Age: 0007200")),
    ]
}

/// RFC 9110 5.6.7: "A recipient that parses a timestamp value in an HTTP field MUST accept all three HTTP-date formats."
#[rustfmt::skip]
fn dates() -> Vec<Row> {
    vec![
        reused("9110 5.6.7", "Expires as RFC 850 had dates", "Expires: {now+3600 rfc850}"),
        reused("9110 5.6.7", "Expires as asctime writes dates", "Expires: {now+3600 asctime}"),
        not_reused("9110 5.6.7", "Expires as RFC 850 had dates, gone by", "Expires: {now-3600 rfc850}"),
        not_reused("9110 5.6.7", "Expires as asctime writes dates, gone by", "Expires: {now-3600 asctime}"),
        // "Recipients of timestamp values are encouraged to be robust", and 9111 4.2: "Although all date formats are
        // specified to be case-sensitive, a cache recipient SHOULD match the field value case-insensitively."
        reused("9111 4.2", "Expires in small letters", "Expires: {now+3600 lower}"),
        reused("9111 4.2", "Expires in capitals", "Expires: {now+3600 upper}"),
        reused("9111 4.2", "Expires with gmt in small letters", "Expires: {now+3600 %a, %d %b %Y %H:%M:%S gmt}"),
        reused("9110 5.6.7", "Expires far away", "Expires: Fri, 31 Dec 2100 23:59:59 GMT"),
        reused("9110 5.6.7", "Expires beyond 32 bits", "Expires: Tue, 19 Jan 2038 14:14:08 GMT"),
        reused("9110 5.6.7", "Expires in the year 9999", "Expires: Sun, 21 Nov 9999 04:46:02 GMT"),
        not_reused("9110 5.6.7", "Expires in 1970", "Expires: Thu, 01 Jan 1970 00:00:00 GMT"),
        // "Recipients of a timestamp value in rfc850-date format, which uses a two-digit year, MUST interpret a timestamp
        // that appears to be more than 50 years in the future as representing the most recent year in the past that had the
        // same last two digits."
        not_reused("9110 5.6.7", "two digits of a year long gone", "Expires: Sunday, 06-Nov-94 08:49:37 GMT"),
        // A Date that is none counts as absent: the time of receipt (9110 6.6.1).
        reused("9110 6.6.1", "an invalid Date is as none", "Cache-Control: max-age=3600\nDate: foo"),
        reused("9110 6.6.1", "an invalid Date beside Expires is as none", "Expires: {now+3600}\nDate: foo"),
        not_reused("9110 5.6.7", "Date as RFC 850 had dates", "Cache-Control: max-age=3600\nDate: {now-7200 rfc850}"),
        not_reused("9110 5.6.7", "Date as asctime writes dates", "Cache-Control: max-age=3600\nDate: {now-7200 asctime}"),
        not_reused("9111 4.2", "Date in small letters", "Cache-Control: max-age=3600\nDate: {now-7200 lower}"),
    ]
}

/// 5.3: "A cache recipient MUST interpret invalid date formats, especially the value "0", as representing a time in the
/// past (i.e., "already expired")."
#[rustfmt::skip]
fn wrong_dates() -> Vec<Row> {
    [
        ("0", "0"),
        ("a word", "foo"),
        ("nothing", ""),
        ("seconds", "3600"),
        ("a number below zero", "-1"),
        ("an hour of one digit", "{now+36000 %a, %d %b %Y} 9:00:00 GMT"),
        ("a day of one digit", "Thu, 8 Aug 2999 10:00:00 GMT"),
        ("a year of two digits", "{now+3600 %a, %d %b %y %H:%M:%S GMT}"),
        ("a year of five digits", "Thu, 08 Aug 12999 10:00:00 GMT"),
        ("no seconds", "{now+3600 %a, %d %b %Y %H:%M GMT}"),
        ("half a day's clock", "Thu, 08 Aug 2999 10:00:00 AM GMT"),
        ("no zone", "{now+3600 %a, %d %b %Y %H:%M:%S}"),
        ("another zone", "{now+3600 %a, %d %b %Y %H:%M:%S PST}"),
        ("the zone UTC", "{now+3600 %a, %d %b %Y %H:%M:%S UTC}"),
        ("an offset", "{now+3600 %a, %d %b %Y %H:%M:%S +0000}"),
        ("no comma", "{now+3600 %a %d %b %Y %H:%M:%S GMT}"),
        ("a comma without a space", "{now+3600 %a,%d %b %Y %H:%M:%S GMT}"),
        ("two spaces", "{now+3600 %a, %d %b %Y  %H:%M:%S GMT}"),
        ("hyphens", "{now+3600 %a, %d-%b-%Y %H:%M:%S GMT}"),
        ("no day name", "{now+3600 %d %b %Y %H:%M:%S GMT}"),
        ("dots in the time", "{now+3600 %a, %d %b %Y %H.%M.%S GMT}"),
        ("a month that is none", "Thu, 08 Foo 2999 10:00:00 GMT"),
        ("a month in full", "{now+3600 %a, %d} November {now+3600 %Y %H:%M:%S GMT}"),
        ("a day that is none", "Thu, 31 Feb 2999 10:00:00 GMT"),
        ("an hour that is none", "Thu, 08 Aug 2999 25:00:00 GMT"),
        ("a form of computers", "{now+3600 %Y-%m-%dT%H:%M:%SZ}"),
        ("a date and a word", "{now+3600}, foo"),
        ("a date in quotes", "\"{now+3600}\""),
    ]
    .into_iter()
    .map(|(what, value)| not_reused("9111 5.3", format!("Expires with {what}"), &format!("Expires: {value}")))
    .chain([
        // 4.2.1: "When there is more than one value present for a given directive (e.g., two Expires header field lines
        // [...]), either the first occurrence should be used or the response should be considered stale."
        not_reused("9111 4.2.1", "Expires twice", "Expires: {now-10}\nExpires: {now+3600}"),
        reused("9110 5.6.7", "the day's name is not checked", "Expires: Mon, 31 Dec 2100 23:59:59 GMT"),
        reused("9110 5.5", "white space around the value is no part of it", "Expires:   {now+3600}  "),
    ])
    .collect()
}

/// 5.4: "The "Pragma" request header field was defined for HTTP/1.0 caches"; in a response it "was never specified".
#[rustfmt::skip]
fn pragma() -> Vec<Row> {
    vec![
        not_reused("9111 5.4", "Pragma: no-cache in a response that says nothing else", "Pragma: no-cache"),
        not_reused("9111 5.4", "Pragma: no-cache against a heuristic", "Pragma: no-cache\nLast-Modified: {now-360000}"),
        must("9111 5.4", "a request's Pragma: no-cache", &[
            get().says("Cache-Control: max-age=3600"), get().with("Pragma: no-cache").reaches(),
        ]),
        must("9111 5.4", "a request's Pragma: No-Cache", &[
            get().says("Cache-Control: max-age=3600"), get().with("Pragma: No-Cache").reaches(),
        ]),
        must("9111 5.4", "a request's Pragma: foo, no-cache", &[
            get().says("Cache-Control: max-age=3600"), get().with("Pragma: foo, no-cache").reaches(),
        ]),
        must("9111 5.4", "an unknown Pragma of a request changes nothing", &[
            get().says("Cache-Control: max-age=3600"), get().with("Pragma: foo").cached(),
        ]),
        must("9111 5.4", "Cache-Control of a request goes before its Pragma", &[
            get().says("Cache-Control: max-age=3600"), get().with("Pragma: no-cache\nCache-Control: max-age=1000").cached(),
        ]),
    ]
}
