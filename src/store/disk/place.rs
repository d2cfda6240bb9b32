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

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::Flock;

use super::purged;
use crate::cache::Name;
use crate::cache::name::{hexadecimal, octets};
use crate::sys::files::{self, Access};

/// Directories for head and body files.
pub const DIRECTORIES: u16 = 4096;
/// What a file takes beside its content, about: its inode and its directory entry.
const BESIDE: u64 = 1024;
const BLOCK: u64 = 4096;
/// How long a turn is waited for by who must have it: longer than a worker may be stuck before it is replaced.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How long by who can do without.
const SOON: Duration = Duration::from_millis(250);

const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag created by baton.\n# See https://bford.info/cachedir/\n";
const TAG_NAME: &[u8] = b"CACHEDIR.TAG";
const LOCK: &[u8] = b"lock";
const GENERATION: &[u8] = b"generation";
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

/// What is called how in a directory of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Head(Name),
    Body(Name, u64),
    /// Nothing of ours.
    Other(Vec<u8>),
}

/// The right to use a directory; it ends with the process.
#[derive(Debug)]
pub struct Lock {
    file: Flock<OwnedFd>,
    inode: u64,
}

/// The right to change which heads are in one of the [`DIRECTORIES`]: whoever else wants to waits until it is given up. It
/// ends with the process.
#[derive(Debug)]
pub struct Turn {
    directory: Option<Flock<OwnedFd>>,
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

    fn furnish(&self) -> io::Result<()> {
        let root = self.root.as_fd();
        files::make_private(root)?;
        if !files::exists(root, TAG_NAME)? {
            self.replace(TAG_NAME, TAG)?;
        }
        let is_new = files::make_directory(root, OBJECTS)?;
        files::make_directory(root, ASIDE)?;
        if is_new && !files::exists(root, GENERATION)? {
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

    // === who uses it

    /// Takes the directory for this process; `who` is what another one that wants it is told.
    pub fn lock(&self, who: &str) -> Result<Lock, PlaceError> {
        let refused = |error| PlaceError::Io {
            path: self.path.clone(),
            error,
        };
        let file = files::open_or_create(self.root.as_fd(), LOCK).map_err(refused)?;
        let inode = files::facts(file.as_fd()).map_err(refused)?.inode;
        match files::try_lock(file).map_err(refused)? {
            Ok(file) => {
                let lock = Lock { file, inode };
                lock.say(who).map_err(refused)?;
                Ok(lock)
            }
            Err(file) => Err(PlaceError::Held {
                path: self.path.clone(),
                who: self.holder(file.as_fd()),
            }),
        }
    }

    /// What whoever holds the lock, or held it last, has said of itself.
    pub fn holder_name(&self) -> Option<String> {
        let file = files::open(self.root.as_fd(), LOCK, Access::Blocking).ok()?;
        Some(self.holder(file.as_fd()))
    }

    fn holder(&self, file: BorrowedFd<'_>) -> String {
        let mut text = Vec::new();
        let _ = files::read(file, &mut text, 1024, 0, Access::Blocking);
        let who = String::from_utf8_lossy(&text).trim().to_owned();
        match who.is_empty() {
            true => "another process".to_owned(),
            false => who,
        }
    }

    /// No instance answers commands here any more.
    pub fn remove_control(&self) -> io::Result<bool> {
        files::remove(self.root.as_fd(), CONTROL.as_bytes())
    }

    /// Whether the lock is still that of this directory: files can be removed.
    pub fn is_locked_by(&self, lock: &Lock) -> bool {
        files::open(self.root.as_fd(), LOCK, Access::Blocking)
            .and_then(|file| files::facts(file.as_fd()))
            .is_ok_and(|facts| facts.inode == lock.inode)
    }

    /// The number that heads must carry. `InvalidData`: nobody knows which it was.
    pub fn generation(&self) -> io::Result<u64> {
        let file = match files::open(self.root.as_fd(), GENERATION, Access::Blocking) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = "the file `generation` is missing";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            opened => opened?,
        };
        let mut text = Vec::new();
        files::read(file.as_fd(), &mut text, 64, 0, Access::Blocking)?;
        let text = String::from_utf8_lossy(&text);
        text.trim().parse().map_err(|_| {
            let message = format!("{:?} in `generation` is no number", text.trim());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }

    /// It only rises: of two that write it at once the one who is late changes nothing.
    pub fn set_generation(&self, generation: u64) -> io::Result<()> {
        let _turn = self.turn_at_top()?;
        match self.generation() {
            Ok(known) if known >= generation => Ok(()),
            _ => self.put_at_top(GENERATION, format!("{generation}\n").as_bytes()),
        }
    }

    /// A file at the top, whole or not at all.
    pub(super) fn replace(&self, name: &[u8], content: &[u8]) -> io::Result<()> {
        let _turn = self.turn_at_top()?;
        self.put_at_top(name, content)
    }

    /// A command, the janitor's loop and the master may want to write the same file at once.
    fn turn_at_top(&self) -> io::Result<Flock<OwnedFd>> {
        let top = files::open_directory(self.root.as_fd(), b".")?;
        files::lock_within(top, PATIENCE)?.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// In one's turn.
    fn put_at_top(&self, name: &[u8], content: &[u8]) -> io::Result<()> {
        let aside = [name, b".new"].concat();
        files::remove(self.root.as_fd(), &aside)?;
        let file = files::create(self.root.as_fd(), &aside)?;
        write_over(file.as_fd(), content)?;
        files::rename(self.root.as_fd(), &aside, self.root.as_fd(), name)
    }

    // === objects

    /// Waits for the turn to remove what must go. `TimedOut`: a process has it and does not move.
    pub fn turn(&self, directory: u16) -> io::Result<Turn> {
        self.turn_within(directory, PATIENCE)?.ok_or_else(|| {
            let message = format!("a process that changes objects/{directory:03x} does not get on");
            io::Error::new(io::ErrorKind::TimedOut, message)
        })
    }

    /// The same to do what may be left undone. None: others have it for too long.
    pub fn turn_soon(&self, directory: u16) -> io::Result<Option<Turn>> {
        self.turn_within(directory, SOON)
    }

    /// A directory that does not exist is no reason to wait: who makes it has a turn of his own afterwards.
    fn turn_within(&self, directory: u16, patience: Duration) -> io::Result<Option<Turn>> {
        match self.directory(directory) {
            Ok(directory) => Turn::of(directory, patience),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Some(Turn { directory: None }))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the turn to put something there, too. None: others have it for too long.
    pub fn turn_to_put(&self, directory: u16) -> io::Result<Option<Turn>> {
        Turn::of(self.open_or_make(directory)?, SOON)
    }

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

impl Turn {
    fn of(directory: OwnedFd, patience: Duration) -> io::Result<Option<Turn>> {
        let directory = files::lock_within(directory, patience)?;
        Ok(directory.map(|directory| Turn {
            directory: Some(directory),
        }))
    }
}

impl Lock {
    /// What another one that wants the directory is told.
    pub fn say(&self, who: &str) -> io::Result<()> {
        write_over(self.file.as_fd(), who.as_bytes())
    }
}

/// Whoever reads meanwhile finds some of it.
fn write_over(file: BorrowedFd<'_>, content: &[u8]) -> io::Result<()> {
    write_at(file, content, 0)?;
    let length = i64::try_from(content.len()).map_err(io::Error::other)?;
    Ok(nix::unistd::ftruncate(file, length)?)
}

/// Writes both into a new file, the one behind the other.
pub fn write_both(file: BorrowedFd<'_>, first: &[u8], second: &[u8]) -> io::Result<()> {
    let parts = [first, second].map(io::IoSlice::new);
    let written = nix::sys::uio::pwritev(file, &parts, 0)?;
    match written.checked_sub(first.len()) {
        Some(of_second) => write_at(
            file,
            second.get(of_second..).unwrap_or_default(),
            written as u64,
        ),
        None => {
            write_at(
                file,
                first.get(written..).unwrap_or_default(),
                written as u64,
            )?;
            write_at(file, second, first.len() as u64)
        }
    }
}

/// Writes all of `content` at that offset.
pub fn write_at(file: BorrowedFd<'_>, mut content: &[u8], mut offset: u64) -> io::Result<()> {
    while !content.is_empty() {
        let at = i64::try_from(offset).map_err(io::Error::other)?;
        match nix::sys::uio::pwrite(file, content, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                content = content.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

// === names

/// `objects/abc`
fn directory_path(directory: u16) -> [u8; 11] {
    let mut path = *b"objects/000";
    for (place, digit) in [(8, 8), (9, 4), (10, 0)] {
        path[place] = b"0123456789abcdef"[usize::from(directory >> digit & 15)];
    }
    path
}

/// `NAME` or `NAME.RANDOM`
fn file_name(name: &Name, random: Option<u64>) -> Vec<u8> {
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

fn path_of(name: &Name, random: Option<u64>) -> Vec<u8> {
    let directory = directory_path(name.directory());
    [&directory[..], b"/", &file_name(name, random)].concat()
}

impl Found {
    fn read(file: Vec<u8>) -> Found {
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
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn prepared() -> (tempfile::TempDir, Place) {
        let temporary = tempfile::tempdir().unwrap();
        let place = Place::prepare(&temporary.path().join("deep/cache")).unwrap();
        (temporary, place)
    }

    fn put(place: &Place, name: &Name, random: Option<u64>, content: &[u8]) {
        let file = place.create_aside("1-2-3").unwrap();
        write_at(file.as_fd(), content, 0).unwrap();
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
    fn one_at_a_time_and_the_other_is_told_who() {
        let (_temporary, place) = prepared();
        let lock = place.lock("pid 7, since Tuesday").unwrap();
        let again = Place::prepare(place.path()).unwrap();
        let refused = again.lock("pid 8").unwrap_err().to_string();
        assert!(refused.contains("pid 7, since Tuesday"), "{refused}");
        assert!(place.is_locked_by(&lock) && place.is_there());
        std::fs::remove_file(place.path().join("lock")).unwrap();
        assert!(!place.is_locked_by(&lock));
        drop(lock);
        std::fs::remove_dir_all(place.path()).unwrap();
        assert!(!place.is_there());
        let again = Place::prepare(place.path()).unwrap();
        assert!(again.lock("pid 9").is_ok() && !place.is_there());
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
    fn generations_are_counted_on_the_disk() {
        let (_temporary, place) = prepared();
        assert_eq!(place.generation().unwrap(), purged::FIRST);
        place.set_generation(purged::FIRST + 12).unwrap();
        place.set_generation(purged::FIRST + 11).unwrap();
        assert_eq!(place.generation().unwrap(), purged::FIRST + 12);
        std::fs::write(place.path().join("generation"), "soon").unwrap();
        assert!(place.generation().unwrap_err().to_string().contains("soon"));
    }

    #[test]
    fn several_who_count_at_once_do_not_get_in_each_others_way() {
        let (_temporary, place) = prepared();
        std::thread::scope(|scope| {
            for first in 1..5 {
                let own = Place::open(place.path()).unwrap();
                scope.spawn(move || {
                    for n in 0..100 {
                        own.set_generation(purged::FIRST + 4 * n + first).unwrap();
                    }
                });
            }
        });
        assert_eq!(place.generation().unwrap(), purged::FIRST + 400);
    }

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
    fn space_is_counted_in_blocks() {
        assert_eq!(
            [cost(0), cost(1), cost(4096), cost(4097)],
            [1024, 5120, 5120, 9216]
        );
    }
}
