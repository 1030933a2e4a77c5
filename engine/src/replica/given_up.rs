//! Logs that were given up, and stay until somebody says that they may go.
//!
//! Invariant: nothing here is called by the engine itself. What was acknowledged once may lie in such a log and nowhere else; only a person
//! knows that it is not wanted any more.

use std::io;
use std::path::{Path, PathBuf};

use crate::io::{IoBackend, OpenMode};
use crate::replica::seed::GIVEN_UP_PREFIX;

/// A log that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// The directory in which it lies, within that of the log that took its place.
    pub path: PathBuf,
    /// Its files.
    pub files: usize,
    /// What they hold.
    pub bytes: u64,
}

/// What lies in the directory of a log because it was given up; nothing where there is no such directory.
///
/// # Errors
/// The kernel's.
pub fn given_up(backend: &dyn IoBackend, dir: impl AsRef<Path>) -> io::Result<Vec<GivenUp>> {
    let dir = dir.as_ref();
    let names = match backend.dirs(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let found = names.into_iter().filter(|name| name.starts_with(GIVEN_UP_PREFIX)).map(|name| {
        let path = dir.join(name);
        let files = backend.list(&path)?;
        let len = |file: &String| backend.open(&path.join(file), OpenMode::ReadOnly)?.len();
        let bytes = files.iter().map(len).sum::<io::Result<u64>>()?;
        Ok(GivenUp { files: files.len(), bytes, path })
    });
    found.collect()
}

/// Deletes a log that was given up, for good.
///
/// # Errors
/// The kernel's; what is left can be deleted by another call.
pub fn forget(backend: &dyn IoBackend, given_up: &GivenUp) -> io::Result<()> {
    for name in backend.list(&given_up.path)? {
        backend.remove(&given_up.path.join(name))?;
    }
    backend.remove_dir(&given_up.path)?;
    tracing::warn!(path = %given_up.path.display(), bytes = given_up.bytes, "a log that was given up is deleted");
    Ok(())
}
