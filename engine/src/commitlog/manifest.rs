//! The manifest: what must be there. Replaced as a whole: written beside, synced, renamed, directory synced.
//!
//! ```text
//! magic u32 | version u32 | store id u128 | segment bytes u64 | tail u32 | history entries u32 | start LSN u64
//! history: 16 bytes an entry | CRC-32 u32 of all before it | zeros to a multiple of 4096
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::commitlog::segment::{Geometry, tail_code, tail_from_code};
use crate::epoch::EpochHistory;
use crate::io::{AlignedBuf, IO_ALIGN, IoBackend, OpenMode, is_full};
use crate::units::{Lsn, to_usize};

/// File name of the manifest.
pub const MANIFEST_NAME: &str = "MANIFEST";
/// Space that only a manifest may use when the disk is full.
const RESERVE_NAME: &str = "RESERVE";
const MANIFEST_NEW_NAME: &str = "MANIFEST.tmp";
const MAGIC: u32 = u32::from_le_bytes(*b"ALMF");
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 48;
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// Why bytes are not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A form that this program does not know. Every form of frame or record that an older program would take for damage comes with a
    /// higher version.
    #[error("manifest version {found}; this program knows {known}")]
    Version {
        /// The newest that is known.
        known: u32,
        /// What the file says.
        found: u32,
    },
    /// Something does not fit: a sentence for people.
    #[error("{0}")]
    Damaged(String),
}

impl From<&str> for ManifestError {
    fn from(what: &str) -> ManifestError {
        ManifestError::Damaged(what.to_owned())
    }
}

impl From<String> for ManifestError {
    fn from(what: String) -> ManifestError {
        ManifestError::Damaged(what)
    }
}

/// Identity, geometry, extent and epochs of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The log's identity.
    pub store_id: u128,
    /// What shapes its LSN space.
    pub geometry: Geometry,
    /// First LSN retained.
    pub start: Lsn,
    /// Which epoch wrote what.
    pub history: EpochHistory,
}

impl Manifest {
    /// The file's bytes.
    ///
    /// # Panics
    /// When the history is longer than `EPOCH_HISTORY_MAX`.
    #[must_use]
    pub fn encode(&self) -> AlignedBuf {
        let history = self.history.encode();
        let mut out = Vec::with_capacity(FIXED_BYTES + history.len() + 4);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.store_id.to_le_bytes());
        out.extend_from_slice(&self.geometry.segment_bytes.to_le_bytes());
        out.extend_from_slice(&tail_code(self.geometry.tail).to_le_bytes());
        let count = u32::try_from(self.history.starts().len()).expect("bounded by EPOCH_HISTORY_MAX");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&self.start.0.to_le_bytes());
        out.extend_from_slice(&history);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        AlignedBuf::padded(&out)
    }

    /// Decodes the file's bytes.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let fixed = bytes.get(..FIXED_BYTES).ok_or("it is too short")?;
        let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(0) != MAGIC {
            return Err(ManifestError::Damaged(format!("no manifest magic (found {:#010x})", u32_at(0))));
        }
        let is_known = u32_at(4) == VERSION;
        let newer = ManifestError::Version { known: VERSION, found: u32_at(4) };
        let crc_at = to_usize(u64::from(u32_at(36)))
            .checked_mul(16)
            .and_then(|len| len.checked_add(FIXED_BYTES))
            .filter(|crc_at| is_known || bytes.len() >= crc_at + 4);
        let crc_at =
            crc_at.ok_or_else(|| if is_known { "an impossible history length".into() } else { newer.clone() })?;
        let found = bytes.get(crc_at..).and_then(|rest| rest.first_chunk::<4>()).ok_or("it is cut short")?;
        // The checksum is asked before the version is believed: a bit that changed there is no later program.
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..4]);
        hasher.update(&VERSION.to_le_bytes());
        hasher.update(&bytes[8..crc_at]);
        let (found, computed) = (u32::from_le_bytes(*found), hasher.finalize());
        if !is_known {
            let rot = ManifestError::Damaged(format!("version {}, and the checksum of version {VERSION}", u32_at(4)));
            return Err(if found == computed { rot } else { newer });
        }
        if found != computed {
            return Err(ManifestError::Damaged(format!("checksum {found:#010x}, computed {computed:#010x}")));
        }
        Ok(Manifest {
            store_id: u128::from(u64_at(8)) | u128::from(u64_at(16)) << 64,
            geometry: Geometry {
                segment_bytes: u64_at(24),
                tail: tail_from_code(u32_at(32)).ok_or_else(|| format!("tail mode {}", u32_at(32)))?,
            },
            start: Lsn(u64_at(40)),
            history: EpochHistory::decode(&bytes[FIXED_BYTES..crc_at]).ok_or("a history that does not grow")?,
        })
    }

    /// Replaces the manifest in `dir`, durably. `sync_names`: false only for the faulty variant that forgets it.
    ///
    /// # Errors
    /// The kernel's, with the path that it concerns.
    pub fn store(&self, backend: &dyn IoBackend, dir: &Path, sync_names: bool) -> Result<(), (PathBuf, io::Error)> {
        let (new, path) = (dir.join(MANIFEST_NEW_NAME), dir.join(MANIFEST_NAME));
        let bytes = self.encode();
        let write = || {
            if backend.list(dir)?.iter().any(|name| name == MANIFEST_NEW_NAME) {
                backend.remove(&new)?;
            }
            let file = backend.open(&new, OpenMode::CreateNew)?;
            file.allocate(bytes.len() as u64)?;
            file.write_at(&bytes, 0, true)?;
            file.sync()?;
            backend.rename(&new, &path)?;
            if sync_names { backend.sync_dir(dir) } else { Ok(()) }
        };
        let stored = match write() {
            // What opening and releasing need is kept aside, or a full disk could never be emptied again.
            Err(error) if is_full(&error) && free_reserve(backend, dir) => {
                // The manifest before is gone with it, so there is room for the next.
                write().inspect(|()| Manifest::keep_reserve(backend, dir))
            }
            other => other,
        };
        stored.map_err(|source| (path.clone(), source))
    }

    /// Sets space aside for the next manifests, where there is any.
    pub fn keep_reserve(backend: &dyn IoBackend, dir: &Path) {
        let path = dir.join(RESERVE_NAME);
        let keep = || {
            let is_there = backend.list(dir)?.iter().any(|name| name == RESERVE_NAME);
            let mode = if is_there { OpenMode::Existing } else { OpenMode::CreateNew };
            let file = backend.open(&path, mode)?;
            // A power failure may have left the name, and taken the space.
            if file.len()? >= MANIFEST_BYTES_MAX {
                return Ok(());
            }
            file.allocate(MANIFEST_BYTES_MAX)?;
            file.sync()?;
            backend.sync_dir(dir)
        };
        if let Err(error) = keep() {
            tracing::warn!(%error, "no space is set aside for the manifest");
            free_reserve(backend, dir);
        }
    }

    /// The manifest's bytes in `dir`; `None` when there is no such file.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` when the file has an impossible length.
    pub fn load(backend: &dyn IoBackend, dir: &Path) -> io::Result<Option<AlignedBuf>> {
        if !backend.list(dir)?.iter().any(|name| name == MANIFEST_NAME) {
            return Ok(None);
        }
        let file = backend.open(&dir.join(MANIFEST_NAME), OpenMode::ReadOnly)?;
        let len = file.len()?;
        if len == 0 || len > MANIFEST_BYTES_MAX || !len.is_multiple_of(IO_ALIGN as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a manifest of {len} bytes")));
        }
        let mut buf = AlignedBuf::zeroed(to_usize(len));
        file.read_at(&mut buf, 0)?;
        Ok(Some(buf))
    }
}

/// True when there was a reserve to give up.
fn free_reserve(backend: &dyn IoBackend, dir: &Path) -> bool {
    backend.remove(&dir.join(RESERVE_NAME)).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch::EpochStart;
    use crate::options::Tail;
    use crate::units::Epoch;

    #[test]
    fn a_manifest_comes_back_as_it_went() {
        let mut history = EpochHistory::default();
        history.push(EpochStart { epoch: Epoch { term: 1, run: 1 }, first_lsn: Lsn(0) });
        history.push(EpochStart { epoch: Epoch { term: 1, run: 2 }, first_lsn: Lsn(512) });
        let geometry = Geometry { segment_bytes: 65536, tail: Tail::Pad };
        let manifest = Manifest { store_id: 7 << 70, geometry, start: Lsn(61440), history };
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Manifest::decode(&bytes).is_err());
            let mut like = MAGIC.to_le_bytes().to_vec();
            like.extend_from_slice(&VERSION.to_le_bytes());
            like.extend_from_slice(&bytes);
            prop_assert!(Manifest::decode(&like).is_err());
        }
    }
}
