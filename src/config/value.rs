//! The kinds of values a setting can have: how each is read from TOML, bounded, and shown again.
//!
//! A kind knows the field it fills, so that a setting is one row of data and no code of its own.

use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use jiff::SignedDuration;
use toml::de::DeValue;

/// One kind of value, with its bounds and the field of `T` that it fills.
pub(super) enum Kind<T> {
    /// A time such as `10s` or `1m 30s`.
    Duration(Duration, Duration, fn(&mut T) -> &mut Duration),
    /// Octets, such as `64KiB`.
    Size(u64, u64, fn(&mut T) -> &mut u64),
    /// A whole number.
    Count(usize, usize, fn(&mut T) -> &mut usize),
    /// A whole number up to 255.
    Small(fn(&mut T) -> &mut u8),
    /// true or false.
    Flag(fn(&mut T) -> &mut bool),
    /// One of some words.
    Choice(
        &'static [&'static str],
        fn(&mut T, &str),
        fn(&T) -> &'static str,
    ),
    /// Text that a function reads: what it refuses, it says why.
    Text(fn(&mut T, &str) -> Result<(), String>, fn(&T) -> String),
    /// Networks as CIDR or single addresses.
    Networks(fn(&mut T) -> &mut Vec<IpNet>),
    /// Texts, each checked by a function.
    Texts(
        fn(&str) -> Result<(), String>,
        fn(&mut T) -> &mut Vec<String>,
    ),
    /// Port numbers.
    Ports(fn(&mut T) -> &mut Vec<u16>),
}

impl<T: Clone> Kind<T> {
    /// Fills the field of `target` with `value`; the error says what is allowed.
    pub fn set(&self, target: &mut T, value: &DeValue<'_>) -> Result<(), String> {
        match self {
            Kind::Duration(min, max, field) => {
                *field(target) = bounded(duration(value)?, *min, *max, show_duration)?
            }
            Kind::Size(min, max, field) => {
                *field(target) = bounded(size(value)?, *min, *max, show_size)?
            }
            Kind::Count(min, max, field) => {
                *field(target) = bounded(count(value)?, *min, *max, |n| n.to_string())?
            }
            Kind::Small(field) => {
                let number = bounded(count(value)?, 0, 255, |n| n.to_string())?;
                *field(target) = u8::try_from(number).map_err(|error| error.to_string())?;
            }
            Kind::Flag(field) => *field(target) = truth(value)?,
            Kind::Choice(words, set, _) => {
                let word = text(value)?;
                if !words.contains(&word) {
                    return Err(format!("\"{word}\" is not one of: {}", words.join(", ")));
                }
                set(target, word);
            }
            Kind::Text(set, _) => set(target, text(value)?)?,
            Kind::Networks(field) => {
                *field(target) = members(value)?
                    .map(|v| network(text(v)?))
                    .collect::<Result<_, _>>()?
            }
            Kind::Texts(check, field) => {
                let texts: Vec<String> = members(value)?
                    .map(|v| text(v).map(str::to_owned))
                    .collect::<Result<_, _>>()?;
                texts.iter().try_for_each(|text| check(text))?;
                *field(target) = texts;
            }
            Kind::Ports(field) => {
                *field(target) = members(value)?.map(port).collect::<Result<_, _>>()?
            }
        }
        Ok(())
    }

    /// The field's value as TOML.
    pub fn show(&self, target: &T) -> String {
        let mut copy = target.clone();
        match self {
            Kind::Duration(_, _, field) => quoted(&show_duration(*field(&mut copy))),
            Kind::Size(_, _, field) => quoted(&show_size(*field(&mut copy))),
            Kind::Count(_, _, field) => field(&mut copy).to_string(),
            Kind::Small(field) => field(&mut copy).to_string(),
            Kind::Flag(field) => field(&mut copy).to_string(),
            Kind::Choice(_, _, show) => quoted(show(target)),
            Kind::Text(_, show) => quoted(&show(target)),
            Kind::Networks(field) => list(
                field(&mut copy)
                    .iter()
                    .map(|net| quoted(&show_network(net))),
            ),
            Kind::Texts(_, field) => list(field(&mut copy).iter().map(|text| quoted(text))),
            Kind::Ports(field) => list(field(&mut copy).iter().map(u16::to_string)),
        }
    }

    /// What is allowed, for people.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Duration(min, max, _) => {
                format!("{} to {}", show_duration(*min), show_duration(*max))
            }
            Kind::Size(min, max, _) => format!("{} to {}", show_size(*min), show_size(*max)),
            Kind::Count(min, max, _) if *max == usize::MAX => format!("{min} or more"),
            Kind::Count(min, max, _) => format!("{min} to {max}"),
            Kind::Small(_) => "0 to 255".to_owned(),
            Kind::Flag(_) => "true | false".to_owned(),
            Kind::Choice(words, _, _) => words.join(" | "),
            Kind::Text(..) => "text".to_owned(),
            Kind::Networks(_) => "networks, as [\"10.0.0.0/8\", \"::1\"]".to_owned(),
            Kind::Texts(..) => "a list of texts".to_owned(),
            Kind::Ports(_) => "a list of ports".to_owned(),
        }
    }
}

fn bounded<V: PartialOrd + Copy>(
    value: V,
    min: V,
    max: V,
    show: fn(V) -> String,
) -> Result<V, String> {
    if value < min || value > max {
        return Err(format!(
            "{} is outside {} to {}",
            show(value),
            show(min),
            show(max)
        ));
    }
    Ok(value)
}

fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("text in quotes is wanted, not {}", describe(value)))
}

fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    let hint = "a time such as \"500ms\", \"10s\" or \"1h 30m\" is wanted";
    if let Some("0" | "0s") = value.as_str() {
        return Ok(Duration::ZERO);
    }
    let text = value
        .as_str()
        .ok_or_else(|| format!("{hint}, not {}", describe(value)))?;
    let parsed: SignedDuration = text
        .parse()
        .map_err(|_| format!("{hint}, not \"{text}\""))?;
    Duration::try_from(parsed).map_err(|_| format!("\"{text}\" is negative; {hint}"))
}

fn size(value: &DeValue<'_>) -> Result<u64, String> {
    let hint = "a size such as 4096, \"64KiB\" or \"256MiB\" is wanted";
    if let Some(number) = integer(value) {
        return u64::try_from(number).map_err(|_| format!("{number} is negative; {hint}"));
    }
    let text = value
        .as_str()
        .ok_or_else(|| format!("{hint}, not {}", describe(value)))?;
    text.parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("{hint}, not \"{text}\""))
}

fn count(value: &DeValue<'_>) -> Result<usize, String> {
    let number = match value.as_str() {
        Some(text) => text.parse().ok(),
        None => integer(value),
    };
    number
        .and_then(|number: i64| usize::try_from(number).ok())
        .ok_or_else(|| format!("a whole number is wanted, not {}", describe(value)))
}

fn truth(value: &DeValue<'_>) -> Result<bool, String> {
    let truth = value.as_bool().or(match value.as_str() {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    });
    truth.ok_or_else(|| format!("true or false is wanted, not {}", describe(value)))
}

fn port(value: &DeValue<'_>) -> Result<u16, String> {
    integer(value)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("a port (1 to 65535) is wanted, not {}", describe(value)))
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| {
            format!(
                "\"{text}\" is not a network: write \"10.0.0.0/8\", \"192.168.1.7\" or \"fd00::/8\""
            )
        })
}

fn members<'a>(value: &'a DeValue<'_>) -> Result<impl Iterator<Item = &'a DeValue<'a>>, String> {
    let array = value
        .as_array()
        .ok_or_else(|| format!("a list in [brackets] is wanted, not {}", describe(value)))?;
    Ok(array.iter().map(|member| member.get_ref()))
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(number) => {
            i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
        }
        _ => None,
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '\\' | '"' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list(members: impl Iterator<Item = String>) -> String {
    format!("[{}]", members.collect::<Vec<_>>().join(", "))
}

fn show_network(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// `90s` as `1m 30s`: the form that `duration` reads.
pub(super) fn show_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    format!("{signed:#}")
}

/// The largest binary unit that keeps the number whole.
pub(super) fn show_size(octets: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    let unit = UNITS
        .iter()
        .find(|(unit, _)| octets >= *unit && octets.is_multiple_of(*unit));
    unit.map_or_else(
        || octets.to_string(),
        |(unit, name)| format!("{}{name}", octets / unit),
    )
}
