//! Memory between processes: a region of atomics that several map at once, and sealed files that one writes and
//! others read.
//!
//! A region has no lock and needs none: it can only be seen as structs that consist of atomics, which the macro
//! `in_shared_memory!` checks, so any process may write anything at any time and nothing here becomes undefined.
//! Sizes are sealed, so a mapping can never lose the pages under it.

#![expect(unsafe_code, reason = "views into a mapping")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use memmap2::{Mmap, MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A type that may be seen in shared memory.
///
/// # Safety
/// Every bit pattern is a value of it, and it changes only through atomic operations. Implement it through
/// `in_shared_memory!` alone.
pub unsafe trait OfAtomics {}

// SAFETY: atomic integers, and arrays of what qualifies.
unsafe impl OfAtomics for AtomicU8 {}
// SAFETY: as above.
unsafe impl OfAtomics for AtomicU32 {}
// SAFETY: as above.
unsafe impl OfAtomics for AtomicU64 {}
// SAFETY: as above.
unsafe impl<T: OfAtomics, const N: usize> OfAtomics for [T; N] {}

/// Declares a struct that may live in shared memory, aligned to a cache line of its own.
#[macro_export]
macro_rules! in_shared_memory {
    ($(#[$outer:meta])* $vis:vis struct $name:ident { $($(#[$inner:meta])* $field_vis:vis $field:ident: $kind:ty,)+ }) => {
        $(#[$outer])*
        #[repr(C, align(64))]
        $vis struct $name { $($(#[$inner])* $field_vis $field: $kind,)+ }

        // SAFETY: repr(C), and the function below compiles only if every field qualifies. Padding is never read.
        #[allow(unsafe_code, reason = "checked field by field, right below")]
        unsafe impl $crate::sys::memory::OfAtomics for $name {}
        const _: () = {
            const fn qualifies<T: $crate::sys::memory::OfAtomics>() {}
            $(qualifies::<$kind>();)+
        };
    };
}
pub use crate::in_shared_memory;

/// A mapping that this process shares with its relatives.
pub struct Shared {
    map: MmapRaw,
}

impl Shared {
    /// New memory of `size` octets, all zero, and the descriptor that others map it by.
    pub fn create(name: &str, size: usize) -> io::Result<(Shared, OwnedFd)> {
        let fd = memory_file(name)?;
        File::from(fd.try_clone()?).set_len(size as u64)?;
        seal(
            &fd,
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL,
        )?;
        Ok((Shared::map(&fd, size)?, fd))
    }

    /// Maps what another process created.
    pub fn open(fd: &OwnedFd) -> io::Result<Shared> {
        let seals = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the memory is not sealed against shrinking",
            ));
        }
        let size = File::from(fd.try_clone()?).metadata()?.len();
        Shared::map(fd, usize::try_from(size).map_err(io::Error::other)?)
    }

    fn map(fd: &OwnedFd, size: usize) -> io::Result<Shared> {
        Ok(Shared {
            map: MmapOptions::new().len(size).map_raw(fd)?,
        })
    }

    #[must_use]
    pub fn size(&self) -> usize {
        self.map.len()
    }

    /// `count` values of `T` from `offset` on; `None` when they do not fit or are not aligned.
    #[must_use]
    pub fn slice<T: OfAtomics>(&self, offset: usize, count: usize) -> Option<&[T]> {
        let end = size_of::<T>().checked_mul(count)?.checked_add(offset)?;
        if end > self.size() || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: the range lies inside the mapping, which starts on a page, so alignment of the offset is enough;
        // its size is sealed, and it stays mapped for as long as `self` is borrowed. Every bit pattern is a `T`,
        // and all access goes through atomics, in this process and in others.
        Some(unsafe {
            std::slice::from_raw_parts(self.map.as_mut_ptr().add(offset).cast::<T>(), count)
        })
    }

    /// One value of `T` at `offset`.
    #[must_use]
    pub fn at<T: OfAtomics>(&self, offset: usize) -> Option<&T> {
        self.slice(offset, 1)?.first()
    }
}

/// A file in memory with this content, which nobody can change any more.
pub fn sealed_file(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memory_file(name)?;
    let mut file = File::from(fd.try_clone()?);
    file.write_all(bytes)?;
    let all = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    seal(&fd, all)?;
    Ok(fd)
}

/// Such a file, not empty, and its content to look at.
pub fn sealed_mapping(name: &str, bytes: &[u8]) -> io::Result<(Mmap, OwnedFd)> {
    let fd = sealed_file(name, bytes)?;
    // Private, since before Linux 6.7 nothing that is sealed against writing can be mapped as shared.
    // SAFETY: its content and its size are sealed, so what is seen never changes, nor goes away under the mapping.
    let map = unsafe {
        MmapOptions::new()
            .len(bytes.len())
            .map_copy_read_only(&fd)?
    };
    Ok((map, fd))
}

/// The whole content of such a file. Its offset, which all holders share, is left alone: several may read at once.
pub fn read_sealed(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd);
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn memory_file(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(
        name,
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?)
}

fn seal(fd: &OwnedFd, seals: SealFlag) -> io::Result<()> {
    fcntl(fd.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// What the GNU C library's allocator keeps at hand in a child, of what has been freed: as many pieces of each size as a
/// busy moment frees, and not 7. See `spawn`, and [`give_back_freed`].
pub(super) const AT_HAND: usize = 64;
/// Of so many sizes, in steps of 16 octets.
const SIZES_AT_HAND: usize = 64;

/// Tells the allocator that this process takes and frees pieces of up to some MiB all the time: what it has freed of them
/// is kept for the next ones, up to some MiB, and larger ones go back to the system at once.
pub fn expect_many_buffers() {
    const KEPT: libc::c_int = 8 << 20;
    // A row of a MiB is read into a buffer that doubles: mapped anew each time, the kernel clears pages for a third of its cost.
    const LARGE: libc::c_int = 4 << 20;
    // SAFETY: numbers in, a number out.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives freed memory back to the system: the allocator keeps what a crowd of connections has used.
pub fn give_back_freed() {
    // Pieces that are put together here are not brought to hand below, where one of their size is taken.
    trim();
    // What a thread has at hand it lets go of at its end only. Small pieces lie all over the memory of a crowd, so they
    // are taken from this thread's hands and freed by one that ends.
    let sizes = (0..SIZES_AT_HAND).map(|step| 24 + 16 * step);
    let at_hand: Vec<Vec<u8>> = sizes
        .flat_map(|size| std::iter::repeat_n(size, AT_HAND))
        .map(Vec::with_capacity)
        .collect();
    let freed = std::thread::Builder::new().spawn(move || drop(at_hand));
    let _ = freed.map(std::thread::JoinHandle::join);
    trim();
}

fn trim() {
    // SAFETY: `malloc_trim` takes no pointer and may be called at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    in_shared_memory! {
        struct Row { first: AtomicU64, second: AtomicU32, }
    }

    #[test]
    fn two_mappings_see_the_same_atomics() {
        let (near, fd) = Shared::create("test", 4096).unwrap();
        let far = Shared::open(&fd).unwrap();
        near.at::<Row>(64).unwrap().second.store(7, Relaxed);
        near.at::<Row>(64).unwrap().first.store(8, Relaxed);
        assert_eq!(far.slice::<Row>(0, 2).unwrap()[1].second.load(Relaxed), 7);
        assert_eq!(far.at::<AtomicU64>(64).unwrap().load(Relaxed), 8);
    }

    #[test]
    fn a_view_outside_or_askew_is_refused() {
        let (shared, _fd) = Shared::create("test", 4096).unwrap();
        assert!(shared.slice::<AtomicU64>(0, 512).is_some());
        assert!(shared.slice::<AtomicU64>(0, 513).is_none());
        assert!(shared.slice::<AtomicU64>(8, usize::MAX).is_none());
        assert!(shared.at::<AtomicU64>(4).is_none());
        assert!(shared.at::<Row>(8).is_none());
    }

    #[test]
    fn a_sealed_file_reads_back_for_every_holder_and_never_changes() {
        let fd = sealed_file("test", b"configuration").unwrap();
        let copy = fd.try_clone().unwrap();
        assert_eq!(read_sealed(fd).unwrap(), b"configuration");
        assert!(
            File::from(copy.try_clone().unwrap())
                .write_all(b"x")
                .is_err()
        );
        assert_eq!(read_sealed(copy).unwrap(), b"configuration");
    }

    #[test]
    fn several_read_a_sealed_file_at_once() {
        let content = vec![7; 1 << 16];
        let fd = sealed_file("test", &content).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        assert!(read_sealed(fd.try_clone().unwrap()).unwrap() == content);
                    }
                });
            }
        });
    }

    #[test]
    fn memory_without_the_seal_is_not_mapped() {
        let fd = memory_file("test").unwrap();
        File::from(fd.try_clone().unwrap()).set_len(4096).unwrap();
        assert!(Shared::open(&fd).is_err());
    }
}
