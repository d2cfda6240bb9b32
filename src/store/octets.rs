//! Octets of a body in memory: in that of the process, or, where they are many, in a file in memory, from which the kernel
//! sends them. Then no client costs a copy, as none of a file on a disk does.
//!
//! Such a file belongs to one body and is never changed: what the kernel has been given to send stays as it is, also when
//! nobody keeps the body any more. Each takes a descriptor and a mapping, so only so many bodies are kept like that
//! ([`Shares`]); the others are copied.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::sys::limits::Shares;
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
    /// A body that has come, where clients get it at the least cost and in no more memory than it needs. None: a bug.
    pub async fn kept(body: Vec<u8>) -> Option<Octets> {
        let is_long = body.len() > AT_ONCE;
        let lay = move || match File::with(&body) {
            Some(kept) => kept,
            None => {
                let mut body = body;
                body.shrink_to_fit();
                Bytes::from(body).into()
            }
        };
        match is_long {
            true => tokio::task::spawn_blocking(lay).await.ok(),
            false => Some(lay()),
        }
    }

    /// The same without a wait, of what is no longer than a row; it may stay where it is.
    pub fn kept_now(body: Bytes) -> Octets {
        File::with(&body).unwrap_or_else(|| body.into())
    }

    /// The same of what must not stay where it is.
    pub fn copy_of(body: &[u8]) -> Octets {
        File::with(body).unwrap_or_else(|| Bytes::copy_from_slice(body).into())
    }

    /// From where the kernel may send so many of them, if that costs less than copying.
    pub fn file_for(&self, length: u64) -> Option<BorrowedFd<'_>> {
        let file = self.file.as_ref()?;
        (length >= SENT_FROM_FILE as u64).then(|| file.0.as_fd())
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
struct File(
    OwnedFd,
    #[expect(dead_code, reason = "it is given back with the file")] Place,
);

static FILES: AtomicUsize = AtomicUsize::new(0);
static MOST_FILES: LazyLock<usize> = LazyLock::new(|| Shares::own().bodies);

impl File {
    /// None: they are few, or there are too many files, or the system refuses; then they are better copied.
    fn with(octets: &[u8]) -> Option<Octets> {
        if octets.len() < SENT_FROM_FILE {
            return None;
        }
        let place = Place::take(&FILES, *MOST_FILES)?;
        let (mapping, fd) = sealed_mapping("baton-body", octets).ok()?;
        Some(Octets {
            octets: Bytes::from_owner(mapping),
            file: Some(Arc::new(File(fd, place))),
        })
    }
}

/// One of so many places, until it goes.
#[derive(Debug)]
struct Place(&'static AtomicUsize);

impl Place {
    fn take(taken: &'static AtomicUsize, most: usize) -> Option<Place> {
        let before = taken.fetch_add(1, Relaxed);
        let place = Place(taken);
        (before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
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

    /// What a file is asked for in most tests.
    const MANY: u64 = 1 << 20;

    #[test]
    fn many_are_where_the_kernel_sends_them_from_and_few_are_not() {
        for (length, has_file) in [(0, false), (65_535, false), (65_536, true), (70_001, true)] {
            for kept in [
                Octets::kept_now(body(length)),
                Octets::copy_of(&body(length)),
            ] {
                assert_eq!(kept.file_for(MANY).is_some(), has_file, "{length}");
                assert!(kept.file_for(1000).is_none(), "a few of many are copied");
                assert_eq!(*kept, body(length));
                assert!((length..length + 6000).contains(&kept.memory()));
            }
        }
    }

    #[tokio::test]
    async fn those_of_any_number_are_kept_in_no_more_than_they_need() {
        for length in [10, 70_000, 3 << 20] {
            let mut octets = Vec::with_capacity(2 * length);
            octets.extend_from_slice(&body(length));
            let kept = Octets::kept(octets).await.unwrap();
            assert_eq!(kept.file_for(MANY).is_some(), length > 1000);
            assert_eq!(*kept, body(length));
        }
    }

    #[test]
    fn what_has_been_given_to_the_kernel_outlives_the_body() {
        let (near, far) = UnixStream::pair().unwrap();
        let kept = Octets::kept_now(body(70_000));
        let file = kept.file_for(MANY).unwrap();
        let sent = files::send(near.as_fd(), file, 10, 60_000).unwrap();
        drop(kept);
        drop(near);
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut &far, &mut got).unwrap();
        assert_eq!(got, body(70_000)[10..10 + sent]);
    }

    #[test]
    fn nobody_can_change_such_a_file() {
        let kept = Octets::kept_now(body(70_000));
        let file = kept.file_for(MANY).unwrap();
        assert!(files::write_at(file, b"x", 0).is_err());
        assert!(nix::unistd::ftruncate(file, 1).is_err());
    }

    #[test]
    fn there_are_so_many_places_and_each_comes_back() {
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        let take = || Place::take(&TAKEN, 2);
        let (first, second) = (take(), take());
        assert!(first.is_some() && second.is_some() && take().is_none());
        drop(first);
        let third = take();
        assert!(third.is_some() && take().is_none());
        drop((second, third));
        assert_eq!(TAKEN.load(Relaxed), 0);
    }
}
