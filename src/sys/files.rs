//! Files of the cache: opened beneath a directory and nowhere else, read without ever waiting where that is asked,
//! written, and sent to a socket by the kernel.
//!
//! Whoever serves many connections on one thread must not wait for a disk. [`Access::Cached`] is for it: what is
//! not in memory is `WouldBlock`, and the caller asks again with [`Access::Blocking`] on another thread. No
//! symbolic link is ever followed. The stores and the janitor call it.

#![expect(
    unsafe_code,
    reason = "system calls that no crate wraps: preadv2, cachestat, sendfile without a wait"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{
    AtFlags, Flock, FlockArg, OFlag, OpenHow, PosixFadviseAdvice, ResolveFlag, openat2, renameat,
};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Whether to wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only what memory holds: `WouldBlock` otherwise.
    Cached,
    Blocking,
}

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub size: u64,
    /// Last change of the content: seconds and nanoseconds.
    pub modified: (i64, u32),
    /// Last change of anything, renaming included: seconds.
    pub changed: i64,
    pub inode: u64,
    /// Names that lead to it; 0: it is removed, and takes its space until it is closed.
    pub links: u64,
    pub owner: u32,
    pub is_file: bool,
}

impl Facts {
    fn of(stat: &nix::sys::stat::FileStat) -> Facts {
        Facts {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (
                stat.st_mtime,
                u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            ),
            changed: stat.st_ctime,
            inode: stat.st_ino,
            links: stat.st_nlink,
            owner: stat.st_uid,
            is_file: SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG,
        }
    }
}

/// Linux 5.12: fail with EAGAIN rather than look anything up on the disk.
const RESOLVE_CACHED: ResolveFlag = ResolveFlag::from_bits_retain(0x20);

const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
const DIRECTORY_MODE: Mode = Mode::S_IRWXU;

/// Opens an existing regular file below `directory` for reading.
pub fn open(directory: BorrowedFd<'_>, path: &[u8], access: Access) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    match (access, open_beneath(directory, path, flags, access)) {
        // Somebody else's lease: it ends when its holder lets go, or when the kernel's patience does. (A FIFO, where one
        // could wait for ever, never says this.)
        (Access::Blocking, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            open_beneath(directory, path, OFlag::O_RDONLY, access)
        }
        (_, opened) => opened,
    }
}

/// Opens an existing directory below `directory`.
pub fn open_directory(directory: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    open_beneath(directory, path, flags, Access::Blocking)
}

/// Opens the directory at `path`, symbolic links allowed: the user names it.
pub fn open_root(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// Creates a file that must not exist, for writing (and reading), for its owner alone.
pub fn create(directory: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
    open_with(directory, path, flags, FILE_MODE, ResolveFlag::empty())
}

/// Opens a file for writing, made if it is not there, for its owner alone.
pub fn open_or_create(directory: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT;
    open_with(directory, path, flags, FILE_MODE, ResolveFlag::empty())
}

fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlag,
    access: Access,
) -> io::Result<OwnedFd> {
    let resolve = match access {
        Access::Cached => RESOLVE_CACHED,
        Access::Blocking => ResolveFlag::empty(),
    };
    open_with(directory, path, flags, Mode::empty(), resolve)
}

fn open_with(
    directory: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> io::Result<OwnedFd> {
    let resolve = resolve | ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(mode)
        .resolve(resolve);
    Ok(openat2(directory, path, how)?)
}

/// Makes a directory for its owner alone; one that exists is fine. Whether it was made.
pub fn make_directory(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match mkdirat(directory, name, DIRECTORY_MODE) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes every right to it from all but its owner.
pub fn make_private(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::sys::stat::fchmod(directory, DIRECTORY_MODE)?)
}

/// Whether `name` in `directory` is anything at all, and what; links are not followed.
pub fn exists(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match nix::sys::stat::fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file another name, in place of what has that name. Names hold no slash.
pub fn rename(from: BorrowedFd<'_>, old: &[u8], to: BorrowedFd<'_>, new: &[u8]) -> io::Result<()> {
    Ok(renameat(from, old, to, new)?)
}

/// Removes a file. Whether there was one.
pub fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub fn facts(file: BorrowedFd<'_>) -> io::Result<Facts> {
    Ok(Facts::of(&fstat(file)?))
}

/// The same of whatever has that name, which is not opened for it.
pub fn facts_of(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Facts> {
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(Facts::of(&nix::sys::stat::fstatat(directory, name, flags)?))
}

/// Octets free for us on the file system, and its size.
pub fn free_space(directory: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let found = nix::sys::statvfs::fstatvfs(directory)?;
    let block = found.fragment_size();
    Ok((
        found.blocks_available().saturating_mul(block),
        found.blocks().saturating_mul(block),
    ))
}

/// Takes the lock on a file for as long as what is returned lives; none: another process has it.
pub fn try_lock(file: OwnedFd) -> io::Result<Result<Flock<OwnedFd>, OwnedFd>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, error)) => Err(error.into()),
    }
}

/// Waits for the lock on an open file or directory; it is held for as long as what is returned lives, by this open file
/// alone. None: another one has held it for all of `patience`.
pub fn lock_within(mut file: OwnedFd, patience: Duration) -> io::Result<Option<Flock<OwnedFd>>> {
    let until = Instant::now() + patience;
    let mut pause = Duration::from_micros(50);
    loop {
        file = match try_lock(file)? {
            Ok(lock) => return Ok(Some(lock)),
            Err(_) if Instant::now() >= until => return Ok(None),
            Err(file) => file,
        };
        // The system call that waits knows no limit: one process that is stopped would stop all.
        std::thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(5));
    }
}

/// Appends at most `max` octets of the file from `offset` on; 0 at its end.
pub fn read(
    file: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    max: usize,
    offset: u64,
    access: Access,
) -> io::Result<usize> {
    let refused = match read_now(file, buffer, max, offset, access) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => error,
        read => return read,
    };
    if access == Access::Blocking {
        return Err(refused);
    }
    // A file system that cannot promise not to wait. One that is memory does not, where nothing was swapped out.
    let is_memory = fstatfs(file)?.filesystem_type() == TMPFS_MAGIC;
    let rest = facts(file)?.size.saturating_sub(offset).min(max as u64);
    let is_here = || rest == 0 || cached_pages(file, offset, rest) != Some(false);
    match is_memory && is_here() {
        true => read_now(file, buffer, max, offset, Access::Blocking),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn read_now(
    file: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    max: usize,
    offset: u64,
    access: Access,
) -> io::Result<usize> {
    buffer.reserve(max);
    let spare = &mut buffer.spare_capacity_mut()[..max];
    let part = libc::iovec {
        iov_base: spare.as_mut_ptr().cast(),
        iov_len: spare.len(),
    };
    let flags = match access {
        Access::Cached => libc::RWF_NOWAIT,
        Access::Blocking => 0,
    };
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: one piece of memory that is ours to write and that outlives the call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, offset, flags) };
    match usize::try_from(read) {
        Ok(read) => {
            let length = buffer.len() + read;
            // SAFETY: the kernel has initialised the first `read` octets of the spare capacity.
            unsafe { buffer.set_len(length) };
            Ok(read)
        }
        Err(_) => Err(io::Error::last_os_error()),
    }
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

/// Sends octets of `file` to a non-blocking socket, from `offset` on, as many as it takes now.
pub fn send(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    let mut offset = i64::try_from(offset).map_err(io::Error::other)?;
    nix::sys::sendfile::sendfile64(socket, file, Some(&mut offset), count).map_err(io::Error::from)
}

/// Whether all of that range of a file is in memory, so that sending it waits for no disk.
pub fn is_resident(file: BorrowedFd<'_>, offset: u64, length: u64) -> bool {
    if let Some(all) = cached_pages(file, offset, length) {
        return all;
    }
    // Before Linux 6.5: one octet here and there says enough.
    let mut octet = Vec::with_capacity(1);
    (offset..offset + length)
        .step_by(64 << 10)
        .chain([offset + length.saturating_sub(1)])
        .all(|at| {
            octet.clear();
            read(file, &mut octet, 1, at, Access::Cached).is_ok()
        })
}

/// Whether all pages of that range are in memory. None: this kernel does not tell.
fn cached_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> Option<bool> {
    /// As the kernel has it (linux/mman.h).
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Pages {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    const CACHESTAT: libc::c_long = 451;
    const PAGE: u64 = 4096;
    let range = Range { offset, length };
    let mut pages = Pages::default();
    // SAFETY: two structures of the layout that the kernel expects, which outlive the call.
    let done = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut pages,
            0,
        )
    };
    let wanted = (offset + length).div_ceil(PAGE) - offset / PAGE;
    (done == 0).then_some(pages.cached >= wanted)
}

/// Lets go of what is in memory of a file, for one that was read and will not be read again soon.
pub fn drop_pages(file: BorrowedFd<'_>) {
    // Advice: a kernel that does not take it does as before.
    let _ = nix::fcntl::posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// Which start of the machine this is: what was written before another one may not have reached the disk.
pub fn boot() -> [u8; 16] {
    let text = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut boot = [0; 16];
    text.iter()
        .filter(|octet| **octet != b'-')
        .take(32)
        .enumerate()
        .for_each(|(at, digit)| {
            let digit = (*digit as char).to_digit(16).unwrap_or(0) as u8;
            boot[at / 2] = boot[at / 2] << 4 | digit;
        });
    boot
}

/// The names in a directory, but for itself and its parent.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    // A descriptor of its own: the position in a directory belongs to the open file.
    let own = openat2(
        directory,
        ".",
        OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC),
    )?;
    let mut listing = nix::dir::Dir::from_fd(own)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn directory() -> (tempfile::TempDir, OwnedFd) {
        let temporary = tempfile::tempdir().unwrap();
        let fd = open_root(temporary.path()).unwrap();
        (temporary, fd)
    }

    #[test]
    fn nothing_outside_and_no_link_is_opened() {
        let (outside, _fd) = directory();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let (inside, fd) = directory();
        symlink(outside.path(), inside.path().join("link")).unwrap();
        symlink(outside.path().join("secret"), inside.path().join("file")).unwrap();
        for path in ["link/secret", "file", "../x", "/etc/passwd", "link"] {
            let opened = open(fd.as_fd(), path.as_bytes(), Access::Blocking);
            assert!(opened.is_err(), "{path}");
            assert!(open_directory(fd.as_fd(), path.as_bytes()).is_err());
            assert!(create(fd.as_fd(), path.as_bytes()).is_err());
        }
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone() {
        let (path, fd) = directory();
        assert!(make_directory(fd.as_fd(), b"sub").unwrap());
        assert!(!make_directory(fd.as_fd(), b"sub").unwrap());
        drop(create(fd.as_fd(), b"sub/file").unwrap());
        assert!(create(fd.as_fd(), b"sub/file").is_err());
        let mode = |name: &str| {
            let metadata = std::fs::metadata(path.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!((mode("sub"), mode("sub/file")), (0o700, 0o600));
        assert_eq!(names(fd.as_fd()).unwrap(), [b"sub"]);
    }

    #[test]
    fn reading_never_waits_where_it_must_not() {
        let (_path, fd) = directory();
        let file = create(fd.as_fd(), b"file").unwrap();
        std::fs::File::from(file).write_all(&[7; 10_000]).unwrap();
        let file = open(fd.as_fd(), b"file", Access::Cached).unwrap();
        let mut octets = Vec::new();
        let read_now =
            |octets: &mut Vec<u8>, at| read(file.as_fd(), octets, 6000, at, Access::Cached);
        assert_eq!(read_now(&mut octets, 0).unwrap(), 6000);
        assert_eq!(read_now(&mut octets, 6000).unwrap(), 4000);
        assert_eq!(read_now(&mut octets, 10_000).unwrap(), 0);
        assert_eq!(octets, [7; 10_000]);
        assert!(is_resident(file.as_fd(), 0, 10_000));
        let missing = open(fd.as_fd(), b"none", Access::Blocking).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_in_memory_are_read_without_a_wait_as_well() {
        let temporary = tempfile::tempdir_in("/dev/shm").unwrap();
        let fd = open_root(temporary.path()).unwrap();
        std::fs::write(temporary.path().join("file"), [7; 10_000]).unwrap();
        let file = open(fd.as_fd(), b"file", Access::Cached).unwrap();
        let mut octets = Vec::new();
        for (at, wanted) in [(0, 6000), (6000, 4000), (10_000, 0), (20_000, 0)] {
            let read = read(file.as_fd(), &mut octets, 6000, at, Access::Cached);
            assert_eq!(read.unwrap(), wanted);
        }
        assert_eq!(octets, [7; 10_000]);
    }

    #[test]
    fn a_fifo_keeps_nobody_waiting() {
        let (path, fd) = directory();
        nix::unistd::mkfifo(&path.path().join("fifo"), FILE_MODE).unwrap();
        let opened = open(fd.as_fd(), b"fifo", Access::Blocking).unwrap();
        assert!(!facts(opened.as_fd()).unwrap().is_file);
    }

    #[test]
    fn one_process_has_the_lock() {
        let (_path, fd) = directory();
        let open = || open_or_create(fd.as_fd(), b"lock").unwrap();
        let held = try_lock(open()).unwrap().unwrap();
        assert!(try_lock(open()).unwrap().is_err());
        drop(held);
        assert!(try_lock(open()).unwrap().is_ok());
    }

    #[test]
    fn a_boot_has_a_number() {
        assert!(boot() != [0; 16] && boot() == boot());
    }
}
