//! Removes an object that was chosen to go, unless another one has come into its place meanwhile.
//!
//! What was chosen is what the books know. A worker may have put a newer one in its place since, of which its journal has not
//! told yet: that one was asked for just now, and stays.

use std::io;

use super::ledger::Entry;
use crate::cache::Name;
use crate::store::disk::format::INLINE;
use crate::store::disk::place::{Place, Turn};
use crate::store::disk::write;

/// An object that takes less has no body in a file of its own.
const SINGLE_KIB: u32 = (INLINE / 1024) as u32;
/// What was put in its place so long ago (seconds) the books have heard of, or never will.
const TOLD: i64 = 10;

/// Head files that are gone. None: there is a newer one, or others change the directory for too long. `now`: seconds since
/// 1970.
pub(super) fn remove(place: &Place, entry: &Entry, now: i64) -> io::Result<Option<Vec<Name>>> {
    let name = entry.name;
    let Some(turn) = place.turn_soon(name.directory())? else {
        return Ok(None);
    };
    if is_newer(place, &turn, entry, now)? {
        return Ok(None);
    }
    if entry.kib < SINGLE_KIB && !entry.is_list() {
        place.remove(&name, None)?;
        return Ok(Some(vec![name]));
    }
    let mut gone = write::remove_in(&turn, place, &name)?;
    // It may have been gone before.
    if !gone.contains(&name) {
        gone.push(name);
    }
    Ok(Some(gone))
}

/// Whoever enters an object in the books enters the moment, which is behind that of the file.
fn is_newer(place: &Place, turn: &Turn, entry: &Entry, now: i64) -> io::Result<bool> {
    let put_at = place.put_at(turn, &entry.name)?;
    Ok(put_at.is_some_and(|at| at > entry.used.unix() && (now - at).abs() <= TOLD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::janitor::ledger::Moment;
    use crate::shared::Kind;
    use crate::store::contract::stored;
    use crate::store::disk::place::Found;
    use crate::store::disk::purged;
    use crate::store::disk::write::{New, NewBody, Spill};
    use crate::sys::clock::unix_seconds;
    use std::sync::Arc;

    const KEY: &[u8] = b"http://a/";

    /// The octets that it takes, in KiB.
    fn put(place: &Arc<Place>, length: usize) -> u32 {
        let body = vec![b'x'; length];
        let body = match length <= INLINE {
            true => NewBody::Inline(body),
            false => {
                let mut spill = Spill::create(place.clone(), "0-1-1".to_owned()).unwrap();
                spill.write(&body).unwrap();
                NewBody::File(spill)
            }
        };
        let new = New {
            key: KEY.to_vec(),
            generation: purged::FIRST,
            stored: stored(&[], &[]),
            body,
            aside: "0-1-2".to_owned(),
            replaces: true,
            seen: None,
        };
        let done = write::put(place, new).unwrap().unwrap();
        u32::try_from(done.written[0].octets / 1024).unwrap()
    }

    #[test]
    fn what_has_come_since_it_was_chosen_stays() {
        for (old, new) in [(10, 20), (10, 400_000), (400_000, 10), (400_000, 500_000)] {
            let temporary = tempfile::tempdir().unwrap();
            let place = Arc::new(Place::prepare(&temporary.path().join("cache")).unwrap());
            let (name, now) = (Name::of(KEY), unix_seconds());
            let files = || place.list(name.directory()).unwrap();
            let known = |kib, used| Entry::new(name, Kind::Object, kib, Moment::of_unix(used), 1);
            let before = known(put(&place, old), now - 100);
            let kib = put(&place, new);
            let there = files();
            assert!(there.contains(&Found::Head(name)));
            assert_eq!(remove(&place, &before, now).unwrap(), None);
            assert_eq!(files(), there);
            // It has been told of, or never will be.
            let (told, late) = (known(kib, now + 1), now + 2 * TOLD);
            let (entry, now) = if old < new {
                (told, now)
            } else {
                (before, late)
            };
            assert!(remove(&place, &entry, now).unwrap().is_some());
            assert!(!files().contains(&Found::Head(name)));
            assert_eq!(remove(&place, &entry, now).unwrap().unwrap()[0], name);
        }
    }
}
