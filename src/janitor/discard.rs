//! Removing an object with everything that belongs to it: the head first, then what it leads to.
//!
//! Whoever reads meanwhile has the files open, and reads on. A worker may put a new object in the place of the one
//! that is removed: then the new head goes, and its body is an orphan that a tour finds.

use std::io;

use crate::cache::Name;
use crate::store::disk::format::{Body, Content};
use crate::store::disk::place::Place;
use crate::store::disk::read::{self, ReadError};
use crate::sys::files::Access;

/// Removes what is under that name: head, body, and the variants of a list. The heads that are gone.
pub(super) fn object(place: &Place, name: &Name) -> io::Result<Vec<Name>> {
    let mut gone = Vec::new();
    let variants = remove_with_body(place, name, &mut gone)?;
    for variant in variants {
        let name = Name { variant, ..*name };
        remove_with_body(place, &name, &mut gone)?;
    }
    Ok(gone)
}

/// Removes a head that has no body beside it and leads to nothing.
pub(super) fn single(place: &Place, name: &Name) -> io::Result<()> {
    place.remove(name, None).map(drop)
}

/// The variants that it leads to.
fn remove_with_body(place: &Place, name: &Name, gone: &mut Vec<Name>) -> io::Result<Vec<[u8; 8]>> {
    let mut buffer = Vec::new();
    let content = match read::head(place, name, Access::Blocking, &mut buffer) {
        Ok(read) => Some(read.head.content),
        Err(ReadError::Io(error)) => return Err(error),
        Err(_) => None,
    };
    place.remove(name, None)?;
    gone.push(*name);
    match content {
        Some(Content::Object(kept)) => {
            if let Body::File(file) = &kept.body {
                place.remove(name, Some(file.random))?;
            }
            Ok(Vec::new())
        }
        Some(Content::List(list)) => Ok(list.variants),
        None => Ok(Vec::new()),
    }
}
