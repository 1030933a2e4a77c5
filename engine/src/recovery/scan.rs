//! Reading segments from front to back at the disk's speed: a few large reads in flight, across the border of two segments too; bytes are
//! handed out in order and, where they lie in one piece, where they were read to.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use crate::commitlog::segment::Geometry;
use crate::error::OpenError;
use crate::io::{AlignedBuf, IO_ALIGN, IoAction, IoBackend, IoFile, IoOp, IoQueue, Wait};
use crate::limits::{COLD_READ_BYTES, SCAN_DEPTH_MAX, SCAN_DEPTH_MIN, SCAN_READ_BYTES, SEGMENT_HEADER_BYTES};
use crate::units::{Lsn, align_down, to_u64, to_usize};

/// A cursor over the data bytes of a segment, and of those behind it.
pub(crate) struct SegmentScan<'a> {
    io: Box<dyn IoQueue>,
    geometry: Geometry,
    base: Lsn,
    error: Box<dyn Fn(io::Error) -> OpenError + 'a>,
    /// This segment, and those that are read ahead.
    files: VecDeque<Arc<dyn IoFile>>,
    /// Reads under way and done, in the order in which they are taken, and the token of the first.
    reads: VecDeque<Read>,
    first_token: u64,
    /// The next read: in which of `files`, from which offset.
    next: (usize, u64),
    /// What is looked at: first what stands in `joined`, which lay in more than one piece, then the rest of the piece.
    joined: Vec<u8>,
    joined_at: usize,
    piece: Option<AlignedBuf>,
    at: usize,
    /// Buffers of pieces that were looked at.
    spare: Vec<AlignedBuf>,
    /// Blocks that could not be read, by file offset, and why; `None`: such a block ends the scan with an error.
    unreadable: Option<BTreeMap<u64, String>>,
    /// Bytes of one read, how many are in flight, and how many may be.
    read_bytes: usize,
    depth: usize,
    depth_max: usize,
}

/// A read.
struct Read {
    /// In which of the files.
    file: usize,
    offset: u64,
    done: Option<(io::Result<()>, AlignedBuf)>,
}

impl<'a> SegmentScan<'a> {
    pub(crate) fn new(
        backend: &dyn IoBackend,
        file: &Arc<dyn IoFile>,
        geometry: Geometry,
        base: Lsn,
        error: impl Fn(io::Error) -> OpenError + 'a,
    ) -> Result<SegmentScan<'a>, OpenError> {
        let io = backend.queue(SCAN_DEPTH_MAX).map_err(&error)?;
        Ok(SegmentScan {
            io,
            geometry,
            base,
            error: Box::new(error),
            files: VecDeque::from([Arc::clone(file)]),
            reads: VecDeque::new(),
            first_token: 0,
            next: (0, SEGMENT_HEADER_BYTES),
            joined: Vec::new(),
            joined_at: 0,
            piece: None,
            at: 0,
            spare: Vec::new(),
            unreadable: None,
            read_bytes: SCAN_READ_BYTES,
            depth: SCAN_DEPTH_MIN,
            depth_max: SCAN_DEPTH_MAX,
        })
    }

    /// From here on blocks that cannot be read count as zeros; [`SegmentScan::unreadable`] has them.
    pub(crate) fn tolerate(&mut self) {
        self.unreadable = Some(BTreeMap::new());
    }

    /// From here on reads are short, one at a time: others use the disk.
    pub(crate) fn be_gentle(&mut self) {
        (self.read_bytes, self.depth, self.depth_max) = (to_usize(COLD_READ_BYTES), 1, 1);
    }

    /// Why a block between these file offsets could not be read, if one could not.
    pub(crate) fn unreadable(&self, from: u64, to: u64) -> Option<&str> {
        let blocks = self.unreadable.as_ref()?;
        blocks.range(align_down(from, to_u64(IO_ALIGN))..to).next().map(|(_, why)| why.as_str())
    }

    /// Goes on at `lsn`. Before the first [`SegmentScan::need`] only.
    pub(crate) fn skip_to(&mut self, lsn: Lsn) -> Result<(), OpenError> {
        let offset = self.geometry.file_offset(lsn);
        let aligned = align_down(offset, to_u64(IO_ALIGN));
        debug_assert!(self.reads.is_empty() && self.piece.is_none() && lsn >= self.base);
        self.next = (0, aligned);
        let skip = to_usize(offset - aligned);
        self.need(skip)?;
        self.consume(skip);
        Ok(())
    }

    /// Reads ahead what comes behind this segment: the one that `file` is.
    pub(crate) fn then(&mut self, file: &Arc<dyn IoFile>) {
        self.files.push_back(Arc::clone(file));
    }

    /// Goes on with the segment of [`SegmentScan::then`], from its beginning.
    pub(crate) fn go_on(&mut self, base: Lsn, error: impl Fn(io::Error) -> OpenError + 'a) -> Result<(), OpenError> {
        // What nobody has looked at.
        while self.next_piece()? {}
        self.spare.extend(self.piece.take());
        (self.base, self.error) = (base, Box::new(error));
        self.files.pop_front();
        for read in &mut self.reads {
            read.file -= 1;
        }
        self.next = self.next.0.checked_sub(1).map_or((0, SEGMENT_HEADER_BYTES), |file| (file, self.next.1));
        self.joined.clear();
        (self.joined_at, self.at) = (0, 0);
        Ok(())
    }

    /// At least the next `count` bytes, as far as the segment has them (zeros are returned behind its end).
    pub(crate) fn need(&mut self, count: usize) -> Result<&[u8], OpenError> {
        if self.joined_at == self.joined.len() {
            self.joined.clear();
            self.joined_at = 0;
            if self.piece.is_none() {
                self.next_piece()?;
            }
            if self.rest().len() >= count {
                return Ok(&self.piece.as_deref().unwrap_or_default()[self.at..]);
            }
        }
        while self.joined.len() - self.joined_at < count {
            let missing = count - (self.joined.len() - self.joined_at);
            let taken = missing.min(self.rest().len());
            self.joined.extend_from_slice(&self.piece.as_deref().unwrap_or_default()[self.at..self.at + taken]);
            self.at += taken;
            if taken < missing && !self.next_piece()? {
                self.joined.resize(self.joined_at + count, 0);
            }
        }
        Ok(&self.joined[self.joined_at..])
    }

    /// What of the piece nobody has looked at.
    fn rest(&self) -> &[u8] {
        self.piece.as_deref().map_or(&[], |piece| &piece[self.at..])
    }

    pub(crate) fn consume(&mut self, count: usize) {
        let from_joined = count.min(self.joined.len() - self.joined_at);
        self.joined_at += from_joined;
        self.at += (count - from_joined).min(self.rest().len());
    }

    /// Goes on with the next piece of this segment; false, and the rest is empty, where there is none.
    fn next_piece(&mut self) -> Result<bool, OpenError> {
        self.read_ahead();
        if self.reads.front().is_none_or(|read| read.file > 0) {
            self.at = self.piece.as_deref().map_or(0, <[u8]>::len);
            return Ok(false);
        }
        let mut done = Vec::new();
        while self.reads.front().is_some_and(|read| read.done.is_none()) {
            self.io.reap(Wait::One, &mut done);
            for completion in done.drain(..) {
                let IoAction::Read { buf, .. } = completion.op.action else { continue };
                let index = to_usize(completion.op.token - self.first_token);
                self.reads[index].done = Some((completion.result, buf));
            }
        }
        self.first_token += 1;
        let Some(Read { offset, done: Some((result, mut buf)), .. }) = self.reads.pop_front() else { return Ok(false) };
        match (result, &mut self.unreadable) {
            (Ok(()), _) => {}
            (Err(source), None) => return Err((self.error)(source)),
            (Err(_), Some(unreadable)) => read_blocks(&*self.files[0], offset, &mut buf, unreadable),
        }
        self.spare.extend(self.piece.replace(buf));
        self.at = 0;
        // Who reads much may be kept from the processor for longer than the disk takes for a few.
        self.depth = (self.depth + 1).min(self.depth_max);
        self.read_ahead();
        Ok(true)
    }

    /// Keeps as many reads under way as there may be.
    fn read_ahead(&mut self) {
        while self.reads.len() < self.depth
            && let (index, offset) = self.next
            && let Some(file) = self.files.get(index)
        {
            if offset >= self.geometry.segment_bytes {
                self.next = (index + 1, SEGMENT_HEADER_BYTES);
                continue;
            }
            let len = to_usize(to_u64(self.read_bytes).min(self.geometry.segment_bytes - offset));
            let spare = self.spare.iter().position(|buf| buf.len() == len);
            let buf = spare.map_or_else(|| AlignedBuf::zeroed(len), |at| self.spare.swap_remove(at));
            let token = self.first_token + to_u64(self.reads.len());
            self.io.submit(IoOp::read(token, Arc::clone(file), offset, buf));
            self.reads.push_back(Read { file: index, offset, done: None });
            self.next = (index, offset + to_u64(len));
        }
    }
}

/// Fills `buf` block by block; what cannot be read is zero and noted.
pub(crate) fn read_blocks(
    file: &dyn IoFile,
    offset: u64,
    buf: &mut AlignedBuf,
    unreadable: &mut BTreeMap<u64, String>,
) {
    let mut block = AlignedBuf::zeroed(IO_ALIGN);
    for (at, out) in (offset..).step_by(IO_ALIGN).zip(buf.chunks_mut(IO_ALIGN)) {
        match file.read_at(&mut block, at) {
            Ok(()) => out.copy_from_slice(&block),
            Err(error) => {
                out.fill(0);
                unreadable.insert(at, error.to_string());
            }
        }
    }
}
