//! A log on a simulated disk, to be damaged; and what it must still hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::commitlog::frame::{self, FrameHeader, FrameKind, FrameStamp, RecordEntry};
use anchorlog_engine::commitlog::manifest::{MANIFEST_NAME, Manifest};
use anchorlog_engine::commitlog::record::{self, RecordKind, RecordParts};
use anchorlog_engine::commitlog::segment::{SegmentHeader, file_name};
use anchorlog_engine::epoch::{EpochHistory, EpochStart};
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::io::{AlignedBuf, OpenMode};
use anchorlog_engine::{
    Append, Engine, EngineOptions, Epoch, Fetch, FetchStatus, Lsn, OpenError, Put, QueueOffset, ReadError, WriteBatch,
};

pub(crate) const DIR: &str = "/log";
/// The derived store's file.
pub(crate) const DERIVED: &str = "DERIVED";
pub(crate) const SEGMENT: u64 = 64 << 10;
pub(crate) const DATA: u64 = SEGMENT - 4096;

pub(crate) fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(SEGMENT)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_manual_drive()
}

pub(crate) fn open(disk: &SimDisk) -> Result<Engine, OpenError> {
    Engine::open_with(disk.backend(), Arc::new(SimClock::default()), Path::new(DIR), options())
}

/// Bodies by queue and offset.
pub(crate) type Messages = BTreeMap<(String, u64), Vec<u8>>;

pub(crate) fn append(engine: &Engine, name: &str, body: &[u8], messages: &mut Messages) {
    let queue = engine.queue(name.as_bytes()).unwrap();
    let mut batch = WriteBatch::new();
    batch.append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[body] }).unwrap();
    let outcome = loop {
        if let Ok(ticket) = engine.try_append(&mut batch) {
            break ticket.outcome().clone();
        }
        engine.step();
    };
    messages.insert((name.to_owned(), outcome.first.queue_offset.0), body.to_vec());
}

pub(crate) fn contents(engine: &Engine) -> Messages {
    try_contents(engine).unwrap()
}

pub(crate) fn try_contents(engine: &Engine) -> Result<Messages, ReadError> {
    let mut found = Messages::new();
    for queue in engine.queues() {
        let name = String::from_utf8(queue.name().to_vec()).unwrap();
        let mut next = engine.range(&queue).min;
        loop {
            let fetch = Fetch {
                queue: &queue,
                from: next,
                messages_max: 100,
                bytes_max: 1 << 20,
                scan_max: 100,
                from_disk: true,
                matches: &|_| true,
            };
            let fetched = engine.fetch(&fetch)?;
            if fetched.status == FetchStatus::AtEnd {
                break;
            }
            for message in fetched.messages {
                found.insert((name.clone(), message.queue_offset.0), message.payload().to_vec());
            }
            next = fetched.next;
        }
    }
    Ok(found)
}

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

pub(crate) fn segment(number: u64) -> PathBuf {
    path(&file_name(Lsn(number * DATA)))
}

/// The name of a segment that is kept for survivors.
pub(crate) fn sparse(number: u64) -> PathBuf {
    path(&format!("{:020}.sparse", number * DATA))
}

/// Two runs in three segments, closed in order; and what was acknowledged.
pub(crate) struct Log {
    pub(crate) disk: SimDisk,
    pub(crate) messages: Messages,
}

/// A frame as it stands in a log.
#[derive(Clone)]
pub(crate) struct Placed {
    pub(crate) header: FrameHeader,
    /// The file, and where in it.
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
}

/// Steps until the log is idle and its last mark written.
fn idle(engine: &Engine, clock: &SimClock) {
    for _ in 0..40 {
        engine.step();
        clock.advance(Duration::from_millis(5));
    }
}

impl Log {
    /// Without a derived store: the log alone has to do.
    pub(crate) fn new() -> Log {
        Log::build(7, &options().with_checkpoint_interval(None))
    }

    /// With one that goes to the log's end.
    pub(crate) fn checkpointed() -> Log {
        let log = Log::build(7, &options());
        assert!(log.disk.read(&path(DERIVED)).is_some(), "the last run ended with a checkpoint");
        log
    }

    pub(crate) fn build(seed: u64, options: &EngineOptions) -> Log {
        let mut messages = Messages::new();
        let disk = SimDisk::new(seed);
        for run in 0..2_u8 {
            let clock = Arc::new(SimClock::default());
            let engine =
                Engine::open_with(disk.backend(), Arc::<SimClock>::clone(&clock), Path::new(DIR), options.clone())
                    .unwrap();
            for number in 0..11_u8 {
                append(&engine, &format!("queue-{}", number % 2), &vec![b'a' + run * 11 + number; 6000], &mut messages);
                engine.step();
                engine.step();
            }
            idle(&engine, &clock);
            engine.close().unwrap();
        }
        let log = Log { disk: disk.crash_with(1, Survival::Everything), messages };
        assert!(log.frames().last().unwrap().path == segment(2), "three segments are in use");
        assert!(log.disk.read(&segment(3)).is_some(), "and one is prepared");
        log
    }

    /// Another run, with these messages and a table entry by the name of each one's first letters; a mark before the next. Closed in order,
    /// with a checkpoint.
    pub(crate) fn go_on(self, bodies: &[(&str, &[u8])]) -> Log {
        let Log { disk, mut messages } = self;
        let clock = Arc::new(SimClock::default());
        let engine =
            Engine::open_with(disk.backend(), Arc::<SimClock>::clone(&clock), Path::new(DIR), options()).unwrap();
        for (name, body) in bodies {
            append(&engine, name, body, &mut messages);
            let mut batch = WriteBatch::new();
            batch.put(&Put { key: &body[..8], value: b"there", target: None }).unwrap();
            engine.try_append(&mut batch).map(drop).unwrap();
            idle(&engine, &clock);
        }
        engine.close().unwrap();
        Log { disk: disk.crash_with(1, Survival::Everything), messages }
    }

    /// The log without its last message and what follows; and where that began.
    pub(crate) fn without_last_message(mut self) -> (Log, Lsn) {
        let last = self.messages_in(2).pop().unwrap();
        let zeros = vec![0; usize::try_from(SEGMENT - last.offset).unwrap()];
        self.disk.overwrite(&last.path, last.offset, &zeros);
        let newest = self.messages.keys().rfind(|(name, _)| name == "queue-0").cloned().unwrap();
        self.messages.remove(&newest).unwrap();
        (self, last.header.lsn)
    }

    /// Gives a segment the name of one that is kept for survivors.
    pub(crate) fn sparse(&self, number: u64) {
        let backend = self.disk.backend();
        backend.rename(&segment(number), &sparse(number)).unwrap();
        backend.sync_dir(Path::new(DIR)).unwrap();
    }

    /// The same, under another derived store.
    pub(crate) fn with_derived(self, bytes: &[u8]) -> Log {
        self.disk.lose(&path(DERIVED));
        self.make_file(&path(DERIVED), bytes);
        self
    }

    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.disk.read(path).unwrap()
    }

    pub(crate) fn manifest(&self) -> Manifest {
        Manifest::decode(&self.bytes(&path(MANIFEST_NAME))).unwrap()
    }

    pub(crate) fn store_manifest(&self, manifest: &Manifest) {
        manifest.store(&*self.disk.backend(), Path::new(DIR), true).unwrap();
    }

    /// Every frame from the start to the end.
    pub(crate) fn frames(&self) -> Vec<Placed> {
        let mut frames: Vec<Placed> = Vec::new();
        for number in 0.. {
            let path = segment(number);
            let Some(bytes) = self.disk.read(&path) else { break };
            let mut at = 4096;
            while at + 64 <= bytes.len() {
                let lsn = Lsn(number * DATA + u64::try_from(at - 4096).unwrap());
                let Ok(header) = frame::decode_header(&bytes[at..], lsn) else { return frames };
                let len = usize::try_from(header.frame_len).unwrap();
                frames.push(Placed { header, path: path.clone(), offset: u64::try_from(at).unwrap() });
                at += len;
            }
        }
        frames
    }

    /// The frames with a message of the given segment.
    pub(crate) fn messages_in(&self, number: u64) -> Vec<Placed> {
        let frames = self.frames().into_iter();
        frames.filter(|frame| frame.path == segment(number) && frame.header.frame_len > 6000).collect()
    }

    /// A frame that goes on where the log ends, with one message of "queue-0" that was never acknowledged. `change` may alter stamp,
    /// record kind and queue offset.
    pub(crate) fn forge(&self, change: impl FnOnce(&mut FrameStamp, &mut u8, &mut u64)) -> (Placed, Vec<u8>) {
        let last = self.frames().pop().unwrap();
        self.forge_behind(&last, change)
    }

    pub(crate) fn forge_behind(
        &self,
        last: &Placed,
        change: impl FnOnce(&mut FrameStamp, &mut u8, &mut u64),
    ) -> (Placed, Vec<u8>) {
        let end = last.header.lsn.plus(u64::from(last.header.frame_len));
        let mut stamp = FrameStamp {
            lsn: end,
            prev_crc: last.header.header_crc,
            epoch: last.header.epoch,
            store_time_ms: last.header.store_time_ms,
            durable_lsn: last.header.lsn,
            acked_lsn: last.header.lsn,
        };
        let mut kind = 1;
        let mut offset = u64::try_from(self.messages.keys().filter(|(name, _)| name == "queue-0").count()).unwrap();
        change(&mut stamp, &mut kind, &mut offset);
        let mut body = Vec::new();
        let parts = RecordParts {
            kind: RecordKind::Append,
            name: b"queue-0",
            incarnation: 0,
            tag: 1,
            keys: &[],
            attributes: b"",
            payload: &[&[b'!'; 3000]],
        };
        record::encode(&mut body, &parts);
        body[12] = kind;
        let crc = record::seal(&mut body, 80);
        let mut bytes = vec![0; 80];
        let len = u32::try_from(80 + body.len()).unwrap();
        let entry = RecordEntry { len: len - 80, crc, queue_offset: QueueOffset(offset) };
        frame::encode_header(&mut bytes, FrameKind::Records, len, &stamp, [entry].into_iter());
        bytes.extend_from_slice(&body);
        // A frame that claims another place is decoded as what it claims.
        let header = frame::decode_header(&bytes, stamp.lsn).unwrap();
        let placed = Placed { header, path: last.path.clone(), offset: last.offset + u64::from(last.header.frame_len) };
        assert!(placed.offset + u64::from(len) < SEGMENT, "it fits the segment");
        (placed, bytes)
    }

    pub(crate) fn plant(&self, (placed, bytes): &(Placed, Vec<u8>)) {
        self.disk.overwrite(&placed.path, placed.offset, bytes);
    }

    pub(crate) fn make_file(&self, path: &Path, bytes: &[u8]) {
        let backend = self.disk.backend();
        let file = backend.open(path, OpenMode::CreateNew).unwrap();
        let buf = AlignedBuf::padded(bytes);
        file.allocate(u64::try_from(buf.len()).unwrap()).unwrap();
        file.write_at(&buf, 0, true).unwrap();
        file.sync().unwrap();
        backend.sync_dir(Path::new(DIR)).unwrap();
    }

    pub(crate) fn header(&self, number: u64) -> SegmentHeader {
        let manifest = self.manifest();
        SegmentHeader { store_id: manifest.store_id, geometry: manifest.geometry, base: Lsn(number * DATA) }
    }

    /// The same log, but written by one run whose frames carry no mark.
    pub(crate) fn without_marks(self) -> Log {
        let mut manifest = self.manifest();
        let epoch = Epoch { term: 1, run: 2 };
        manifest.history = EpochHistory::default();
        manifest.history.push(EpochStart { epoch, first_lsn: Lsn(0) });
        self.store_manifest(&manifest);
        let mut prev_crc = 0;
        for Placed { header, path, offset } in &self.frames() {
            let at = usize::try_from(*offset).unwrap();
            let bytes = self.bytes(path);
            let count = usize::from(header.record_count);
            let stamp = FrameStamp {
                lsn: header.lsn,
                prev_crc,
                epoch,
                store_time_ms: header.store_time_ms,
                durable_lsn: Lsn(0),
                acked_lsn: Lsn(0),
            };
            let mut out = vec![0; frame::header_bytes(count)];
            let entries: Vec<_> = frame::entries(&bytes[at..], header.record_count).collect();
            prev_crc = frame::encode_header(&mut out, header.kind, header.frame_len, &stamp, entries.into_iter());
            self.disk.overwrite(path, *offset, &out);
        }
        self
    }
}

/// All files but the lock and the derived store, with their bytes.
pub(crate) fn image(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files().into_iter().filter(|path| !path.ends_with("LOCK") && !path.ends_with(DERIVED));
    files.map(|path| (path.clone(), disk.read(&path).unwrap())).collect()
}
