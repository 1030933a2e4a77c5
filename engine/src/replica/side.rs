//! The side block: what a replica knows of its own disk, beside a log in which only its leader's disk is spoken of.
//!
//! Invariants:
//! 1. It never says more than is durable, and durable as whole frames.
//! 2. Of its two copies the newer one counts; the older one is rewritten next, so a torn write costs what moved since.
//! 3. A directory that has one is judged by it, and not by the marks in the frames: those are of another disk.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::commit::sequencer::Sequencer;
use crate::commit::watermark::{Marks, Watermark};
use crate::commitlog::segments::HALF_MADE_SUFFIX;
use crate::io::{AlignedBuf, IO_ALIGN, IoBackend, IoFile, OpenMode};
use crate::limits;
use crate::units::{Epoch, Lsn, to_u64};

/// File name of the side block.
pub(crate) const SIDE_NAME: &str = "DURABLE";

const MAGIC: u32 = u32::from_le_bytes(*b"ALDU");
const VERSION: u32 = 1;
const CRC_AT: usize = 64;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideBlock {
    /// The log that it belongs to.
    pub store_id: u128,
    /// Counts its versions: the higher one of two copies is the newer.
    pub number: u64,
    /// The newest epoch of the log.
    pub epoch: Epoch,
    /// The log is durable here up to this, in whole frames.
    pub durable: Lsn,
    /// Known to be acknowledged, and durable here.
    pub acked: Lsn,
    /// Where the leader's log ended when this one was seeded, or that of a later leader if it ended before; 0 once it is acknowledged up
    /// to there. Until then the log may lack what this machine once acknowledged, and segments of survivors are kept, whatever it says of
    /// them.
    pub seeded_to: Lsn,
}

impl SideBlock {
    /// # Shape
    /// One block of 4096 bytes, zero behind the fields.
    #[must_use]
    pub fn encode(&self) -> AlignedBuf {
        let mut out = Vec::with_capacity(CRC_AT + 4);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.store_id.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.epoch.term.to_le_bytes());
        out.extend_from_slice(&self.epoch.run.to_le_bytes());
        out.extend_from_slice(&self.durable.0.to_le_bytes());
        out.extend_from_slice(&self.acked.0.to_le_bytes());
        out.extend_from_slice(&self.seeded_to.0.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        AlignedBuf::padded(&out)
    }

    /// One copy, if it is whole.
    #[must_use]
    pub fn decode(block: &[u8]) -> Option<SideBlock> {
        let fields = block.get(..CRC_AT + 4)?;
        let u32_at = |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let is_whole = u32_at(CRC_AT) == crc32fast::hash(&fields[..CRC_AT]);
        if u32_at(0) != MAGIC || u32_at(4) != VERSION || !is_whole {
            return None;
        }
        Some(SideBlock {
            store_id: u128::from(u64_at(8)) | u128::from(u64_at(16)) << 64,
            number: u64_at(24),
            epoch: Epoch { term: u32_at(32), run: u32_at(36) },
            durable: Lsn(u64_at(40)),
            acked: Lsn(u64_at(48)),
            seeded_to: Lsn(u64_at(56)),
        })
    }

    /// The newer copy in `dir`; `None` where there is no such file.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` when neither copy is whole.
    pub(crate) fn load(backend: &dyn IoBackend, dir: &Path) -> io::Result<Option<SideBlock>> {
        let file = match backend.open(&dir.join(SIDE_NAME), OpenMode::ReadOnly) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut buf = AlignedBuf::zeroed(2 * IO_ALIGN);
        if file.len()? != to_u64(buf.len()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} bytes", file.len()?)));
        }
        file.read_at(&mut buf, 0)?;
        let newest = buf.chunks(IO_ALIGN).filter_map(SideBlock::decode).max_by_key(|block| block.number);
        newest.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "neither copy is whole"))
    }

    /// Makes both copies say this, durably, whatever was there.
    ///
    /// # Errors
    /// The kernel's; what was there is there still.
    pub(crate) fn create(&self, backend: &dyn IoBackend, dir: &Path, sync_names: bool) -> io::Result<()> {
        let new = dir.join(format!("{SIDE_NAME}{HALF_MADE_SUFFIX}"));
        if backend.list(dir)?.iter().any(|name| *name == format!("{SIDE_NAME}{HALF_MADE_SUFFIX}")) {
            backend.remove(&new)?;
        }
        let file = backend.open(&new, OpenMode::CreateNew)?;
        file.allocate(2 * to_u64(IO_ALIGN))?;
        for offset in [0, to_u64(IO_ALIGN)] {
            file.write_at(&self.encode(), offset, true)?;
        }
        file.sync()?;
        backend.rename(&new, &dir.join(SIDE_NAME))?;
        if sync_names { backend.sync_dir(dir) } else { Ok(()) }
    }

    /// Takes it away, durably: the log is a leader's from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn remove(backend: &dyn IoBackend, dir: &Path) -> io::Result<()> {
        if backend.list(dir)?.iter().any(|name| name == SIDE_NAME) {
            backend.remove(&dir.join(SIDE_NAME))?;
            backend.sync_dir(dir)?;
        }
        Ok(())
    }
}

/// Keeps the side block of an open replica up to date.
pub(crate) struct SideKeeper {
    file: Arc<dyn IoFile>,
    marks: Arc<Marks>,
    sequencer: Arc<Mutex<Sequencer>>,
    written: SideBlock,
    seeded_to: Arc<AtomicU64>,
    /// What the watermarks said when it was last written.
    seen: (Lsn, Lsn),
    due: Duration,
}

impl SideKeeper {
    /// `block`: what the file says.
    pub(crate) fn new(
        file: Arc<dyn IoFile>,
        marks: Arc<Marks>,
        sequencer: Arc<Mutex<Sequencer>>,
        block: SideBlock,
        seeded_to: Arc<AtomicU64>,
    ) -> SideKeeper {
        let seen = (block.durable, block.acked);
        SideKeeper { file, marks, sequencer, written: block, seeded_to, seen, due: Duration::ZERO }
    }

    /// Writes it when something moved and its time has come; says when to look again.
    ///
    /// # Errors
    /// The kernel's: nothing more may be written.
    pub(crate) fn step(&mut self, now: Duration) -> io::Result<Duration> {
        let seen = (self.marks.load(Watermark::Durable), self.marks.acked());
        if seen == self.seen {
            // What is on its way wakes nobody here when it arrives.
            let is_moving = seen.0 < self.marks.assigned() || seen.1 < seen.0;
            return Ok(if is_moving { limits::SIDE_BLOCK_INTERVAL } else { limits::HOUSEKEEPING_INTERVAL });
        }
        if now < self.due {
            return Ok(self.due - now);
        }
        self.due = now + limits::SIDE_BLOCK_INTERVAL;
        self.write()?;
        Ok(limits::SIDE_BLOCK_INTERVAL)
    }

    /// Writes what is true now, unless that is written.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        let seen = (self.marks.load(Watermark::Durable), self.marks.acked());
        let (durable, epoch) = {
            let mut sequencer = self.sequencer.lock().expect("the append lock is intact");
            (sequencer.durable_mark(), sequencer.epoch)
        };
        let acked = self.marks.acked().min(durable);
        let seeded_to = Lsn(self.seeded_to.load(Ordering::SeqCst));
        let next = SideBlock { epoch, durable, acked, seeded_to, ..self.written };
        self.put(next)?;
        self.seen = seen;
        Ok(())
    }

    fn put(&mut self, mut next: SideBlock) -> io::Result<()> {
        if next == self.written {
            return Ok(());
        }
        next.number = self.written.number + 1;
        self.file.write_at(&next.encode(), next.number % 2 * to_u64(IO_ALIGN), true)?;
        self.written = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_side_block_comes_back_and_any_changed_bit_is_seen(
            store_id in any::<u128>(), number in any::<u64>(), durable in any::<u64>(), at in 0usize..68, bit in 0u32..8,
        ) {
            let epoch = Epoch { term: 3, run: 4 };
            let (durable, acked, seeded_to) = (Lsn(durable), Lsn(durable / 2), Lsn(7));
            let block = SideBlock { store_id, number, epoch, durable, acked, seeded_to };
            let mut bytes = block.encode();
            prop_assert_eq!(SideBlock::decode(&bytes), Some(block));
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(SideBlock::decode(&bytes), None);
        }
    }
}
