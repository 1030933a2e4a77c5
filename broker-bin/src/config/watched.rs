//! Files whose content is looked at again and again: what they hold, each time that it changed.
//!
//! They are compared by their bytes, so no change is missed, however fast or whatever their times say. They are small.

use std::path::PathBuf;

/// Largest of such files.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Files that belong together.
pub struct Watched {
    paths: Vec<PathBuf>,
    seen: Option<Result<Vec<Vec<u8>>, String>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Some hold secrets.
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Watched {
    /// These.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Watched {
        Watched { paths, seen: None }
    }

    /// Where they are.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What they hold, when that is something else than the last time; the first time in any case.
    ///
    /// # Errors
    /// When one of them cannot be read. Said once, until that changes.
    pub fn changed(&mut self) -> std::io::Result<Option<Vec<Vec<u8>>>> {
        let found = self.read();
        if self.seen.as_ref() == Some(&found) {
            return Ok(None);
        }
        self.seen = Some(found.clone());
        found.map(Some).map_err(std::io::Error::other)
    }

    /// The next look finds a change in any case.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    fn read(&self) -> Result<Vec<Vec<u8>>, String> {
        let read = |path: &PathBuf| {
            let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
            let length = std::fs::metadata(path).map_err(failed)?.len();
            if length > FILE_BYTES_MAX {
                return Err(format!("{} has {length} bytes, {FILE_BYTES_MAX} are the most", path.display()));
            }
            std::fs::read(path).map_err(failed)
        };
        self.paths.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a configuration file is not a durable one of the engine")]
    fn write(path: &std::path::Path, text: &str) {
        std::fs::write(path, text).expect("written");
    }

    #[test]
    fn a_change_is_told_once_and_so_is_a_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write(&a, "1");
        write(&b, "2");
        let mut watched = Watched::new(vec![a.clone(), b]);
        let held = |text: [&str; 2]| Some(text.map(|text| text.as_bytes().to_vec()).to_vec());
        assert_eq!(watched.changed().expect("read"), held(["1", "2"]));
        assert_eq!(watched.changed().expect("read"), None);
        write(&a, "3");
        assert_eq!(watched.changed().expect("read"), held(["3", "2"]));
        std::fs::remove_file(&a).expect("gone");
        assert!(watched.changed().is_err());
        assert_eq!(watched.changed().expect("said before"), None);
        write(&a, "3");
        assert_eq!(watched.changed().expect("read"), held(["3", "2"]));
        watched.forget();
        assert_eq!(watched.changed().expect("read"), held(["3", "2"]));
    }
}
