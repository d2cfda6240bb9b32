//! Where an instance without a cache directory takes commands: a directory with one socket an instance, called by the first
//! address that it listens on.
//!
//! ```text
//! 127.0.0.1:3128.sock    somebody listens, or has been killed
//! .NAME.new              about to be renamed to NAME
//! ```
//!
//! A socket is there when it is listened to, so that one that refuses is dead, and goes when the next instance starts.
//! The directory must be of one that may be trusted; no symbolic link leads to it or out of it. The janitor makes
//! sockets; the command line looks for them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat};

use crate::config::{control_directories, standard_control_directory};
use crate::sys::files;

const SUFFIX: &str = ".sock";
/// How long somebody else may hold the directory; nobody has to do for long.
const PATIENCE: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(5);
const OTHERS_WRITE: u32 = 0o022;

/// An open directory, and the name of a socket in it.
#[derive(Debug)]
pub struct Meeting {
    path: PathBuf,
    root: OwnedFd,
    name: String,
    /// A directory for such sockets, and not one where the user wants one.
    is_standard: bool,
}

/// Where an instance listens; whether the file is still this one's shows by the number.
#[derive(Debug)]
pub struct Listening {
    meeting: Meeting,
    inode: u64,
}

/// What an instance that listens there is called.
pub fn name_of(address: std::net::SocketAddr) -> String {
    format!("{address}{SUFFIX}")
}

// === impl Meeting

impl Meeting {
    /// Where an instance is to listen: at `socket`, or by its address in the standard place, which is made.
    ///
    /// Errors: it cannot be made, or others could change what is in it.
    pub fn prepare(socket: Option<&Path>, address: std::net::SocketAddr) -> io::Result<Meeting> {
        if let Some(socket) = socket {
            return Meeting::at(socket);
        }
        let path = standard_control_directory(own());
        let mut builder = std::fs::DirBuilder::new();
        match builder.mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Meeting {
            root: open_trusted(&path, own())?,
            path,
            name: name_of(address),
            is_standard: true,
        })
    }

    /// The socket that the user names.
    pub fn at(socket: &Path) -> io::Result<Meeting> {
        let name = socket.file_name().and_then(|name| name.to_str());
        let name = name.ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let path = match socket.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Meeting {
            path: path.to_owned(),
            root: files::open_root(path)?,
            name,
            is_standard: false,
        })
    }

    /// All sockets in the standard places, of instances that run or did.
    pub fn all() -> Vec<Meeting> {
        let mut all = Vec::new();
        for path in control_directories(own()) {
            let opened = open_trusted(&path, own());
            let Ok((root, names)) = opened.and_then(|root| {
                let names = sockets(&root)?;
                Ok((root, names))
            }) else {
                continue;
            };
            for name in names {
                // The same directory may be named by more than one variable.
                let Ok(root) = root.try_clone() else { continue };
                all.push(Meeting {
                    path: path.clone(),
                    root,
                    name,
                    is_standard: true,
                });
            }
        }
        all
    }

    /// How the user names it: an address, or a path.
    pub fn called(&self) -> String {
        match self.name.strip_suffix(SUFFIX) {
            Some(address) if self.is_standard => address.to_owned(),
            _ => self.path.join(&self.name).display().to_string(),
        }
    }

    pub fn is_called(&self, name: &str) -> bool {
        self.name == name
    }

    pub fn path(&self) -> PathBuf {
        self.path.join(&self.name)
    }

    /// None: nobody listens there.
    pub fn connect(&self) -> io::Result<Option<UnixStream>> {
        self.connect_to(&self.name)
    }

    fn connect_to(&self, name: &str) -> io::Result<Option<UnixStream>> {
        match UnixStream::connect(self.address(name)) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Listens there, for the own user alone, in place of what a dead instance has left.
    pub fn listen(self) -> io::Result<(UnixListener, Listening)> {
        let lock = self.lock();
        let root = self.root.as_fd();
        let new = format!(".{}.new", self.name);
        files::remove(root, new.as_bytes())?;
        let listener = UnixListener::bind(self.address(&new))?;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        fchmodat(root, new.as_str(), mode, FchmodatFlags::FollowSymlink)?;
        let inode = std::fs::symlink_metadata(self.address(&new))?.ino();
        files::rename(root, new.as_bytes(), root, self.name.as_bytes())?;
        if self.is_standard && lock.is_some() {
            self.sweep();
        }
        drop(lock);
        let meeting = self;
        Ok((listener, Listening { meeting, inode }))
    }

    /// Removes what instances have left that were killed.
    fn sweep(&self) {
        for name in sockets(&self.root).unwrap_or_default() {
            if name != self.name && matches!(self.connect_to(&name), Ok(None)) {
                let _ = files::remove(self.root.as_fd(), name.as_bytes());
            }
        }
    }

    /// While it is held, no socket is put in its place or removed. None: somebody does not let go, and is not waited for.
    fn lock(&self) -> Option<Flock<OwnedFd>> {
        let until = Instant::now() + PATIENCE;
        loop {
            // A lock belongs to an open file: what has been opened for this may not be shared.
            let own = files::open_root(&self.path).ok()?;
            match files::try_lock(own).ok()? {
                Ok(lock) => return Some(lock),
                Err(_) if Instant::now() >= until => return None,
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    /// By way of the open directory: its own path may be longer than a socket's address can be.
    fn address(&self, name: &str) -> PathBuf {
        let root = self.root.as_fd().as_raw_fd();
        PathBuf::from(format!("/proc/self/fd/{root}/{name}"))
    }
}

impl Listening {
    pub fn path(&self) -> PathBuf {
        self.meeting.path()
    }

    /// Whether a command would find it: what is in a temporary directory may be cleaned up.
    pub fn is_there(&self) -> bool {
        let address = self.meeting.address(&self.meeting.name);
        self.meeting.path.exists() && std::fs::symlink_metadata(address).is_ok()
    }

    /// The end. What another instance has put in its place stays.
    pub fn leave(self) {
        let Listening { meeting, inode } = self;
        let _lock = meeting.lock();
        let address = meeting.address(&meeting.name);
        if std::fs::symlink_metadata(address).is_ok_and(|it| it.ino() == inode) {
            let _ = files::remove(meeting.root.as_fd(), meeting.name.as_bytes());
        }
    }
}

fn own() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn sockets(root: &OwnedFd) -> io::Result<Vec<String>> {
    let names = files::names(root.as_fd())?.into_iter();
    let names = names.filter_map(|name| String::from_utf8(name).ok());
    let mut names: Vec<String> = names
        .filter(|name| name.ends_with(SUFFIX) && !name.starts_with('.'))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// In a place where everybody may make directories, one that another user has made would be a trap.
fn open_trusted(path: &Path, own: u32) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let root = nix::fcntl::open(path, flags, Mode::empty())?;
    let found = fstat(&root)?;
    // Root may use that of a service's own user, in a directory where only root makes any.
    let is_trusted = found.st_uid == own || (own == 0 && !path.starts_with("/tmp"));
    match is_trusted && found.st_mode & OTHERS_WRITE == 0 {
        true => Ok(root),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} may be changed by others", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn meeting(temporary: &tempfile::TempDir, name: &str) -> Meeting {
        let mut meeting = Meeting::at(&temporary.path().join(name)).unwrap();
        meeting.is_standard = true;
        meeting
    }

    #[test]
    fn the_dead_are_replaced_and_swept_and_the_living_stay() {
        let temporary = tempfile::tempdir().unwrap();
        let start = |name: &str| meeting(&temporary, name).listen().unwrap();
        let (_living, _) = start("127.0.0.1:1.sock");
        drop(start("127.0.0.1:2.sock"));
        drop(start("127.0.0.1:3.sock"));
        std::fs::write(temporary.path().join("other"), "").unwrap();
        let (_own, listening) = start("127.0.0.1:3.sock");
        let names = || {
            let mut names = files::names(listening.meeting.root.as_fd()).unwrap();
            names.sort_unstable();
            names
        };
        let left: [&[u8]; 3] = [b"127.0.0.1:1.sock", b"127.0.0.1:3.sock", b"other"];
        assert_eq!(names(), left);
        let path = temporary.path().join("127.0.0.1:3.sock");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(listening.is_there());
        assert!(
            meeting(&temporary, "127.0.0.1:3.sock")
                .connect()
                .unwrap()
                .is_some()
        );
        // Another one in its place is not taken along.
        let (_other, other) = start("127.0.0.1:3.sock");
        let inode = listening.inode;
        Listening {
            meeting: listening.meeting,
            inode,
        }
        .leave();
        assert!(path.exists());
        other.leave();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_others_may_change_is_not_used() {
        let temporary = tempfile::tempdir().unwrap();
        assert!(open_trusted(temporary.path(), own()).is_ok());
        assert!(open_trusted(temporary.path(), 12345).is_err());
        let link = temporary.path().join("link");
        std::os::unix::fs::symlink(temporary.path(), &link).unwrap();
        assert!(open_trusted(&link, own()).is_err());
        let open = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(temporary.path(), open).unwrap();
        assert!(open_trusted(temporary.path(), own()).is_err());
    }
}
