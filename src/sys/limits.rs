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
    fn the_limit_is_raised_and_read_back() {
        let raised = raise_descriptors().unwrap();
        assert_eq!(raised, descriptors().unwrap());
        assert!(open_descriptors().unwrap() >= 3);
    }
}
