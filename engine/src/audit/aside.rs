//! Replacing files of a log so that the old ones are kept and no moment is without either.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::audit::RepairError;
use crate::commitlog::segments::HALF_MADE_SUFFIX;
use crate::io::{AlignedBuf, IO_ALIGN, IoBackend, IoFile, OpenMode};
use crate::limits::SCAN_READ_BYTES;
use crate::recovery::scan::read_blocks;
use crate::store;
use crate::units::{to_u64, to_usize};

/// Suffix of what a repair replaced.
const ASIDE_SUFFIX: &str = ".damaged";

pub(super) fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RepairError + use<'a> {
    move |source| RepairError::Io { what, path: path.to_path_buf(), source }
}

/// Replaces a file as a whole: what `fill` puts into each piece, durable before the name is.
pub(super) fn write_beside(
    backend: &dyn IoBackend,
    dir: &Path,
    name: &str,
    len: u64,
    mut fill: impl FnMut(u64, &mut AlignedBuf) -> io::Result<()>,
) -> io::Result<()> {
    remove_half_made(backend, dir, name)?;
    let new = dir.join(format!("{name}{HALF_MADE_SUFFIX}"));
    let file = backend.open(&new, OpenMode::CreateNew)?;
    file.allocate(len)?;
    let mut offset = 0;
    while offset < len {
        let mut buf = AlignedBuf::zeroed(to_usize((len - offset).min(to_u64(SCAN_READ_BYTES))));
        fill(offset, &mut buf)?;
        file.write_at(&buf, offset, false)?;
        offset += to_u64(buf.len());
    }
    file.sync()?;
    backend.rename(&new, &dir.join(name))?;
    backend.sync_dir(dir)
}

/// Removes what an attempt before this one left of a file in the making.
pub(super) fn remove_half_made(backend: &dyn IoBackend, dir: &Path, name: &str) -> io::Result<()> {
    let half_made = format!("{name}{HALF_MADE_SUFFIX}");
    if backend.list(dir)?.contains(&half_made) { backend.remove(&dir.join(half_made)) } else { Ok(()) }
}

/// Names for what a repair replaced, the preferred one first.
fn aside_names(name: &str) -> impl Iterator<Item = String> {
    let plain = format!("{name}{ASIDE_SUFFIX}");
    std::iter::once(plain.clone()).chain((2..).map(move |number: u32| format!("{plain}.{number}")))
}

fn free_name(names: &[String], name: &str) -> String {
    aside_names(name).find(|aside| !names.contains(aside)).expect("numbers do not end")
}

/// Renames a file, durably, and returns its new name.
pub(super) fn move_aside(backend: &dyn IoBackend, dir: &Path, name: &str) -> Result<PathBuf, RepairError> {
    rename_aside(backend, dir, name).map_err(failed("keeping aside", &dir.join(name)))
}

fn rename_aside(backend: &dyn IoBackend, dir: &Path, name: &str) -> io::Result<PathBuf> {
    let aside = dir.join(free_name(&backend.list(dir)?, name));
    backend.rename(&dir.join(name), &aside)?;
    backend.sync_dir(dir)?;
    Ok(aside)
}

/// Removes the derived store, durably.
pub(super) fn drop_derived(backend: &dyn IoBackend, dir: &Path) -> Result<(), RepairError> {
    store::remove(backend, dir).map_err(|error| {
        let path = dir.join(store::FILE_NAME);
        failed("removing", &path)(io::Error::other(error))
    })
}

/// A copy of what a repair is about to replace.
pub(super) struct Kept {
    pub(super) path: PathBuf,
    /// Blocks that could not be read, and are zeros in the copy.
    pub(super) unreadable_count: usize,
}

/// Copies a file under another name, durably; a copy that is there already is not made again. A file that is not made of whole blocks is
/// none of ours and cannot be copied by them: it is renamed.
pub(super) fn keep_aside(backend: &dyn IoBackend, dir: &Path, name: &str) -> Result<Kept, RepairError> {
    let path = dir.join(name);
    let keep = || {
        let names = backend.list(dir)?;
        let file = backend.open(&path, OpenMode::ReadOnly)?;
        let len = file.len()?;
        if !len.is_multiple_of(to_u64(IO_ALIGN)) {
            return rename_aside(backend, dir, name).map(|path| Kept { path, unreadable_count: 0 });
        }
        let mut unreadable = BTreeMap::new();
        let mut read = |offset: u64, buf: &mut AlignedBuf| {
            if file.read_at(buf, offset).is_err() {
                read_blocks(&*file, offset, buf, &mut unreadable);
            }
            Ok(())
        };
        let newest = aside_names(name).take_while(|aside| names.contains(aside)).last();
        if let Some(newest) = newest.map(|newest| dir.join(newest))
            && is_same(&*backend.open(&newest, OpenMode::ReadOnly)?, len, &mut read)?
        {
            return Ok(Kept { path: newest, unreadable_count: unreadable.len() });
        }
        let aside = free_name(&names, name);
        write_beside(backend, dir, &aside, len, read)?;
        Ok(Kept { path: dir.join(aside), unreadable_count: unreadable.len() })
    };
    keep().map_err(failed("keeping aside", &path))
}

/// Whether a file holds what `read` gives, `len` bytes of it.
fn is_same(
    file: &dyn IoFile,
    len: u64,
    read: &mut impl FnMut(u64, &mut AlignedBuf) -> io::Result<()>,
) -> io::Result<bool> {
    if file.len()? != len {
        return Ok(false);
    }
    let mut offset = 0;
    while offset < len {
        let piece = to_usize((len - offset).min(to_u64(SCAN_READ_BYTES)));
        let (mut left, mut right) = (AlignedBuf::zeroed(piece), AlignedBuf::zeroed(piece));
        file.read_at(&mut left, offset)?;
        read(offset, &mut right)?;
        if left[..] != right[..] {
            return Ok(false);
        }
        offset += to_u64(piece);
    }
    Ok(true)
}
