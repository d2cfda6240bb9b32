//! The limit of open descriptors: raised as far as it goes at start, and read by those who must stay below it.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and returns what holds from then on.
pub fn raise_descriptors() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    descriptors()
}

/// The soft limit of open descriptors.
pub fn descriptors() -> io::Result<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(soft)
}

/// How many of a worker's descriptors may be held by what no client is waiting for: half of them at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Files of the cache that are kept open.
    pub files: usize,
    /// Bodies in memory that the kernel sends. Each is a mapping, too, of which a process may have 65,530 by default
    /// (`vm.max_map_count`).
    pub bodies: usize,
    /// Idle connections to origin servers. Each is looked at once a second.
    pub origins: usize,
}

impl Shares {
    /// Of so many descriptors.
    pub fn of(limit: usize) -> Shares {
        Shares {
            files: limit / 4,
            bodies: (limit / 8).min(16_384),
            origins: (limit / 8).min(4096),
        }
    }

    /// Those of this process.
    pub fn own() -> Shares {
        Shares::of(descriptors().unwrap_or(256) as usize)
    }
}

/// How many descriptors this process has open now.
pub fn open_descriptors() -> io::Result<usize> {
    // The listing itself holds one descriptor, which is gone when this returns.
    Ok(std::fs::read_dir("/proc/self/fd")?
        .count()
        .saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_descriptors_are_left_for_requests_and_no_share_grows_for_ever() {
        for limit in [0, 80, 1024, 1 << 20] {
            let Shares {
                files,
                bodies,
                origins,
            } = Shares::of(limit);
            assert!(files + bodies + origins <= limit / 2, "{limit}");
        }
        let most = Shares::of(1 << 30);
        assert_eq!((most.bodies, most.origins), (16_384, 4096));
    }

    #[test]
    fn the_limit_is_raised_and_read_back() {
        let raised = raise_descriptors().unwrap();
        assert_eq!(raised, descriptors().unwrap());
        assert!(open_descriptors().unwrap() >= 3);
    }
}
