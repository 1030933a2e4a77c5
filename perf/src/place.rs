//! Where the stores of a run lie: on a real disk, chosen and said out loud.

use std::path::{Path, PathBuf};

use anchorlog_engine::io::sys::{self, BlockDevice};

use crate::error::PerfError;

/// What a run needs at most: the probe's file, one row's store with its spares, and what recovery sets aside.
pub(crate) const SPACE_BYTES: u64 = 2 << 30;

/// The directory of a run; what it did not find there it takes away again.
pub(crate) struct Place {
    dir: PathBuf,
    made: bool,
    warning: Option<String>,
}

impl Place {
    /// Makes sure that the directory is there, on a disk, with enough room.
    ///
    /// # Errors
    /// When it lies in memory (unless `allow_memory`) or is too full; says what to do.
    pub(crate) fn choose(dir: Option<&Path>, allow_memory: bool) -> Result<Place, PerfError> {
        Place::with_room(dir, allow_memory, SPACE_BYTES)
    }

    /// The same for a run that needs `space_bytes`.
    ///
    /// # Errors
    /// As [`Place::choose`].
    pub(crate) fn with_room(dir: Option<&Path>, allow_memory: bool, space_bytes: u64) -> Result<Place, PerfError> {
        let dir = dir.map_or_else(default_dir, Path::to_owned);
        let made = !dir.exists();
        std::fs::create_dir_all(&dir).map_err(|source| PerfError::Io {
            what: "making the directory",
            path: dir.clone(),
            source,
        })?;
        let dir = std::fs::canonicalize(&dir).unwrap_or(dir);
        let mut place = Place { dir, made, warning: None };
        let kind = sys::filesystem_type(&place.dir);
        let in_memory = matches!(kind.as_str(), "tmpfs" | "ramfs" | "hugetlbfs");
        if in_memory && !allow_memory {
            return Err(PerfError::Usage(format!(
                "{} lies on {kind}, which is memory: durable writes cost nothing there and the numbers would mean nothing. Choose a directory on a disk with --dir, or say --allow-tmpfs",
                place.dir.display()
            )));
        }
        if in_memory {
            place.warning =
                Some(format!("the stores lie on {kind}: this is memory, the numbers say nothing about a disk"));
        } else if BlockDevice::below(&place.dir).is_none() {
            place.warning = Some(format!(
                "no block device is known below {} ({kind}): flushes and device bytes cannot be counted; prefer a directory on a volume",
                place.dir.display()
            ));
        }
        let free = sys::free_bytes(&place.dir).unwrap_or(u64::MAX);
        if free < space_bytes {
            return Err(PerfError::Usage(format!(
                "{} has {} MiB left and a run needs {} MiB; make room or choose another directory with --dir",
                place.dir.display(),
                free >> 20,
                space_bytes >> 20
            )));
        }
        Ok(place)
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What should be said about it.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.made {
            // Only an empty directory goes: a report in it stays, and the directory with it.
            drop(std::fs::remove_dir(&self.dir));
        }
    }
}

fn default_dir() -> PathBuf {
    if Path::new("target").is_dir() {
        PathBuf::from("target/anchorlog-perf")
    } else {
        PathBuf::from("anchorlog-perf-tmp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_refused_unless_asked_for() {
        let memory = Path::new("/dev/shm");
        if sys::filesystem_type(memory) != "tmpfs" {
            return;
        }
        let dir = memory.join("anchorlog-perf-test");
        let refused = Place::choose(Some(&dir), false).err().expect("memory is no disk").to_string();
        assert!(refused.contains("--allow-tmpfs"), "{refused}");
        if sys::free_bytes(memory).is_ok_and(|free| free >= SPACE_BYTES) {
            let place = Place::choose(Some(&dir), true).expect("it was asked for");
            assert!(place.warning().is_some());
        }
        assert!(!dir.exists(), "an empty directory is taken away again");
    }
}
