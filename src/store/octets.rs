//! Octets of a body in memory: in that of the process, or, where they are many, in a file in memory, from which the kernel
//! sends them. Then no client costs a copy, as none of a file on a disk does.
//!
//! Such a file belongs to one body and is never changed: what the kernel has been given to send stays as it is, also when
//! nobody keeps the body any more. Each takes a descriptor, so only a share of them may be used so.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::sys::limits;
use crate::sys::memory::sealed_mapping;

/// From so many octets on, sending by the kernel costs less than copying.
const SENT_FROM_FILE: usize = 64 << 10;
/// Up to so many are laid into a file at once; more of them elsewhere, as other connections would wait meanwhile.
const AT_ONCE: usize = 1 << 20;
/// What the kernel needs for a file beside its content, about.
const OF_A_FILE: usize = 1024;

#[derive(Clone, Debug)]
pub struct Octets {
    octets: Bytes,
    file: Option<Arc<File>>,
}

impl Octets {
    /// The octets where clients get them at the least cost, for a body that is kept.
    pub async fn kept(octets: impl Into<Bytes>) -> Octets {
        let octets = octets.into();
        if octets.len() <= AT_ONCE {
            return Octets::kept_now(octets);
        }
        let own = octets.clone();
        let kept = tokio::task::spawn_blocking(move || Octets::kept_now(own)).await;
        kept.unwrap_or_else(|_| octets.into())
    }

    /// The same without a wait, for what is no longer than a row.
    pub fn kept_now(octets: Bytes) -> Octets {
        match octets.len() >= SENT_FROM_FILE {
            true => File::with(&octets).unwrap_or_else(|| octets.into()),
            false => octets.into(),
        }
    }

    /// From where the kernel may send them.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.0.as_fd())
    }

    /// Octets of memory held, about.
    pub fn memory(&self) -> usize {
        match self.file {
            Some(_) => self.octets.len().next_multiple_of(4096) + OF_A_FILE,
            None => self.octets.len(),
        }
    }
}

impl From<Bytes> for Octets {
    fn from(octets: Bytes) -> Octets {
        Octets { octets, file: None }
    }
}

impl Deref for Octets {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.octets
    }
}

/// One of those that take a descriptor.
#[derive(Debug)]
struct File(OwnedFd);

static FILES: AtomicUsize = AtomicUsize::new(0);
static MOST_FILES: LazyLock<usize> =
    LazyLock::new(|| limits::descriptors().map_or(0, |all| (all / 8) as usize));

impl File {
    /// None: there are too many, or the system refuses; then they stay where they are.
    fn with(octets: &Bytes) -> Option<Octets> {
        let before = FILES.fetch_add(1, Relaxed);
        let made = (before < *MOST_FILES).then(|| sealed_mapping("baton-body", octets));
        let Some(Ok((mapping, fd))) = made else {
            FILES.fetch_sub(1, Relaxed);
            return None;
        };
        Some(Octets {
            octets: Bytes::from_owner(mapping),
            file: Some(Arc::new(File(fd))),
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        FILES.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::files;
    use std::os::unix::net::UnixStream;

    fn body(length: usize) -> Bytes {
        (0..length).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn many_are_where_the_kernel_sends_them_from_and_few_are_not() {
        for (length, has_file) in [(0, false), (65_535, false), (65_536, true), (70_001, true)] {
            let kept = Octets::kept_now(body(length));
            assert_eq!(kept.file().is_some(), has_file, "{length}");
            assert_eq!(*kept, body(length));
            assert!((length..length + 6000).contains(&kept.memory()));
        }
    }

    #[tokio::test]
    async fn very_many_are_laid_down_elsewhere() {
        let kept = Octets::kept(body(3 << 20)).await;
        assert!(kept.file().is_some() && *kept == body(3 << 20));
    }

    #[test]
    fn what_has_been_given_to_the_kernel_outlives_the_body() {
        let (near, far) = UnixStream::pair().unwrap();
        let kept = Octets::kept_now(body(70_000));
        let sent = files::send(near.as_fd(), kept.file().unwrap(), 10, 60_000).unwrap();
        drop(kept);
        drop(near);
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut &far, &mut got).unwrap();
        assert_eq!(got, body(70_000)[10..10 + sent]);
    }

    #[test]
    fn nobody_can_change_such_a_file() {
        let kept = Octets::kept_now(body(70_000));
        let file = kept.file().unwrap();
        assert!(files::write_at(file, b"x", 0).is_err());
        assert!(nix::unistd::ftruncate(file, 1).is_err());
    }
}
