//! One row of a store, looked at from outside: beside the process that has it open, and without a change to its file.
//!
//! The embedded database writes when it opens and closes. Here that goes to memory.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use redb::ReadableDatabase;

use super::database::{FILE_NAME, Session};
use super::layout::{PAGE_BYTES, StoreIdentity};
use super::pages::Settings;
use super::tables::StoreTable;
use crate::io::{AlignedBuf, IoBackend, IoFile, OpenMode};
use crate::limits::{STORE_CACHE_BYTES_MIN, STORE_STEP_BYTES};
use crate::units::to_u64;

/// The value of a key as the last commit left it; `None` where there is none, or no store that can be read. One that is being written may
/// look damaged for a moment.
pub(crate) fn peek(
    backend: &dyn IoBackend,
    dir: &Path,
    identity: StoreIdentity,
    table: StoreTable,
    key: &[u8],
) -> Option<Vec<u8>> {
    if !backend.list(dir).ok()?.iter().any(|name| name == FILE_NAME) {
        return None;
    }
    let file = backend.open(&dir.join(FILE_NAME), OpenMode::ReadOnly).ok()?;
    let len = file.len().ok()?;
    let file: Arc<dyn IoFile> =
        Arc::new(Untouched { file, changed: Mutex::new(Changed { len, blocks: BTreeMap::new() }) });
    let settings = Settings { identity, pace: Arc::new(|_| {}), pending_bytes_max: STORE_STEP_BYTES };
    let session = Session::reopen(&file, &settings, STORE_CACHE_BYTES_MIN).ok()?;
    let found = session.run("looking", || {
        let table = session.database().begin_read()?.open_table(table.definition())?;
        Ok(table.get(key)?.map(|found| found.value().to_vec()))
    });
    found.ok()?
}

/// A file whose changes stay in memory.
struct Untouched {
    file: Arc<dyn IoFile>,
    changed: Mutex<Changed>,
}

struct Changed {
    len: u64,
    /// Blocks that are not as in the file, by offset.
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Untouched {
    fn changed<T>(&self, with: impl FnOnce(&mut Changed) -> T) -> T {
        with(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn offsets(from: u64) -> impl Iterator<Item = u64> {
    (from..).step_by(PAGE_BYTES)
}

impl IoFile for Untouched {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed(|changed| changed.len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.changed(|changed| changed.len = len);
        Ok(())
    }

    fn punch_hole(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, buf: &mut AlignedBuf, offset: u64) -> io::Result<()> {
        self.changed(|changed| {
            if changed.len < offset + to_u64(buf.len()) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let in_file = self.file.len()?;
            let mut from_file = AlignedBuf::zeroed(PAGE_BYTES);
            for (at, block) in offsets(offset).zip(buf.chunks_exact_mut(PAGE_BYTES)) {
                if let Some(bytes) = changed.blocks.get(&at) {
                    block.copy_from_slice(bytes);
                } else if at + to_u64(PAGE_BYTES) <= in_file {
                    self.file.read_at(&mut from_file, at)?;
                    block.copy_from_slice(&from_file);
                } else {
                    // It was only allocated, and here only.
                    block.fill(0);
                }
            }
            Ok(())
        })
    }

    fn write_at(&self, buf: &AlignedBuf, offset: u64, _durable: bool) -> io::Result<()> {
        self.changed(|changed| {
            for (at, block) in offsets(offset).zip(buf.chunks_exact(PAGE_BYTES)) {
                changed.blocks.insert(at, block.into());
            }
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
