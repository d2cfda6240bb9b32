//! What a request selects among the files of its key.
//!
//! The same steps serve the thread that must not wait ([`Access::Cached`]: it changes nothing, and gives up where
//! only the disk knows) and the threads that may; those also remove what turns out to be damaged.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::format::{BLOCK, Body, Content, Kept, List};
use super::place::Place;
use super::read::{self, Read, ReadError};
use super::{OnDisk, purged, write};
use crate::cache::Name;
use crate::cache::vary::{Match, Selection};
use crate::http::Headers;
use crate::store::{Fate, Purges};
use crate::sys::files::{self, Access, Facts};

/// Bodies up to this size that are not trusted are read and checked as a whole before they are served.
const CHECKED_AT_ONCE: u64 = 64 * BLOCK as u64;
/// A file may be replaced between the reading of a head and the opening of its body, so often in a row at most.
const TRIES: usize = 3;

/// What is asked.
pub struct Question<'a> {
    pub place: &'a Place,
    pub key: &'a [u8],
    pub name: Name,
    pub generation: u64,
    /// Those that may be about what is found.
    pub purges: Purges,
    pub request: &'a Headers,
    /// Bodies up to so many octets are to be held in memory.
    pub in_memory: u64,
}

pub enum Looked {
    Absent,
    Found(Box<Found>),
    /// The disk must be asked.
    Later,
    OtherVariant,
}

/// An object as the files have it.
pub struct Found {
    pub kept: Kept,
    pub on_disk: OnDisk,
    pub content: FoundBody,
}

pub enum FoundBody {
    Memory(Vec<u8>),
    /// The body begins at the octet `from` of the file.
    File {
        file: OwnedFd,
        from: u64,
        trusted: bool,
    },
}

/// What came of it, beside an answer.
#[derive(Default)]
pub struct Report {
    /// Head files that were good for nothing and are gone.
    pub removed: Vec<Name>,
    /// What the disk refused.
    pub trouble: Option<io::Error>,
    /// A body that was not trusted and is as it was written, with what was known of its file before.
    pub checked: Option<(Name, Facts)>,
}

/// `buffer` is lent for the reading.
pub fn lookup(
    question: &Question<'_>,
    access: Access,
    buffer: &mut Vec<u8>,
    report: &mut Report,
) -> Looked {
    for _ in 0..TRIES {
        match lookup_once(question, access, buffer, report) {
            // Replaced in the meantime, or half removed: one more look tells.
            Err(Broken(name)) if access == Access::Blocking => report.last_broken(name, question),
            Err(Broken(_)) => return Looked::Later,
            Ok(looked) => return looked,
        }
    }
    Looked::Absent
}

/// The head of that name has lost its body.
struct Broken(Name);

fn lookup_once(
    question: &Question<'_>,
    access: Access,
    buffer: &mut Vec<u8>,
    report: &mut Report,
) -> Result<Looked, Broken> {
    let read = match read_head(question, &question.name, access, buffer, report) {
        Ok(read) => read,
        Err(looked) => return Ok(looked),
    };
    match read.head.content {
        Content::List(ref list) => {
            let list = list.clone();
            variant(question, &list, access, buffer, report)
        }
        Content::Object(ref kept) if kept.stored.matches(question.request).is_some() => {
            open(question, question.name, read, access, report)
        }
        Content::Object(_) => Ok(Looked::OtherVariant),
    }
}

/// The most recent of the variants that the request selects: those under its own fields, or else one in the language
/// that it likes best.
fn variant(
    question: &Question<'_>,
    list: &List,
    access: Access,
    buffer: &mut Vec<u8>,
    report: &mut Report,
) -> Result<Looked, Broken> {
    let mut selected = Vec::new();
    let own = list.names.iter().map(|names| {
        let selection = Selection::by(names.iter().map(|name| &**name), question.request);
        selected.clear();
        selection.write(&mut selected);
        question.name.variant(&selected)
    });
    let own: Vec<Name> = own.collect();
    let others = list.variants.iter().map(|variant| Name {
        variant: *variant,
        ..question.name
    });
    let others: Vec<Name> = match speaks_of_language(list, question.request) {
        true => others.collect(),
        false => Vec::new(),
    };
    for (names, wanted) in [(own, Match::Same), (others, Match::Language)] {
        let mut best: Option<(i64, Name)> = None;
        for name in names {
            match read_head(question, &name, access, buffer, report) {
                Err(Looked::Later) => return Ok(Looked::Later),
                Err(_) => {}
                Ok(read) => {
                    if let Content::Object(kept) = &read.head.content
                        && kept.list == Some(list.number)
                        && kept.stored.matches(question.request) == Some(wanted)
                        && best.is_none_or(|(time, _)| time <= kept.stored.times.response)
                    {
                        best = Some((kept.stored.times.response, name));
                    }
                }
            }
        }
        let Some((_, name)) = best else { continue };
        return match read_head(question, &name, access, buffer, report) {
            Ok(read) => open(question, name, read, access, report),
            Err(looked) => Ok(looked),
        };
    }
    Ok(Looked::OtherVariant)
}

fn speaks_of_language(list: &List, request: &Headers) -> bool {
    let mut names = list.names.iter().flatten();
    names.any(|name| &**name == "accept-language") && request.contains("accept-language")
}

/// All that is kept under the key, the newest first. May wait for the disk.
pub fn variants(question: &Question<'_>, buffer: &mut Vec<u8>, report: &mut Report) -> Vec<Found> {
    let access = Access::Blocking;
    let Ok(read) = read_head(question, &question.name, access, buffer, report) else {
        return Vec::new();
    };
    let (number, names) = match &read.head.content {
        Content::List(list) => {
            let variants = list.variants.iter().rev();
            let names = variants.map(|variant| Name {
                variant: *variant,
                ..question.name
            });
            (Some(list.number), names.collect())
        }
        Content::Object(_) => (None, vec![question.name]),
    };
    let mut found = Vec::new();
    for name in names {
        let Ok(read) = read_head(question, &name, access, buffer, report) else {
            continue;
        };
        let belongs = matches!(&read.head.content, Content::Object(kept) if kept.list == number);
        if belongs && let Ok(Looked::Found(one)) = open(question, name, read, access, report) {
            found.push(*one);
        }
    }
    found
}

/// A head that belongs to the key and is not of a past generation.
fn read_head<'b>(
    question: &Question<'_>,
    name: &Name,
    access: Access,
    buffer: &'b mut Vec<u8>,
    report: &mut Report,
) -> Result<Read<'b>, Looked> {
    match read::head(question.place, name, access, buffer) {
        Ok(read) if !purged::counts(read.head.generation, question.generation) => {
            Err(Looked::Absent)
        }
        Ok(read) if read.head.key != question.key => Err(Looked::Absent),
        Ok(read) => as_purged(read, &question.purges),
        Err(ReadError::Later) => Err(Looked::Later),
        Err(ReadError::Absent) => Err(Looked::Absent),
        // Only who may wait may remove.
        Err(error) if error.is_worthless() && access == Access::Cached => Err(Looked::Later),
        Err(error) if error.is_worthless() => {
            report.remove(question.place, name, &error);
            Err(Looked::Absent)
        }
        Err(ReadError::Io(error)) => {
            report.trouble = Some(error);
            Err(Looked::Absent)
        }
        Err(_) => Err(Looked::Absent),
    }
}

/// The same as purges have left it.
fn as_purged<'b>(mut read: Read<'b>, purges: &Purges) -> Result<Read<'b>, Looked> {
    match Fate::of(&read.head, purges) {
        Fate::Stays => {}
        Fate::Gone(_) => return Err(Looked::Absent),
        Fate::Stale(since, _) => {
            if let Content::Object(kept) = &mut read.head.content {
                kept.stored.purged = Some(since);
            }
        }
    }
    Ok(read)
}

fn open(
    question: &Question<'_>,
    name: Name,
    read: Read<'_>,
    access: Access,
    report: &mut Report,
) -> Result<Looked, Broken> {
    let Content::Object(kept) = read.head.content else {
        return Ok(Looked::Absent);
    };
    let content = match &kept.body {
        Body::Inline if kept.stored.body_len <= question.in_memory => {
            FoundBody::Memory(read.inline.to_vec())
        }
        Body::Inline => FoundBody::File {
            file: read.file,
            from: read.length as u64,
            trusted: true,
        },
        Body::File(file) => match read::body(question.place, &name, &kept, file, access) {
            Ok((file, trusted)) => {
                if !trusted && access == Access::Cached {
                    return Ok(Looked::Later);
                }
                match check(&file, &kept, trusted) {
                    Ok((trusted, facts)) => {
                        report.checked = facts.map(|facts| (name, facts)).or(report.checked.take());
                        FoundBody::File {
                            file,
                            from: 0,
                            trusted,
                        }
                    }
                    Err(error) => return Ok(report.unreadable(question.place, &name, error)),
                }
            }
            Err(ReadError::Later) => return Ok(Looked::Later),
            Err(ReadError::Absent) => return Err(Broken(name)),
            Err(_) if access == Access::Cached => return Ok(Looked::Later),
            Err(error) => return Ok(report.unreadable(question.place, &name, error)),
        },
    };
    let on_disk = OnDisk::new(name, kept.list);
    Ok(Looked::Found(Box::new(Found {
        kept: *kept,
        on_disk,
        content,
    })))
}

/// Reads what is not trusted, if it is not too much. Whether it may be sent unseen now, and what was known of the file
/// when it was read for that.
fn check(file: &OwnedFd, kept: &Kept, trusted: bool) -> Result<(bool, Option<Facts>), ReadError> {
    if trusted {
        return Ok((true, None));
    }
    if kept.stored.body_len > CHECKED_AT_ONCE {
        return Ok((false, None));
    }
    // A change while it is read would go unnoticed otherwise.
    let before = files::facts(file.as_fd())?;
    read::verify(file.as_fd(), kept, &mut Vec::with_capacity(BLOCK))?;
    match files::facts(file.as_fd())? {
        now if now == before => Ok((true, Some(before))),
        _ => Err(ReadError::Damaged("it changes")),
    }
}

impl Report {
    fn remove(&mut self, place: &Place, name: &Name, why: &ReadError) {
        log::warn!("{name} in {}: {why}; removed", place.path().display());
        match write::remove(place, name) {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => self.trouble = Some(error),
        }
    }

    fn unreadable(&mut self, place: &Place, name: &Name, error: ReadError) -> Looked {
        match error {
            ReadError::Io(error) => self.trouble = Some(error),
            error => self.remove(place, name, &error),
        }
        Looked::Absent
    }

    fn last_broken(&mut self, name: Name, question: &Question<'_>) {
        // Still the same head without its body: it is of no use. One that has come since is left alone by chance only,
        // and then fetched again.
        let mut buffer = Vec::new();
        let read = read::head(question.place, &name, Access::Blocking, &mut buffer);
        let Ok(Read { head, .. }) = read else { return };
        if let Content::Object(kept) = &head.content
            && let Body::File(file) = &kept.body
            && let Err(ReadError::Absent) =
                read::body(question.place, &name, kept, file, Access::Blocking)
        {
            let why = ReadError::Damaged("its body is missing");
            self.remove(question.place, &name, &why);
        }
    }
}
