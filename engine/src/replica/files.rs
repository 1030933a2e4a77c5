//! Small files that are replaced as a whole.

use std::io;
use std::path::Path;

use crate::commitlog::segments::HALF_MADE_SUFFIX;
use crate::io::{AlignedBuf, IoBackend, OpenMode};
use crate::units::to_u64;

/// Makes the file `name` hold these bytes, durably: it is as it was, or as it shall be, whenever the power fails.
pub(super) fn replace(backend: &dyn IoBackend, dir: &Path, name: &str, bytes: &AlignedBuf) -> io::Result<()> {
    let half_made = format!("{name}{HALF_MADE_SUFFIX}");
    let new = dir.join(&half_made);
    if backend.list(dir)?.contains(&half_made) {
        backend.remove(&new)?;
    }
    let file = backend.open(&new, OpenMode::CreateNew)?;
    file.allocate(to_u64(bytes.len()))?;
    file.write_at(bytes, 0, true)?;
    file.sync()?;
    backend.rename(&new, &dir.join(name))?;
    backend.sync_dir(dir)
}

/// Whether there is a file of this name.
pub(super) fn exists(backend: &dyn IoBackend, dir: &Path, name: &str) -> io::Result<bool> {
    Ok(backend.list(dir)?.iter().any(|found| found == name))
}
