//! Are the bytes on disk still the bytes? Each fixture was written once by version 1 of its format (`engine/docs/format.md`).
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::path::Path;
use std::sync::Arc;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::commitlog::frame::{self, FrameKind, FrameStamp, RecordEntry};
use anchorlog_engine::commitlog::manifest::Manifest;
use anchorlog_engine::commitlog::record::{self, RecordKind, RecordParts};
use anchorlog_engine::commitlog::segment::{Geometry, SegmentHeader};
use anchorlog_engine::epoch::{EpochHistory, EpochStart};
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::replica::{Promise, SideBlock};
use anchorlog_engine::{Append, Engine, EngineOptions, Epoch, Link, Lsn, Put, QueueOffset, Tail, WriteBatch};

/// Hex digits, blanks and line ends left out; `#` begins a comment.
fn fixture(text: &str) -> Vec<u8> {
    let digits: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap())
        .flat_map(str::chars)
        .filter(char::is_ascii_hexdigit)
        .collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn check(name: &str, written: &[u8], text: &str) {
    let lines: Vec<String> =
        written.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    assert_eq!(written, fixture(text), "{name} would now be written as\n{}", lines.join("\n"));
}

fn frame() -> Vec<u8> {
    let mut body = Vec::new();
    record::encode(
        &mut body,
        &RecordParts {
            kind: RecordKind::Append,
            name: b"orders/0",
            incarnation: 0,
            tag: 2_598_919,
            keys: &[b"order-17"],
            attributes: b"\x01\x02",
            payload: &[b"three ", b"anchors"],
        },
    );
    let crc = record::seal(&mut body, u32::try_from(frame::header_bytes(1)).unwrap());
    let mut out = vec![0; frame::header_bytes(1)];
    let len = u32::try_from(body.len()).unwrap();
    let stamp = FrameStamp {
        lsn: Lsn(4096),
        prev_crc: 0x1234_5678,
        epoch: Epoch { term: 1, run: 2 },
        store_time_ms: 1_700_000_000_005,
        durable_lsn: Lsn(4000),
        acked_lsn: Lsn(3992),
    };
    let entries = [RecordEntry { len, crc, queue_offset: QueueOffset(9) }];
    let frame_len = u32::try_from(out.len()).unwrap() + len;
    frame::encode_header(&mut out, FrameKind::Records, frame_len, &stamp, entries.into_iter());
    out.extend_from_slice(&body);
    out
}

fn geometry() -> Geometry {
    Geometry { segment_bytes: 64 << 20, tail: Tail::Rewrite }
}

#[test]
fn a_frame_is_written_and_read_as_ever() {
    let text = include_str!("../../fixtures/log/frame-v1.hex");
    check("a frame", &frame(), text);
    let bytes = fixture(text);
    let header = frame::decode_header(&bytes, Lsn(4096)).unwrap();
    assert_eq!((header.epoch, header.durable_lsn), (Epoch { term: 1, run: 2 }, Lsn(4000)));
    let record = record::decode(&bytes[frame::header_bytes(1)..]).unwrap();
    assert_eq!((record.name, record.payload), (&b"orders/0"[..], &b"three anchors"[..]));
}

#[test]
fn a_segment_header_is_written_and_read_as_ever() {
    let text = include_str!("../../fixtures/log/segment-header-v1.hex");
    let header = SegmentHeader {
        store_id: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        geometry: geometry(),
        base: Lsn(67_104_768),
    };
    check("a segment header", &header.encode()[..64], text);
}

#[test]
fn a_manifest_is_written_and_read_as_ever() {
    let text = include_str!("../../fixtures/log/manifest-v1.hex");
    let mut history = EpochHistory::default();
    history.push(EpochStart { epoch: Epoch { term: 1, run: 1 }, first_lsn: Lsn(0) });
    history.push(EpochStart { epoch: Epoch { term: 1, run: 2 }, first_lsn: Lsn(4096) });
    let store_id = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
    let manifest = Manifest { store_id, geometry: geometry(), start: Lsn(0), history };
    check("a manifest", &manifest.encode()[..96], text);
    assert_eq!(Manifest::decode(&fixture(text)), Ok(manifest));
}

#[test]
fn a_side_block_and_a_promise_are_written_and_read_as_ever() {
    let text = include_str!("../../fixtures/log/side-block-v1.hex");
    let store_id = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
    let epoch = Epoch { term: 1, run: 2 };
    let (durable, acked, seeded_to) = (Lsn(4096), Lsn(4000), Lsn(72));
    let block = SideBlock { store_id, number: 5, epoch, durable, acked, seeded_to };
    check("a side block", &block.encode()[..80], text);
    assert_eq!(SideBlock::decode(&fixture(text)), Some(block));
    let text = include_str!("../../fixtures/log/promise-v1.hex");
    let promise = Promise { term: 3, to: b"node-2".to_vec() };
    check("a promise", &promise.encode()[..32], text);
    assert_eq!(Promise::decode(&fixture(text)), Some(promise));
}

/// One batch with every kind of operation, as the engine puts it on the disk.
fn batch_frame() -> Vec<u8> {
    let disk = SimDisk::new(1);
    let clock = Arc::new(SimClock::default());
    let options = EngineOptions::default().with_segment_bytes(64 << 10).with_manual_drive();
    let options = options.with_buffer_bytes(64 << 10).with_cache_bytes(96 << 10).with_chunk_bytes(16 << 10);
    let engine = Engine::open_with(disk.backend(), clock, Path::new("/log"), options).unwrap();
    let mut batch = WriteBatch::new();
    let (half, orders) = (engine.queue(b"half/0").unwrap(), engine.queue(b"orders/0").unwrap());
    let append =
        Append { queue: &half, tag: 7, keys: &[b"order-17"], attributes: b"\x01", payload: &[b"three anchors"] };
    let message = batch.append(&append).unwrap();
    let target = message.into();
    batch.link(&Link { queue: &orders, target, tag: 9, keys: &[b"order-17"], attributes: b"\x02" }).unwrap();
    batch.put(&Put { key: b"txn/17", value: b"committed", target: Some(target) }).unwrap();
    batch.put(&Put { key: b"offset/1", value: b"\x05", target: None }).unwrap();
    batch.delete(b"due/17").unwrap();
    batch.drop_queue(&half).unwrap();
    let outcome = engine.try_append(&mut batch).unwrap().outcome().clone();
    while engine.watermarks().durable < outcome.end_lsn {
        engine.step();
    }
    let segment = disk.read(Path::new("/log/00000000000000000000.seg")).unwrap();
    let at = |lsn: Lsn| usize::try_from(4096 + lsn.0).unwrap();
    segment[at(outcome.lsn)..at(outcome.end_lsn)].to_vec()
}

#[test]
fn every_operation_is_written_as_ever() {
    check("a batch", &batch_frame(), include_str!("../../fixtures/log/batch-v1.hex"));
}
