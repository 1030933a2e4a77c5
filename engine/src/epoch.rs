//! The epoch history: which epoch wrote which part of the log.
//!
//! An epoch and its first LSN are durable in the manifest before a byte of it is appended, so what an earlier run wrote and lost can never
//! pass for what this run writes at the same place.

use crate::units::{Epoch, Lsn};

/// One epoch and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// First LSN that it wrote.
    pub first_lsn: Lsn,
}

/// Bytes of one entry.
const ENTRY_BYTES: usize = 16;

/// Epochs in the order in which they wrote; both fields only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    starts: Vec<EpochStart>,
}

impl EpochHistory {
    /// The epochs, oldest first.
    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The newest epoch.
    #[must_use]
    pub fn last(&self) -> Option<EpochStart> {
        self.starts.last().copied()
    }

    /// The epoch whose bytes stand at `lsn`.
    #[must_use]
    pub fn at(&self, lsn: Lsn) -> Option<Epoch> {
        let behind = self.starts.partition_point(|start| start.first_lsn <= lsn);
        Some(self.starts[behind.checked_sub(1)?].epoch)
    }

    /// Adds an epoch; one that wrote nothing before it is replaced.
    ///
    /// # Panics
    /// When the epoch or its first LSN does not grow.
    pub fn push(&mut self, start: EpochStart) {
        if let Some(last) = self.last() {
            assert!(start.epoch > last.epoch && start.first_lsn >= last.first_lsn, "epochs only grow");
            if last.first_lsn == start.first_lsn {
                self.starts.pop();
            }
        }
        self.starts.push(start);
    }

    /// Forgets epochs that wrote nothing at or behind `lsn`.
    pub fn trim(&mut self, lsn: Lsn) {
        let behind = self.starts.partition_point(|start| start.first_lsn <= lsn);
        self.starts.drain(..behind.saturating_sub(1));
    }

    /// Forgets the oldest epochs beyond `count`: what they wrote is then only checked to follow its predecessor.
    pub fn cap(&mut self, count: usize) {
        let surplus = self.starts.len().saturating_sub(count);
        self.starts.drain(..surplus);
    }

    /// # Shape
    /// 16 bytes an entry: term, run (u32 each), first LSN (u64), little-endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.starts.len() * ENTRY_BYTES);
        for start in &self.starts {
            out.extend_from_slice(&start.epoch.term.to_le_bytes());
            out.extend_from_slice(&start.epoch.run.to_le_bytes());
            out.extend_from_slice(&start.first_lsn.0.to_le_bytes());
        }
        out
    }

    /// Length of [`EpochHistory::encode`].
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.starts.len() * ENTRY_BYTES
    }

    /// `None` when the bytes are not a history that [`EpochHistory::push`] could have built.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<EpochHistory> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        let mut starts: Vec<EpochStart> = Vec::with_capacity(entries.len());
        for entry in entries {
            let (term, rest) = entry.split_first_chunk::<4>()?;
            let (run, rest) = rest.split_first_chunk::<4>()?;
            let (first_lsn, _) = rest.split_first_chunk::<8>()?;
            let start = EpochStart {
                epoch: Epoch { term: u32::from_le_bytes(*term), run: u32::from_le_bytes(*run) },
                first_lsn: Lsn(u64::from_le_bytes(*first_lsn)),
            };
            if starts.last().is_some_and(|last| start.epoch <= last.epoch || start.first_lsn <= last.first_lsn) {
                return None;
            }
            starts.push(start);
        }
        rest.is_empty().then_some(EpochHistory { starts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(run: u32, lsn: u64) -> EpochStart {
        EpochStart { epoch: Epoch { term: 1, run }, first_lsn: Lsn(lsn) }
    }

    #[test]
    fn each_position_has_the_epoch_that_wrote_it() {
        let mut history = EpochHistory::default();
        for (run, lsn) in [(1, 0), (2, 100), (3, 100), (4, 250)] {
            history.push(start(run, lsn));
        }
        assert_eq!(history.starts(), [start(1, 0), start(3, 100), start(4, 250)]);
        let run_at = |lsn| history.at(Lsn(lsn)).unwrap().run;
        assert_eq!([0, 99, 100, 249, 250, 9999].map(run_at), [1, 1, 3, 3, 4, 4]);
        assert_eq!(EpochHistory::decode(&history.encode()), Some(history.clone()));
        history.trim(Lsn(120));
        assert_eq!(history.starts(), [start(3, 100), start(4, 250)]);
    }

    #[test]
    fn bytes_that_are_no_history_are_refused() {
        let mut history = EpochHistory::default();
        history.push(start(2, 8));
        let mut bytes = history.encode();
        bytes.extend_from_slice(&history.encode());
        assert_eq!(EpochHistory::decode(&bytes), None);
        assert_eq!(EpochHistory::decode(&bytes[..15]), None);
    }
}
