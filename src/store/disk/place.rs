//! The cache directory: what in it is called how, who may use it, and the few things that are ever done to a file.
//!
//! ```text
//! CACHEDIR.TAG       tells backups that nothing here is worth keeping
//! lock               held by the master of the instance that uses the directory; says who that is
//! generation         a number by which purges are told from what came later: see `purged`
//! purges             purges of many responses whose files have not all been looked at
//! catalogue.sqlite   the janitor's
//! control            the janitor's socket
//! objects/abc/NAME           head files, by `cache::Name`, in directories by its first three digits
//! objects/abc/NAME.RANDOM    bodies in files of their own
//! aside/             files that are being written
//! ```
//!
//! Files are for their owner alone; nothing is followed that leads outside, and nothing is created there. Every
//! change is a file written aside and renamed. It decides nothing and keeps no accounts; it may wait for the
//! disk except where [`Access::Cached`] says otherwise.

mod lock;
mod names;
mod top;
mod turn;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::purged;
use crate::cache::Name;
use crate::sys::files::{self, Access};
pub use lock::Lock;
pub use names::{Found, path};
use names::{directory_path, file_name, path_of};
pub use turn::Turn;

/// Directories for head and body files.
pub const DIRECTORIES: u16 = 4096;
/// What a file takes beside its content, about: its inode and its directory entry.
const BESIDE: u64 = 1024;
const BLOCK: u64 = 4096;
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag created by baton.\n# See https://bford.info/cachedir/\n";
const TAG_NAME: &[u8] = b"CACHEDIR.TAG";
pub const CATALOGUE: &str = "catalogue.sqlite";
pub const CONTROL: &str = "control";
const OBJECTS: &[u8] = b"objects";
const ASIDE: &[u8] = b"aside";

/// Octets on the disk of a file with so many octets of content, about.
pub fn cost(length: u64) -> u64 {
    length.div_ceil(BLOCK) * BLOCK + BESIDE
}

/// An open cache directory.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    root: OwnedFd,
    /// `aside`, opened when it is first used.
    aside: OnceLock<OwnedFd>,
    inode: u64,
}

/// Why a directory cannot be a cache.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("the cache directory {} cannot be used: {error}; --cache dir:PATH names another", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} belongs to user {owner}, and not to the user of this process ({own}); --cache dir:PATH names another directory", path.display())]
    Owner { path: PathBuf, owner: u32, own: u32 },
    #[error("{} is not empty and no cache of baton's; --cache dir:PATH must name a new or an empty directory", path.display())]
    Foreign { path: PathBuf },
    #[error("the file system of the cache directory {} cannot lock directories: {error}; --cache dir:PATH must name one on a local file system", path.display())]
    Locks { path: PathBuf, error: io::Error },
    #[error("the cache directory {} is in use by {who}; stop that one, or name another directory with --cache dir:PATH", path.display())]
    Held { path: PathBuf, who: String },
}

// === impl Place

impl Place {
    /// Opens the directory, made if it is not there, for its only user. Errors name it and the remedy.
    pub fn prepare(path: &Path) -> Result<Place, PlaceError> {
        let refused = |error| PlaceError::Io {
            path: path.to_owned(),
            error,
        };
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(path).map_err(refused)?;
        let place = Place::open(path).map_err(refused)?;
        place.check()?;
        place.check_locks()?;
        place.furnish().map_err(refused)?;
        Ok(place)
    }

    /// Opens a directory that has been prepared.
    pub fn open(path: &Path) -> io::Result<Place> {
        let root = files::open_root(path)?;
        let inode = files::facts(root.as_fd())?.inode;
        Ok(Place {
            path: path.to_owned(),
            root,
            aside: OnceLock::new(),
            inode,
        })
    }

    fn check(&self) -> Result<(), PlaceError> {
        let path = || self.path.clone();
        let refused = |error| PlaceError::Io {
            path: path(),
            error,
        };
        let owner = files::facts(self.root.as_fd()).map_err(refused)?.owner;
        let own = nix::unistd::geteuid().as_raw();
        if owner != own {
            return Err(PlaceError::Owner {
                path: path(),
                owner,
                own,
            });
        }
        let names = files::names(self.root.as_fd()).map_err(refused)?;
        // What a file system puts into a new volume.
        let is_foreign = |name: &Vec<u8>| name != b"lost+found";
        let is_ours = names.iter().any(|name| name == TAG_NAME);
        if !is_ours && names.iter().any(is_foreign) {
            return Err(PlaceError::Foreign { path: path() });
        }
        Ok(())
    }

    /// Whoever changes what is in a directory locks it (`turn`), which NFS does not allow.
    fn check_locks(&self) -> Result<(), PlaceError> {
        // Held by another one: then it can be locked.
        files::open_directory(self.root.as_fd(), b".")
            .and_then(files::try_lock)
            .map(drop)
            .map_err(|error| PlaceError::of_a_lock(&self.path, error))
    }

    fn furnish(&self) -> io::Result<()> {
        let root = self.root.as_fd();
        files::make_private(root)?;
        if !files::exists(root, TAG_NAME)? {
            self.replace(TAG_NAME, TAG)?;
        }
        let is_new = files::make_directory(root, OBJECTS)?;
        files::make_directory(root, ASIDE)?;
        if is_new && !self.has_generation()? {
            self.set_generation(purged::FIRST)?;
        }
        Ok(())
    }

    /// Whether nobody has kept anything in it yet.
    pub fn is_new(&self) -> bool {
        !files::exists(self.root.as_fd(), CATALOGUE.as_bytes()).unwrap_or(true)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no object was ever put into it.
    pub fn is_empty(&self) -> io::Result<bool> {
        let objects = files::open_directory(self.root.as_fd(), OBJECTS)?;
        Ok(files::names(objects.as_fd())?.is_empty())
    }

    /// Whether it was made to be a cache.
    pub fn is_cache(&self) -> io::Result<bool> {
        files::exists(self.root.as_fd(), TAG_NAME)
    }

    /// Whether its path still names it.
    pub fn is_there(&self) -> bool {
        Place::open(&self.path).is_ok_and(|now| now.inode == self.inode)
            && files::exists(self.root.as_fd(), OBJECTS).unwrap_or(false)
            && files::exists(self.root.as_fd(), ASIDE).unwrap_or(false)
    }

    /// Octets free on the file system, and its size.
    pub fn free_space(&self) -> io::Result<(u64, u64)> {
        files::free_space(self.root.as_fd())
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    // === objects

    pub fn open_head(&self, name: &Name, access: Access) -> io::Result<OwnedFd> {
        files::open(self.root.as_fd(), &path_of(name, None), access)
    }

    pub fn open_body(&self, name: &Name, random: u64, access: Access) -> io::Result<OwnedFd> {
        files::open(self.root.as_fd(), &path_of(name, Some(random)), access)
    }

    /// A new file under that name in `aside`.
    pub fn create_aside(&self, name: &str) -> io::Result<OwnedFd> {
        files::create(self.open_aside()?, name.as_bytes())
    }

    pub fn remove_aside(&self, name: &[u8]) -> io::Result<bool> {
        files::remove(self.open_aside()?, name)
    }

    /// What is being written, or was when somebody died.
    pub fn aside(&self) -> io::Result<Vec<Vec<u8>>> {
        files::names(files::open_directory(self.root.as_fd(), ASIDE)?.as_fd())
    }

    fn open_aside(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(aside) = self.aside.get() {
            return Ok(aside.as_fd());
        }
        let aside = files::open_directory(self.root.as_fd(), ASIDE)?;
        Ok(self.aside.get_or_init(|| aside).as_fd())
    }

    /// Moves a file from `aside` to where it is found: a head, or (`random`) the body of one.
    pub fn publish(
        &self,
        turn: &Turn,
        aside: &str,
        name: &Name,
        random: Option<u64>,
    ) -> io::Result<()> {
        let from = self.open_aside()?;
        let Some(directory) = &turn.directory else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let new = file_name(name, random);
        files::rename(from, aside.as_bytes(), directory.as_fd(), &new)
    }

    /// When the head of that name was put in its place (seconds since 1970); none: there is none.
    pub fn put_at(&self, turn: &Turn, name: &Name) -> io::Result<Option<i64>> {
        let Some(directory) = &turn.directory else {
            return Ok(None);
        };
        match files::facts_of(directory.as_fd(), &file_name(name, None)) {
            Ok(facts) => Ok(Some(facts.changed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a head, or (`random`) the body of one. Whether it was there.
    pub fn remove(&self, name: &Name, random: Option<u64>) -> io::Result<bool> {
        self.remove_named(name.directory(), &file_name(name, random))
    }

    /// Removes a file of a directory of objects by its own name.
    pub fn remove_named(&self, directory: u16, file: &[u8]) -> io::Result<bool> {
        match self.directory(directory) {
            Ok(directory) => files::remove(directory.as_fd(), file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is in one of the [`DIRECTORIES`]; nothing where it does not exist.
    pub fn list(&self, directory: u16) -> io::Result<Vec<Found>> {
        let directory = match self.directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        let names = files::names(directory.as_fd())?;
        Ok(names.into_iter().map(Found::read).collect())
    }

    /// When something was last added to or removed from one of the [`DIRECTORIES`] (seconds since 1970); none: it does
    /// not exist.
    pub fn directory_changed(&self, directory: u16) -> io::Result<Option<i64>> {
        match self.directory(directory) {
            Ok(directory) => Ok(Some(files::facts(directory.as_fd())?.modified.0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn directory(&self, directory: u16) -> io::Result<OwnedFd> {
        files::open_directory(self.root.as_fd(), &directory_path(directory))
    }

    fn open_or_make(&self, directory: u16) -> io::Result<OwnedFd> {
        match self.directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let objects = files::open_directory(self.root.as_fd(), OBJECTS)?;
        let name = directory_path(directory);
        let name = name.get(OBJECTS.len() + 1..).unwrap_or_default();
        files::make_directory(objects.as_fd(), name)?;
        self.directory(directory)
    }
}

impl PlaceError {
    fn of_a_lock(path: &Path, error: io::Error) -> PlaceError {
        let path = path.to_owned();
        match error.raw_os_error() {
            Some(libc::EBADF | libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL) => {
                PlaceError::Locks { path, error }
            }
            _ => PlaceError::Io { path, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    pub(super) fn prepared() -> (tempfile::TempDir, Place) {
        let temporary = tempfile::tempdir().unwrap();
        let place = Place::prepare(&temporary.path().join("deep/cache")).unwrap();
        (temporary, place)
    }

    fn put(place: &Place, name: &Name, random: Option<u64>, content: &[u8]) {
        let file = place.create_aside("1-2-3").unwrap();
        files::write_at(file.as_fd(), content, 0).unwrap();
        let turn = place.turn_to_put(name.directory()).unwrap().unwrap();
        place.publish(&turn, "1-2-3", name, random).unwrap();
    }

    #[test]
    fn what_is_published_is_found_and_what_is_removed_is_not() {
        let (_temporary, place) = prepared();
        let name = Name::of(b"http://a/");
        let variant = name.variant(b"x");
        put(&place, &name, None, b"head");
        put(&place, &name, Some(7), b"body");
        put(&place, &variant, None, b"other");
        let mut found = place.list(name.directory()).unwrap();
        found.sort_by_key(|found| format!("{found:?}"));
        assert_eq!(
            found,
            [
                Found::Body(name, 7),
                Found::Head(name),
                Found::Head(variant)
            ]
        );
        let mut content = Vec::new();
        let head = place.open_head(&name, Access::Cached).unwrap();
        files::read(head.as_fd(), &mut content, 100, 0, Access::Cached).unwrap();
        assert_eq!(content, b"head");
        assert!(place.open_body(&name, 7, Access::Blocking).is_ok());
        assert!(place.open_body(&name, 8, Access::Blocking).is_err());
        assert!(place.remove(&name, None).unwrap() && !place.remove(&name, None).unwrap());
        assert!(place.open_head(&name, Access::Blocking).is_err());
        assert!(place.aside().unwrap().is_empty());
        assert!(!place.is_empty().unwrap());
        let empty = (0..DIRECTORIES).find(|number| *number != name.directory());
        assert_eq!(place.list(empty.unwrap()).unwrap(), []);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::write(temporary.path().join("thesis.tex"), "x").unwrap();
        let refused = Place::prepare(temporary.path()).unwrap_err();
        assert!(refused.to_string().contains("is not empty"), "{refused}");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 1);
        let file = temporary.path().join("thesis.tex");
        assert!(
            Place::prepare(&file)
                .unwrap_err()
                .to_string()
                .contains("thesis.tex")
        );
    }

    #[test]
    fn a_file_system_without_locks_is_named_as_the_reason() {
        let said = |number| {
            let error = io::Error::from_raw_os_error(number);
            PlaceError::of_a_lock(Path::new("/mnt/far"), error).to_string()
        };
        let no_locks = said(libc::EBADF);
        assert!(
            no_locks.contains("/mnt/far cannot lock directories"),
            "{no_locks}"
        );
        assert!(said(libc::EACCES).contains("/mnt/far cannot be used"));
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let (temporary, place) = prepared();
        let name = Name::of(b"http://a/");
        let digits = &name.to_string()[..3];
        let outside = temporary.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, place.path().join("objects").join(digits)).unwrap();
        assert!(place.turn_to_put(name.directory()).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        let mode = std::fs::metadata(place.path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn space_is_counted_in_blocks() {
        assert_eq!(
            [cost(0), cost(1), cost(4096), cost(4097)],
            [1024, 5120, 5120, 9216]
        );
    }
}
