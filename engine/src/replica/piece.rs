//! Bytes of the log on their way to another machine.

use std::ops::Range;
use std::sync::Arc;

use crate::commit::ring::Piece;
use crate::commitlog::reader::ReadBuf;

/// Consecutive bytes of the log: where they are still in memory they are those of the log buffer, not a copy. Cloning copies nothing.
#[derive(Clone)]
pub struct LogPiece {
    bytes: Bytes,
    /// What of them is left.
    left: Range<usize>,
}

#[derive(Clone)]
enum Bytes {
    Memory(Arc<Piece>),
    Read(Arc<ReadBuf>),
}

impl LogPiece {
    pub(crate) fn of_memory(piece: Piece) -> LogPiece {
        let left = 0..piece.bytes().len();
        LogPiece { bytes: Bytes::Memory(Arc::new(piece)), left }
    }

    pub(crate) fn of_disk(buf: ReadBuf, left: Range<usize>) -> LogPiece {
        LogPiece { bytes: Bytes::Read(Arc::new(buf)), left }
    }

    /// Bytes left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether the bytes had to be read from the disk.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self.bytes, Bytes::Read(_))
    }

    /// Takes out the first `count` bytes; all of them when there are fewer.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> LogPiece {
        let mut first = self.clone();
        first.left.end = self.left.end.min(self.left.start.saturating_add(count));
        self.left.start = first.left.end;
        first
    }

    /// Takes away the first `count` bytes, those that are on their way already; all of them when there are fewer.
    pub fn advance(&mut self, count: usize) {
        self.left.start = self.left.end.min(self.left.start.saturating_add(count));
    }
}

impl AsRef<[u8]> for LogPiece {
    fn as_ref(&self) -> &[u8] {
        let all = match &self.bytes {
            Bytes::Memory(piece) => piece.bytes(),
            Bytes::Read(buf) => buf.bytes(),
        };
        &all[self.left.clone()]
    }
}

impl std::fmt::Debug for LogPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = if matches!(self.bytes, Bytes::Memory(_)) { "memory" } else { "disk" };
        f.debug_struct("LogPiece").field("from", &from).field("len", &self.len()).finish()
    }
}
