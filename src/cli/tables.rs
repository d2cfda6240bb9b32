//! The answers of `baton cache` for people.
//!
//! Values in, text out, without a line end. Sizes are in binary units, times relative to now.

use bytesize::ByteSize;
use comfy_table::presets::{NOTHING, UTF8_BORDERS_ONLY};
use comfy_table::{CellAlignment, Table, TableStyle};

use crate::cache::Set;
use crate::janitor::protocol::{
    Catalogue, Considered, Counters, Entry, Explained, Exported, Imported, Item, Judged, Kind,
    Purged, Response, Shown, Stats, Store, Verified,
};
use crate::sys::clock::unix_seconds;

/// Damaged objects that are shown; `--json` has more.
const MOST_DAMAGE: usize = 20;

// === stats

pub(super) fn stats(stats: &Stats) -> String {
    let mut table = table(UTF8_BORDERS_ONLY.with_rounded_corners());
    let mut row = |name: &str, value: String| {
        table.add_row([name, &value]);
    };
    match (&stats.directory, &stats.database) {
        (Some(directory), _) => row("directory", directory.clone()),
        (None, Some(database)) => row("kept at", database.clone()),
        (None, None) => row("kept in", "the memory of each worker".to_owned()),
    }
    row(
        "used by",
        match &stats.holder {
            Some(holder) => holder.clone(),
            None if stats.store == Store::Postgres && stats.running => {
                "running instances".to_owned()
            }
            None if stats.running => "a running instance".to_owned(),
            None => "nobody: at rest".to_owned(),
        },
    );
    row("responses", responses(stats));
    row("content", size(stats.content));
    row(
        match stats.store {
            Store::Memory => "in memory",
            Store::Directory => "on the disk",
            Store::Postgres => "in the database",
        },
        used(stats),
    );
    if let Some(free) = stats.free {
        row("free there", size(free));
    }
    if let Some(state) = stats.catalogue {
        row("catalogue", catalogue(state));
    }
    if let Some(counters) = &stats.counters {
        row("requests", number(counters.requests));
        row("from the cache", hits(counters));
        row("stored, evicted", stored(counters));
        row("sent to clients", size(counters.sent));
    }
    table.to_string()
}

fn responses(stats: &Stats) -> String {
    let all = number(stats.objects + stats.variants);
    match stats.variants {
        0 => all,
        variants => format!(
            "{all}, of which {} are variants of {} URLs",
            number(variants),
            number(stats.lists)
        ),
    }
}

fn used(stats: &Stats) -> String {
    let used = size(stats.size);
    match stats.limit {
        None => used,
        Some(0) => format!("{used}; the limit is being worked out"),
        Some(limit) => format!(
            "{used} of {} ({})",
            size(limit),
            percentage(stats.size, limit)
        ),
    }
}

fn catalogue(catalogue: Catalogue) -> String {
    match catalogue {
        Catalogue::Complete => "complete".to_owned(),
        Catalogue::Reading(percent) => format!("being made from the files: {percent} %"),
        Catalogue::Unfinished => {
            "not closed in order; the next start looks at the files".to_owned()
        }
        Catalogue::Unusable => "none; the next start makes one from the files".to_owned(),
    }
}

fn hits(counters: &Counters) -> String {
    let hits = counters.hits + counters.revalidated;
    format!(
        "{} ({}), of which {} after asking the origin",
        number(hits),
        percentage(hits, counters.requests),
        number(counters.revalidated)
    )
}

fn stored(counters: &Counters) -> String {
    format!("{}, {}", number(counters.stored), number(counters.evicted))
}

// === ls

/// Without the lists that lead to variants: they are no responses.
/// `sorted`: they are in the order that is wanted; else they are put in that of their URLs.
pub(super) fn list(items: &mut Vec<Item>, sorted: bool) -> String {
    items.retain(|item| item.kind != Kind::List);
    if !sorted {
        items.sort_by(|one, other| {
            (&one.url, one.side, &one.name).cmp(&(&other.url, other.side, &other.name))
        });
    }
    if items.is_empty() {
        return String::new();
    }
    let now = unix_seconds();
    let mut table = table(NOTHING);
    table.set_header(["STATUS", "LENGTH", "HITS", "FRESH", "USED", "SIDE", "URL"]);
    for item in items.iter() {
        table.add_row([
            item.status.to_string(),
            size(item.length),
            item.hits.map(number).unwrap_or_default(),
            freshness(item.expires - now),
            item.used.map(|used| ago(now - used)).unwrap_or_default(),
            item.side.name().to_owned(),
            match item.kind {
                Kind::Variant => format!("{} (a variant)", item.url),
                _ => item.url.clone(),
            },
        ]);
    }
    for column in 0..3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    trimmed(&table)
}

// === show

pub(super) fn shown(shown: &Shown) -> String {
    if shown.found.is_empty() {
        return format!("nothing is kept of {}", shown.url);
    }
    let entries = shown.found.iter().map(|entry| one(&shown.url, entry));
    entries.collect::<Vec<_>>().join("\n\n")
}

fn one(url: &str, entry: &Entry) -> String {
    let mut table = table(UTF8_BORDERS_ONLY.with_rounded_corners());
    let mut row = |name: &str, value: String| {
        table.add_row([name, &value]);
    };
    row("URL", url.to_owned());
    row("asked for by", format!("{} clients", entry.side.name()));
    if let Some(trouble) = &entry.trouble {
        row("not usable", trouble.clone());
    }
    if entry.kind == Kind::List {
        let names = entry.selects_by.iter().map(|names| names.join(", "));
        row("leads to variants by", names.collect::<Vec<_>>().join("\n"));
    }
    if let Some(response) = &entry.response {
        response_rows(response, &mut row);
    }
    if !entry.rows.is_empty() {
        row("in the database", size(entry.size));
        row("rows", entry.rows.join("\n"));
    } else if entry.workers.is_empty() {
        row("on the disk", size(entry.size));
        row("files", entry.files.join("\n"));
    } else {
        row("in memory", size(entry.size));
        row("of", workers(&entry.workers));
    }
    table.to_string()
}

fn response_rows(response: &Response, row: &mut impl FnMut(&str, String)) {
    for (name, value) in &response.selected_by {
        let value = value.as_deref().unwrap_or("(none)");
        row("selected by", format!("{name}: {value}"));
    }
    row("age", duration(i64::from(response.age)));
    row("fresh", freshness(response.fresh));
    row("length", size(response.length));
    row("status", format!("{} {}", response.status, response.reason));
    let fields = response.fields.iter();
    let fields = fields.map(|(name, value)| format!("{name}: {value}"));
    row("fields", fields.collect::<Vec<_>>().join("\n"));
}

// === explain

pub(super) fn explained(explained: &Explained) -> String {
    let mut lines = vec![format!("{} {}", explained.method, explained.url)];
    let fields = explained.fields.iter();
    lines.extend(fields.map(|(name, value)| format!("{name}: {value}")));
    let sides = explained.sides.iter().map(judged);
    format!(
        "{}\n\n{}",
        lines.join("\n"),
        sides.collect::<Vec<_>>().join("\n\n")
    )
}

fn judged(side: &Judged) -> String {
    let mut text = format!("key  {}\n", side.key);
    if !side.workers.is_empty() {
        text += &format!("at   {}\n", workers(&side.workers));
    }
    for considered in &side.found {
        text += &format!("{}\n", self::considered(considered));
    }
    text += &format!("=> {}: {}", side.outcome, side.why);
    if let Some(then) = &side.then {
        text += &format!(";\n   {then}");
    }
    text + &format!("\n   Cache-Status: {}", side.cache_status)
}

fn considered(considered: &Considered) -> String {
    let entry = &considered.entry;
    let mut table = table(UTF8_BORDERS_ONLY.with_rounded_corners());
    let mut row = |name: &str, value: String| {
        table.add_row([name, &value]);
    };
    let state = match (entry.kind, &entry.trouble, considered.selected) {
        (_, Some(trouble), _) => format!("not usable: {trouble}"),
        (Kind::List, ..) => "a list that leads to variants".to_owned(),
        (_, None, true) => "selected by this request".to_owned(),
        (_, None, false) => "not selected: another one is, or it is for other requests".to_owned(),
    };
    row("kept", state);
    let names = entry.selects_by.iter().map(|names| names.join(", "));
    if let Some(names) = names.reduce(|all, names| format!("{all}\n{names}")) {
        row("by", names);
    }
    if let Some(response) = &entry.response {
        row("status", format!("{} {}", response.status, response.reason));
        for (name, value) in &response.selected_by {
            let value = value.as_deref().unwrap_or("(none)");
            row("selected by", format!("{name}: {value}"));
        }
        for (name, value) in &response.fields {
            if matters(name) {
                row(name, value.clone());
            }
        }
    }
    if let Some(it) = &considered.freshness {
        let seconds = |number: i64| format!("{number} s");
        let lifetime = i64::from(it.freshness_lifetime);
        row(
            "lifetime",
            format!("{lifetime} s, from {}", it.lifetime_from),
        );
        let (apparent, delay) = (it.apparent_age, it.response_delay);
        row(
            "initial age",
            format!(
                "{} s, the greater of {apparent} s by Date and Age + {delay} s of delay",
                it.corrected_initial_age
            ),
        );
        row("in the store", seconds(it.resident_time));
        row(
            "age",
            format!(
                "{} s = {} + {}",
                it.current_age, it.corrected_initial_age, it.resident_time
            ),
        );
        let left = match it.remaining {
            1.. => "fresh",
            _ => "stale",
        };
        row(
            left,
            format!("{} s = {lifetime} - {}", it.remaining, it.current_age),
        );
    }
    table.to_string()
}

/// Fields by which it is decided, among those of a response.
fn matters(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "age",
        "cache-control",
        "cdn-cache-control",
        "content-encoding",
        "content-language",
        "content-range",
        "date",
        "etag",
        "expires",
        "last-modified",
        "pragma",
        "set-cookie",
        "surrogate-control",
        "vary",
    ];
    NAMES.iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// `worker 0`, `workers 0, 1`
pub(super) fn workers(numbers: &[u16]) -> String {
    let all: Vec<String> = numbers.iter().map(u16::to_string).collect();
    let word = if all.len() == 1 { "worker" } else { "workers" };
    format!("{word} {}", all.join(", "))
}

// === verify, purge

pub(super) fn verified(verified: &Verified) -> String {
    let mut text = format!(
        "{} objects checked, {} read: {}",
        number(verified.checked),
        size(verified.octets),
        match verified.damaged {
            0 => "none is damaged".to_owned(),
            damaged => format!("{} damaged and removed", number(damaged)),
        }
    );
    if verified.dead > 0 {
        text += &format!("; {} that counted no more removed", number(verified.dead));
    }
    if verified.unreadable > 0 {
        text += &format!("; {} could not be read", number(verified.unreadable));
    }
    for damage in verified.damage.iter().take(MOST_DAMAGE) {
        let url = damage
            .url
            .as_deref()
            .unwrap_or("(what it was cannot be told)");
        text += &format!("\n  {}  {url}: {}", damage.name, damage.why);
    }
    let more = verified.damaged.saturating_sub(MOST_DAMAGE as u64);
    if more > 0 {
        text += &format!("\n  and {} more", number(more));
    }
    text
}

pub(super) fn purged(purged: &Purged) -> String {
    let objects = so_many(purged.objects);
    let done = match purged.soft {
        true => "stale now",
        false => "removed",
    };
    let everything = format!("everything {done}: {objects}, {}", size(purged.octets));
    let Some(set) = &purged.what else {
        return everything;
    };
    let what = match set {
        // As all that are marked stale at once are.
        Set::Prefix(prefix) if prefix.is_empty() => return everything,
        Set::Url(url) => url.clone(),
        Set::Prefix(prefix) => format!("{prefix}…"),
        Set::Tags(tags) => format!("the tags {}", tags.join(", ")),
        Set::Regex(expression) => format!("URLs like {expression}"),
    };
    match purged.objects {
        0 => format!("nothing is kept of {what}"),
        _ => format!("{objects} of {what} {done}, {}", size(purged.octets)),
    }
}

pub(super) fn exported(exported: &Exported) -> String {
    let done = format!(
        "{} written, {}",
        so_many(exported.objects),
        size(exported.octets)
    );
    match exported.damaged {
        0 => done,
        damaged => format!(
            "{done}; {} damaged and left out: `baton cache verify` says which",
            so_many(damaged)
        ),
    }
}

pub(super) fn imported(imported: &Imported) -> String {
    let mut done = format!(
        "{} put, {}",
        so_many(imported.objects),
        size(imported.octets)
    );
    let left_out = [
        (imported.newer, "as what is there is not older"),
        (imported.no_room, "as there is no more room"),
        (
            imported.damaged,
            "as they were damaged when the archive was made",
        ),
    ];
    for (count, why) in left_out {
        if count > 0 {
            done += &format!("\n{} left out, {why}", so_many(count));
        }
    }
    done
}

// === pieces

fn so_many(count: u64) -> String {
    match count {
        1 => "1 response".to_owned(),
        count => format!("{} responses", number(count)),
    }
}

fn table(style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style);
    table
}

/// Without the blanks that a table without borders ends its lines with, nor those it begins them with.
fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    let lines = text
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

fn size(octets: u64) -> String {
    match octets {
        0..1024 => format!("{octets} B"),
        _ => ByteSize::b(octets).display().iec().to_string(),
    }
}

/// With a comma for the thousands.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percentage(part: u64, whole: u64) -> String {
    match whole {
        0 => "0 %".to_owned(),
        whole => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

fn freshness(seconds: i64) -> String {
    match seconds {
        0.. => format!("for {}", duration(seconds)),
        _ => format!("stale since {}", duration(-seconds)),
    }
}

fn ago(seconds: i64) -> String {
    match seconds {
        ..60 => "just now".to_owned(),
        seconds => format!("{} ago", duration(seconds)),
    }
}

/// In the largest unit of which there are at least two.
fn duration(seconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "days"), (3600, "h"), (60, "min"), (1, "s")];
    let unit = UNITS.iter().find(|(unit, _)| seconds >= 2 * unit);
    let (unit, name) = unit.unwrap_or(&(1, "s"));
    format!("{} {name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::janitor::protocol::Side;

    #[test]
    fn numbers_are_written_for_people() {
        for (seconds, text) in [(0, "0 s"), (90, "90 s"), (120, "2 min"), (7199, "119 min")] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(duration(86_400 * 400), "400 days");
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(n), text);
        }
        assert_eq!(
            (size(1023), size(1536)),
            ("1023 B".to_owned(), "1.5 KiB".to_owned())
        );
        assert_eq!(percentage(1, 3), "33.3 %");
        assert_eq!(freshness(-90), "stale since 90 s");
    }

    #[test]
    fn a_list_is_in_order_and_without_what_is_no_response() {
        let item = |url: &str, kind| Item {
            workers: Vec::new(),
            url: url.to_owned(),
            side: Side::Forward,
            kind,
            name: String::new(),
            status: 200,
            length: 5,
            size: 4096,
            stored: 0,
            expires: unix_seconds() + 7300,
            used: Some(unix_seconds()),
            hits: Some(7),
        };
        let mut items = vec![
            item("http://b/", Kind::Object),
            item("http://a/", Kind::Variant),
            item("http://a/", Kind::List),
        ];
        let text = list(&mut items, false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("STATUS"), "{text}");
        assert!(lines[1].ends_with("http://a/ (a variant)"), "{text}");
        assert!(lines[2].contains("for 2 h"), "{text}");
        assert_eq!(list(&mut Vec::new(), false), "");
    }
}
