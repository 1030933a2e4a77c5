//! Reading one segment from front to back at the disk's speed: a few large reads in flight, bytes handed out in order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::commitlog::segment::Geometry;
use crate::error::OpenError;
use crate::io::{AlignedBuf, IO_ALIGN, IoAction, IoBackend, IoFile, IoOp, IoQueue, Wait};
use crate::limits::{COLD_READ_BYTES, SCAN_DEPTH, SCAN_READ_BYTES, SEGMENT_HEADER_BYTES};
use crate::units::{Lsn, align_down, to_u64, to_usize};

/// A cursor over the data bytes of a segment.
pub(crate) struct SegmentScan<'a> {
    io: Box<dyn IoQueue>,
    file: Arc<dyn IoFile>,
    geometry: Geometry,
    base: Lsn,
    error: Box<dyn Fn(io::Error) -> OpenError + 'a>,
    /// File offset of the next read.
    next_read: u64,
    /// File offset of the next read to be taken over, and reads that completed ahead of it.
    next_taken: u64,
    early: BTreeMap<u64, AlignedBuf>,
    bytes: Vec<u8>,
    at: usize,
    /// Blocks that could not be read, by file offset, and why; `None`: such a block ends the scan with an error.
    unreadable: Option<BTreeMap<u64, String>>,
    /// Bytes of one read, and how many are in flight.
    read_bytes: usize,
    depth: usize,
}

impl<'a> SegmentScan<'a> {
    pub(crate) fn new(
        backend: &dyn IoBackend,
        file: &Arc<dyn IoFile>,
        geometry: Geometry,
        base: Lsn,
        error: impl Fn(io::Error) -> OpenError + 'a,
    ) -> Result<SegmentScan<'a>, OpenError> {
        let io = backend.queue(SCAN_DEPTH).map_err(&error)?;
        Ok(SegmentScan {
            io,
            file: Arc::clone(file),
            geometry,
            base,
            error: Box::new(error),
            next_read: SEGMENT_HEADER_BYTES,
            next_taken: SEGMENT_HEADER_BYTES,
            early: BTreeMap::new(),
            bytes: Vec::new(),
            at: 0,
            unreadable: None,
            read_bytes: SCAN_READ_BYTES,
            depth: SCAN_DEPTH,
        })
    }

    /// From here on blocks that cannot be read count as zeros; [`SegmentScan::unreadable`] has them.
    pub(crate) fn tolerate(&mut self) {
        self.unreadable = Some(BTreeMap::new());
    }

    /// From here on reads are short, one at a time: others use the disk.
    pub(crate) fn be_gentle(&mut self) {
        (self.read_bytes, self.depth) = (to_usize(COLD_READ_BYTES), 1);
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
        debug_assert!(self.bytes.is_empty() && lsn >= self.base);
        (self.next_read, self.next_taken) = (aligned, aligned);
        let skip = to_usize(offset - aligned);
        self.need(skip)?;
        self.consume(skip);
        Ok(())
    }

    /// At least the next `count` bytes, as far as the segment has them (zeros are returned behind its end).
    pub(crate) fn need(&mut self, count: usize) -> Result<&[u8], OpenError> {
        while self.bytes.len() - self.at < count {
            if self.at > 4 * SCAN_READ_BYTES || self.at == self.bytes.len() {
                self.bytes.drain(..self.at);
                self.at = 0;
            }
            if self.next_taken >= self.geometry.segment_bytes {
                self.bytes.resize(self.at + count, 0);
                break;
            }
            self.read_more()?;
        }
        Ok(&self.bytes[self.at..])
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.bytes.len());
    }

    fn read_more(&mut self) -> Result<(), OpenError> {
        while self.io.in_flight() + self.early.len() < self.depth && self.next_read < self.geometry.segment_bytes {
            let len = to_u64(self.read_bytes).min(self.geometry.segment_bytes - self.next_read);
            let buf = AlignedBuf::zeroed(to_usize(len));
            self.io.submit(IoOp::read(self.next_read, Arc::clone(&self.file), self.next_read, buf));
            self.next_read += len;
        }
        let mut done = Vec::new();
        if !self.early.contains_key(&self.next_taken) {
            self.io.reap(Wait::One, &mut done);
        }
        for completion in done {
            let IoAction::Read { offset, mut buf } = completion.op.action else { continue };
            match (completion.result, &mut self.unreadable) {
                (Ok(()), _) => {}
                (Err(source), None) => return Err((self.error)(source)),
                (Err(_), Some(unreadable)) => read_blocks(&*self.file, offset, &mut buf, unreadable),
            }
            self.early.insert(offset, buf);
        }
        while let Some(buf) = self.early.remove(&self.next_taken) {
            self.next_taken += to_u64(buf.len());
            self.bytes.extend_from_slice(&buf);
        }
        Ok(())
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
