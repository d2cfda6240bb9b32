//! Files that were being written when their writer died: nobody will ever finish them.

use crate::shared::Region;
use crate::store::disk::place::Place;

/// Removes what belongs to no worker of ours that is alive; how many files.
pub(super) fn sweep(place: &Place, region: &Region) -> std::io::Result<u64> {
    let mut removed = 0;
    for file in place.aside()? {
        if !is_being_written(&file, region) && place.remove_aside(&file)? {
            removed += 1;
        }
    }
    Ok(removed)
}

/// A file is called `WORKER-PID-NUMBER` while it is written, or as `name` has it.
fn is_being_written(file: &[u8], region: &Region) -> bool {
    if let Some(pid) = keeper(file) {
        return is_alive(pid);
    }
    let Some((worker, pid)) = writer(file) else {
        return false;
    };
    worker < region.workers() && region.space_row(worker).owner() == pid && is_alive(pid)
}

fn writer(file: &[u8]) -> Option<(usize, u64)> {
    let mut parts = std::str::from_utf8(file).ok()?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn keeper(file: &[u8]) -> Option<u64> {
    let name = std::str::from_utf8(file).ok()?;
    let (pid, _) = name.strip_prefix("upkeep-")?.split_once('-')?;
    pid.parse().ok()
}

/// What a file is called that the janitor writes, or a command; the number is used once by this process.
pub(super) fn name(number: u64) -> String {
    format!("upkeep-{}-{number}", std::process::id())
}

/// Whether there is a process of that number.
pub(super) fn is_alive(pid: u64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_worker_writes_stays_and_all_else_goes() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::prepare(&directory.path().join("cache")).unwrap();
        let (region, _fd) = Region::create(2).unwrap();
        region.space_row(1).inherit(region.space());
        let own = std::process::id();
        let ours = format!("1-{own}-7");
        let others = [
            format!("0-{own}-7"),
            format!("7-{own}-7"),
            format!("1-{}-7", u32::MAX),
            format!("upkeep-{}-7", u32::MAX),
            "nonsense".to_owned(),
        ];
        let imported = name(7);
        for name in others.iter().chain([&ours, &imported]) {
            place.create_aside(name).unwrap();
        }
        assert_eq!(sweep(&place, &region).unwrap(), 5);
        let mut left = place.aside().unwrap();
        left.sort();
        assert_eq!(left, [ours.as_bytes(), imported.as_bytes()]);
    }
}
