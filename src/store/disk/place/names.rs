//! What files and directories of objects are called.

use crate::cache::Name;
use crate::cache::name::{hexadecimal, octets};

/// What is called how in a directory of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Head(Name),
    Body(Name, u64),
    /// Nothing of ours.
    Other(Vec<u8>),
}

/// `objects/abc`
pub(super) fn directory_path(directory: u16) -> [u8; 11] {
    let mut path = *b"objects/000";
    for (place, digit) in [(8, 8), (9, 4), (10, 0)] {
        path[place] = b"0123456789abcdef"[usize::from(directory >> digit & 15)];
    }
    path
}

/// `NAME` or `NAME.RANDOM`
pub(super) fn file_name(name: &Name, random: Option<u64>) -> Vec<u8> {
    let mut text = Vec::with_capacity(96);
    name.write(&mut text);
    if let Some(random) = random {
        text.push(b'.');
        hexadecimal(&random.to_be_bytes(), &mut text);
    }
    text
}

/// Where a head or (`random`) the body of one is, below the directory.
pub fn path(name: &Name, random: Option<u64>) -> String {
    String::from_utf8_lossy(&path_of(name, random)).into_owned()
}

pub(super) fn path_of(name: &Name, random: Option<u64>) -> Vec<u8> {
    let directory = directory_path(name.directory());
    [&directory[..], b"/", &file_name(name, random)].concat()
}

impl Found {
    pub(super) fn read(file: Vec<u8>) -> Found {
        let found = match memchr::memchr(b'.', &file) {
            None => Name::parse(&file).map(Found::Head),
            Some(dot) => Name::parse(file.get(..dot).unwrap_or_default())
                .zip(octets(file.get(dot + 1..).unwrap_or_default()))
                .map(|(name, random)| Found::Body(name, u64::from_be_bytes(random))),
        };
        found.unwrap_or(Found::Other(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::place::OBJECTS;

    #[test]
    fn other_files_are_told_apart() {
        let name = Name::of(b"x").variant(b"y");
        for (file, expected) in [
            (file_name(&name, None), Found::Head(name)),
            (
                file_name(&name, Some(u64::MAX)),
                Found::Body(name, u64::MAX),
            ),
            (b"README".to_vec(), Found::Other(b"README".to_vec())),
            (b".".to_vec(), Found::Other(b".".to_vec())),
        ] {
            assert_eq!(Found::read(file), expected);
        }
    }

    #[test]
    fn directories_are_where_all_objects_are() {
        assert_eq!(directory_path(0xabc), *b"objects/abc");
        assert!(directory_path(0).starts_with(OBJECTS));
    }
}
