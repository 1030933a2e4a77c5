//! Reading along the log for another machine while nothing else needs the disk: the next pieces are on their way while the last one is
//! being sent.
//!
//! Invariants:
//! 1. Pieces come in the order of the log and without a gap, whatever order the disk has.
//! 2. At most [`ALONG_READ_COUNT`] reads of [`WIDE_READ_BYTES`] are on their way or wait to be taken.
//! 3. What is in memory is not read: there the way ends.
//! 4. Bytes of a segment that was taken out of the log meanwhile are given to nobody.
//!
//! Its queue belongs to one thread: it is used, and dropped, where it was first used.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::reader::LogReader;
use crate::error::ReadError;
use crate::io::{IoAction, IoBackend, IoCompletion, IoOp, IoQueue, Wait};
use crate::limits::{ALONG_READ_COUNT, WIDE_READ_BYTES};
use crate::replica::LogPiece;
use crate::units::{Lsn, to_u64};

/// A read that the disk has been asked for.
struct Asked {
    from: Lsn,
    /// Where the bytes lie in what is read.
    range: Range<usize>,
    piece: Option<Result<LogPiece, ReadError>>,
}

/// A way along the log, through what only the disk has; from [`crate::Engine::read_along`].
pub struct LogAlong {
    reader: Arc<LogReader>,
    queue: Box<dyn IoQueue>,
    /// The first byte that the disk has not been asked for.
    next: Lsn,
    asked: VecDeque<Asked>,
    /// The number of the first of `asked`.
    first: u64,
    done: Vec<IoCompletion>,
}

impl std::fmt::Debug for LogAlong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogAlong").field("next", &self.next).field("asked", &self.asked.len()).finish_non_exhaustive()
    }
}

impl LogAlong {
    pub(crate) fn new(reader: Arc<LogReader>, backend: &dyn IoBackend, from: Lsn) -> io::Result<LogAlong> {
        let queue = backend.queue(ALONG_READ_COUNT)?;
        Ok(LogAlong { reader, queue, next: from, asked: VecDeque::new(), first: 0, done: Vec::new() })
    }

    /// The next bytes, at most `max` of them; none where the rest is in memory, or not written yet. They are not verified: see
    /// [`crate::Engine::log_bytes`].
    ///
    /// # Errors
    /// What the kernel refuses to read; [`ReadError::NotFound`] for what was released. There is no use in going on after that.
    pub fn next(&mut self, max: usize) -> Result<Option<LogPiece>, ReadError> {
        self.ask();
        loop {
            let Some(mut front) = self.asked.pop_front() else { return Ok(None) };
            match front.piece.take() {
                None => {
                    self.asked.push_front(front);
                    self.wait();
                }
                Some(Ok(mut piece)) if piece.len() > max => {
                    let first = piece.split_to(max);
                    front.piece = Some(Ok(piece));
                    self.asked.push_front(front);
                    return Ok(Some(first));
                }
                Some(piece) => {
                    self.first += 1;
                    // Its place is taken at once: the disk has something to do while this piece is used.
                    self.ask();
                    return piece.map(Some);
                }
            }
        }
    }

    fn ask(&mut self) {
        while self.asked.len() < ALONG_READ_COUNT
            && let Some(stretch) = self.reader.stretch_on_disk(self.next, WIDE_READ_BYTES)
        {
            let token = self.first + to_u64(self.asked.len());
            self.asked.push_back(Asked { from: self.next, range: stretch.range, piece: None });
            self.next = stretch.end;
            self.queue.submit(IoOp::read(token, stretch.file, stretch.offset, stretch.buf));
        }
    }

    fn wait(&mut self) {
        self.queue.reap(Wait::One, &mut self.done);
        for IoCompletion { op, result } in self.done.drain(..) {
            let IoAction::Read { buf, .. } = op.action else { continue };
            let buf = self.reader.keep(buf);
            let place = usize::try_from(op.token - self.first).unwrap_or(usize::MAX);
            let Some(asked) = self.asked.get_mut(place) else { continue };
            let read = self.reader.check_read(asked.from, result);
            asked.piece = Some(read.map(|()| LogPiece::of_disk(buf, asked.range.clone())));
        }
    }
}
