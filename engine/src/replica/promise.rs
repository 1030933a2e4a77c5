//! What a node promised: to follow nobody of a lower term. It outlives the node, or it is worth nothing.
//!
//! The engine keeps the promise's letter, and opens no leader of a lower term; who may ask for one is the replicator's concern.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Advice;
use crate::io::{AlignedBuf, IO_ALIGN, IoBackend, OpenMode};
use crate::replica::files;
use crate::units::to_u64;

/// File name of the promise.
pub(crate) const PROMISE_NAME: &str = "PROMISE";

/// Whether the log in `dir` is one of several: others may have what is damaged here, and lose it when this one is shortened and believed.
///
/// # Errors
/// The kernel's.
pub fn is_one_of_several(backend: &dyn IoBackend, dir: &Path) -> io::Result<bool> {
    Ok(backend.list(dir)?.iter().any(|name| name == PROMISE_NAME || name == super::SIDE_NAME))
}

const MAGIC: u32 = u32::from_le_bytes(*b"ALPR");
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 16;
/// Longest name of whom a promise is for, in bytes.
pub(crate) const PROMISE_NAME_BYTES_MAX: usize = 1024;

/// A term, and whom it was promised to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Nobody of a lower term is followed, and none is led.
    pub term: u32,
    /// Whom it is for, in the words of whoever asked.
    pub to: Vec<u8>,
}

/// Why a promise was not read or not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromiseError {
    /// A higher term was promised, or this one to somebody else.
    #[error("term {asked} was asked for; term {promised} is promised to {to:?}")]
    Given {
        /// What was asked for.
        asked: u32,
        /// What stands.
        promised: u32,
        /// For whom.
        to: String,
    },
    /// The name of whom it is for is too long.
    #[error("a name of {0} bytes; at most {PROMISE_NAME_BYTES_MAX} are taken")]
    NameTooLong(usize),
    /// The file is not whole: it is replaced as a whole, so no power failure leaves this.
    #[error("{path} is damaged", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refused something.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl PromiseError {
    /// Reject what contradicts a promise; retry what the kernel refused; stop, and ask a person, where the file is damaged.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            PromiseError::Given { .. } | PromiseError::NameTooLong(_) => Advice::Reject,
            PromiseError::Damaged { .. } => Advice::Stop,
            PromiseError::Io { .. } => Advice::Retry,
        }
    }
}

impl Promise {
    /// # Shape
    /// One block of 4096 bytes: magic u32, version u32, term u32, length of the name u32, the name, CRC-32 of all before it, zeros.
    ///
    /// # Panics
    /// When the name does not fit.
    #[must_use]
    pub fn encode(&self) -> AlignedBuf {
        let mut out = Vec::with_capacity(FIXED_BYTES + self.to.len() + 4);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.term.to_le_bytes());
        let len = u32::try_from(self.to.len()).expect("bounded by PROMISE_NAME_BYTES_MAX");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.to);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        AlignedBuf::padded(&out)
    }

    /// `None` when the bytes are no whole promise.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Promise> {
        let fixed = bytes.get(..FIXED_BYTES)?;
        let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let len = usize::try_from(u32_at(12)).ok().filter(|len| *len <= PROMISE_NAME_BYTES_MAX)?;
        let crc_at = FIXED_BYTES + len;
        let crc = bytes.get(crc_at..)?.first_chunk::<4>()?;
        let is_whole = u32::from_le_bytes(*crc) == crc32fast::hash(&bytes[..crc_at]);
        let is_known = u32_at(0) == MAGIC && u32_at(4) == VERSION;
        (is_whole && is_known).then(|| Promise { term: u32_at(8), to: bytes[FIXED_BYTES..crc_at].to_vec() })
    }

    /// What was promised in `dir`, if anything.
    ///
    /// # Errors
    /// When it cannot be read: it must not pass for none then.
    pub fn load(backend: &dyn IoBackend, dir: impl AsRef<Path>) -> Result<Option<Promise>, PromiseError> {
        let path = dir.as_ref().join(PROMISE_NAME);
        let read = || {
            let file = match backend.open(&path, OpenMode::ReadOnly) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let mut buf = AlignedBuf::zeroed(IO_ALIGN);
            if file.len()? == to_u64(IO_ALIGN) {
                file.read_at(&mut buf, 0)?;
            }
            Ok(Some(buf))
        };
        match read() {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => Promise::decode(&bytes).map(Some).ok_or(PromiseError::Damaged { path }),
            Err(source) => Err(PromiseError::Io { path, source }),
        }
    }

    /// Gives the promise: durable when this returns. The same one may be given again. One caller at a time; the log may be open.
    ///
    /// # Errors
    /// When another one stands in its way, or the kernel refuses something: what stood before stands still then.
    pub fn store(&self, backend: &dyn IoBackend, dir: impl AsRef<Path>) -> Result<(), PromiseError> {
        let dir = dir.as_ref();
        if self.to.len() > PROMISE_NAME_BYTES_MAX {
            return Err(PromiseError::NameTooLong(self.to.len()));
        }
        if let Some(known) = Promise::load(backend, dir)? {
            if known.term > self.term || (known.term == self.term && known.to != self.to) {
                let to = String::from_utf8_lossy(&known.to).into_owned();
                return Err(PromiseError::Given { asked: self.term, promised: known.term, to });
            }
            if known == *self {
                return Ok(());
            }
        }
        let stored = files::replace(backend, dir, PROMISE_NAME, &self.encode());
        stored.map_err(|source| PromiseError::Io { path: dir.join(PROMISE_NAME), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::SimDisk;

    #[test]
    fn a_term_only_grows_and_is_for_one() {
        let disk = SimDisk::new(1);
        let (backend, dir) = (disk.backend(), Path::new("/log"));
        backend.create_dir_all(dir).unwrap();
        let promise = |term, to: &str| Promise { term, to: to.as_bytes().to_vec() };
        assert_eq!(Promise::load(&*backend, dir).unwrap(), None);
        promise(3, "b").store(&*backend, dir).unwrap();
        promise(3, "b").store(&*backend, dir).unwrap();
        assert!(matches!(promise(3, "c").store(&*backend, dir), Err(PromiseError::Given { promised: 3, .. })));
        assert!(promise(2, "b").store(&*backend, dir).is_err());
        promise(4, "c").store(&*backend, dir).unwrap();
        assert_eq!(Promise::load(&*backend, dir).unwrap(), Some(promise(4, "c")));
    }

    #[test]
    fn a_promise_stands_whenever_the_power_fails() {
        for last in 0.. {
            let disk = SimDisk::new(2);
            let dir = Path::new("/log");
            disk.backend().create_dir_all(dir).unwrap();
            Promise { term: 1, to: b"a".to_vec() }.store(&*disk.backend(), dir).unwrap();
            disk.stop_after(disk.io_count() + last);
            let given = Promise { term: 2, to: b"b".to_vec() }.store(&*disk.backend(), dir);
            let disk = disk.crash_with(last, crate::io::sim::Survival::Seeded);
            let found = Promise::load(&*disk.backend(), dir).unwrap().unwrap();
            assert!(found.term == 2 || (found.term == 1 && given.is_err()), "after {last}");
            Promise { term: 2, to: b"b".to_vec() }.store(&*disk.backend(), dir).unwrap();
            if given.is_ok() {
                break;
            }
        }
    }

    #[test]
    fn bytes_that_are_no_promise_are_refused() {
        let bytes = Promise { term: 7, to: b"node-2".to_vec() }.encode();
        for at in 0..26 {
            let mut changed = bytes.to_vec();
            changed[at] ^= 4;
            assert_eq!(Promise::decode(&changed), None);
            assert_eq!(Promise::decode(&bytes[..at]), None);
        }
        assert_eq!(Promise::decode(&bytes).unwrap().to, b"node-2");
    }
}
