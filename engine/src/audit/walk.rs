//! From frame to frame through a log, over damaged places.
//!
//! Behind a place that holds no whole frame, the next one is looked for at every multiple of 8: a frame names its own position and epoch,
//! so nothing else passes for one.

use std::ops::ControlFlow;
use std::path::Path;

use crate::audit::files::{LogFiles, Trouble};
use crate::commitlog::frame::{self, FrameError, FrameHeader, RecordEntry};
use crate::commitlog::record::{self, Record};
use crate::commitlog::segment::file_name;
use crate::error::OpenError;
use crate::fault;
use crate::io::IoBackend;
use crate::recovery::scan::SegmentScan;
use crate::recovery::{HEAD_BYTES, RecordFault, record_fault};
use crate::units::{Epoch, Lsn, to_u64, to_usize};

const HEADER: u64 = to_u64(frame::FRAME_HEADER_BYTES);

/// A place without the frame that should be there.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) lsn: Lsn,
    /// The next whole frame of the same segment.
    pub(crate) resumes: Option<Lsn>,
    pub(crate) trouble: Trouble,
    /// The whole file is missing or foreign.
    pub(crate) is_file: bool,
    /// The bytes are as they were written: no torn write leaves this.
    pub(crate) is_form: bool,
    /// Who wrote it, where its header is whole.
    pub(crate) epoch: Option<Epoch>,
    /// The last chain value before it, where it is known.
    pub(crate) prev_crc: Option<u32>,
}

/// What a walk meets.
pub(crate) enum Step<'a> {
    /// A whole frame with whole records.
    Frame(&'a FrameHeader, &'a [u8]),
    Broken(Broken),
}

pub(crate) struct Walk<'a> {
    log: &'a LogFiles<'a>,
    /// The chain value that the next frame must carry; `None` where it is taken as given.
    prev_crc: Option<u32>,
}

/// A frame that is not whole.
struct Fault {
    trouble: Trouble,
    /// Where the next one may begin.
    next: Lsn,
    is_form: bool,
    epoch: Option<Epoch>,
}

impl<'a> Walk<'a> {
    /// A walk whose first frame must follow `prev_crc`, if that is known.
    pub(crate) fn new(log: &'a LogFiles<'a>, prev_crc: Option<u32>) -> Walk<'a> {
        Walk { log, prev_crc }
    }

    /// Visits everything from `from`, a frame's first byte, to where no file is left; that is the last broken place.
    pub(crate) fn run(
        &mut self,
        from: Lsn,
        visit: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), OpenError> {
        let geometry = self.log.manifest.geometry;
        let last = self.last()?;
        let mut at = from;
        loop {
            let flow = match self.log.file(at) {
                Ok(_) => self.segment(at, visit)?,
                Err(trouble) => {
                    let prev_crc = self.prev_crc.take();
                    let broken = Broken {
                        lsn: at,
                        resumes: None,
                        trouble,
                        is_file: true,
                        is_form: false,
                        epoch: None,
                        prev_crc,
                    };
                    visit(Step::Broken(broken))
                }
            };
            let is_last = last.is_none_or(|last| geometry.base(at) > last);
            if flow.is_break() || is_last {
                return Ok(());
            }
            at = geometry.segment_end(at);
        }
    }

    /// The last segment that there is to look at. Files behind a gap of which none holds a frame were only prepared, or are in the way:
    /// the log does not reach there, however far that is.
    fn last(&self) -> Result<Option<Lsn>, OpenError> {
        let (geometry, start) = (self.log.manifest.geometry, self.log.manifest.start);
        let bases: Vec<Lsn> = self.log.segments.keys().rev().copied().collect();
        if self.log.is_open {
            return Ok(bases.first().copied());
        }
        for run in bases.chunk_by(|base, before| geometry.segment_end(*before) == *base) {
            let mut is_reached = run.last() == Some(&start);
            for base in run {
                is_reached = is_reached || self.holds_frames(*base)?;
            }
            if is_reached {
                return Ok(run.first().copied());
            }
        }
        Ok(None)
    }

    /// Whether a whole frame begins where opening looks for one.
    fn holds_frames(&self, base: Lsn) -> Result<bool, OpenError> {
        if self.log.file(base).is_err() {
            return Ok(false);
        }
        let mut holds = false;
        let _flow = Walk::new(self.log, None).segment(base, &mut |step| {
            holds = match step {
                Step::Frame(..) => true,
                Step::Broken(broken) => broken.resumes.is_some(),
            };
            ControlFlow::Break(())
        })?;
        Ok(holds)
    }

    fn segment(
        &mut self,
        from: Lsn,
        visit: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, OpenError> {
        let geometry = self.log.manifest.geometry;
        let (base, end) = (geometry.base(from), geometry.segment_end(from));
        let mut scan = scan(self.log, from)?;
        let mut at = from;
        let mut holds_frames = from != base;
        while end.since(at) >= HEADER {
            match self.check(&mut scan, at)? {
                Ok(header) => {
                    let len = u64::from(header.frame_len);
                    let bytes = &scan.need(to_usize(len))?[..to_usize(len)];
                    let flow = visit(Step::Frame(&header, bytes));
                    if flow.is_break() {
                        return Ok(flow);
                    }
                    scan.consume(to_usize(len));
                    self.prev_crc = Some(header.header_crc);
                    holds_frames = true;
                    at = at.plus(len);
                }
                Err(Fault { mut trouble, next, is_form, epoch }) => {
                    let mut look = at;
                    let mut step = next.since(at);
                    let resumes = loop {
                        scan.need(to_usize(step))?;
                        scan.consume(to_usize(step));
                        look = look.plus(step);
                        if end.since(look) < HEADER || (!holds_frames && look.since(base) >= HEAD_BYTES) {
                            break None;
                        }
                        if self.header(&mut scan, look)?.is_ok() {
                            break Some(look);
                        }
                        step = frame::FRAME_ALIGN;
                    };
                    let to = resumes.unwrap_or(end).since(base) + geometry.file_offset(base);
                    if let Some(why) = scan.unreadable(geometry.file_offset(at), to) {
                        trouble.found = format!("{} where reading failed: {why}", trouble.found);
                    }
                    let prev_crc = self.prev_crc.take();
                    let broken = Broken { lsn: at, resumes, trouble, is_file: false, is_form, epoch, prev_crc };
                    let flow = visit(Step::Broken(broken));
                    if flow.is_break() {
                        return Ok(flow);
                    }
                    let Some(resumes) = resumes else { break };
                    at = resumes;
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A whole header of this place and its epoch; or what does not fit, and whether that is its form.
    fn header(&self, scan: &mut SegmentScan<'_>, at: Lsn) -> Result<Result<FrameHeader, (Trouble, bool)>, OpenError> {
        let trouble = |found: FrameError| {
            let is_form = found.is_form();
            (Trouble { expected: "a frame".to_owned(), found: found.to_string() }, is_form)
        };
        let need = match frame::header_bytes_needed(scan.need(frame::FRAME_HEADER_BYTES)?) {
            Ok(need) => need,
            Err(error) => return Ok(Err(trouble(error))),
        };
        let bytes = scan.need(need)?;
        Ok(frame::decode_header(bytes, at).map_err(trouble).and_then(|header| match self.log.manifest.history.at(at) {
            Some(epoch) if epoch != header.epoch => {
                let expected = format!("a frame of epoch {epoch}");
                Err((Trouble { expected, found: format!("one of epoch {}", header.epoch) }, false))
            }
            _ => Ok(header),
        }))
    }

    /// The frame at `at` with all that belongs to it.
    fn check(&self, scan: &mut SegmentScan<'_>, at: Lsn) -> Result<Result<FrameHeader, Fault>, OpenError> {
        let nothing = at.plus(frame::FRAME_ALIGN);
        let header = match self.header(scan, at)? {
            Ok(header) => header,
            Err((trouble, is_form)) => return Ok(Err(Fault { trouble, next: nothing, is_form, epoch: None })),
        };
        let next = at.plus(u64::from(header.frame_len));
        let fault = |expected: String, found: String, next: Lsn, is_form: bool| {
            Ok(Err(Fault { trouble: Trouble { expected, found }, next, is_form, epoch: Some(header.epoch) }))
        };
        if next > self.log.manifest.geometry.segment_end(at) {
            return fault(
                "a frame within its segment".into(),
                format!("one of {} bytes", header.frame_len),
                nothing,
                false,
            );
        }
        if let Some(prev_crc) = self.prev_crc
            && prev_crc != header.prev_crc
        {
            let found = format!("one that follows {:#010x}", header.prev_crc);
            return fault(format!("a frame that follows {prev_crc:#010x}"), found, next, false);
        }
        match record_fault(scan.need(to_usize(u64::from(header.frame_len)))?, &header, fault::Broken::default()) {
            None => Ok(Ok(header)),
            Some(RecordFault::Damaged(found)) => fault("whole records".into(), found, next, false),
            Some(RecordFault::UnknownForm(found)) => fault("records of a known form".into(), found, next, true),
        }
    }
}

fn scan<'a>(log: &'a LogFiles<'a>, from: Lsn) -> Result<SegmentScan<'a>, OpenError> {
    let geometry = log.manifest.geometry;
    let base = geometry.base(from);
    let path = log.dir.join(file_name(base));
    let file = log.file(from).expect("the caller looked");
    let mut scan = SegmentScan::new(log.backend, file, geometry, base, move |source| OpenError::Io {
        what: "reading",
        path: path.clone(),
        source,
    })?;
    scan.tolerate();
    if log.is_open {
        scan.be_gentle();
    }
    if from != base {
        scan.skip_to(from)?;
    }
    Ok(scan)
}

/// One line of a dump.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A whole frame; its records follow.
    Frame {
        /// Its header.
        header: &'a FrameHeader,
    },
    /// A record of the frame before.
    Record {
        /// Where it begins.
        lsn: Lsn,
        /// What the frame's header says of it.
        entry: RecordEntry,
        /// What it says itself.
        record: Record<'a>,
    },
    /// A place that holds no whole frame, though whole ones follow.
    Broken {
        /// Where it begins.
        lsn: Lsn,
        /// The next whole frame.
        resumes: Lsn,
        /// What does not fit.
        trouble: Trouble,
    },
}

/// Shows `visit` up to `count` frames, the first of which begins at `from` or behind it, with their records.
///
/// # Errors
/// When the log cannot be read at all.
pub fn dump(
    backend: &dyn IoBackend,
    dir: &Path,
    from: Lsn,
    count: u64,
    visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
) -> Result<(), OpenError> {
    let log = LogFiles::open(backend, dir)?;
    let mut left = count;
    let mut pending: Vec<Broken> = Vec::new();
    let start = log.manifest.geometry.base(from.max(log.manifest.start));
    Walk::new(&log, None).run(start, &mut |step| {
        let (header, bytes) = match step {
            // What no frame follows is the end of the log, or a torn tail.
            Step::Broken(broken) => {
                pending.push(broken);
                return ControlFlow::Continue(());
            }
            Step::Frame(header, bytes) => (header, bytes),
        };
        for broken in pending.drain(..).filter(|broken| broken.lsn >= from) {
            visit(Item::Broken { lsn: broken.lsn, resumes: header.lsn, trouble: broken.trouble })?;
        }
        if header.lsn < from {
            return ControlFlow::Continue(());
        }
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        visit(Item::Frame { header })?;
        for (lsn, entry, record) in record::of_frame(header, bytes) {
            visit(Item::Record { lsn, entry, record })?;
        }
        ControlFlow::Continue(())
    })
}
