//! What do encoding and checksumming cost, and which checksum?
//!
//! Guards: CRC-32 by `crc32fast` over a whole record, computed outside the append lock; CRC-32C stands beside it because the polynomial
//! cannot be changed later without a new format version.

use anchorlog_benches::{SIZES, cpu_criterion, noise};
use anchorlog_engine::commitlog::frame::{self, FrameKind, FrameStamp, RecordEntry};
use anchorlog_engine::commitlog::record::{self, RecordKind, RecordParts};
use anchorlog_engine::{Epoch, Lsn, QueueOffset};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for size in [128, 256, 512, 1024, 2048, 4096, 16384] {
        let bytes = noise(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("crc32fast", size), |bench| {
            bench.iter(|| crc32fast::hash(black_box(&bytes)))
        });
        group
            .bench_function(BenchmarkId::new("crc32c", size), |bench| bench.iter(|| crc32c::crc32c(black_box(&bytes))));
    }
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    for size in SIZES {
        let payload = noise(size);
        let parts = RecordParts {
            kind: RecordKind::Append,
            name: b"topic\x000",
            incarnation: 0,
            tag: 7,
            keys: &[b"0123456789abcdef0123456789abcdef"],
            attributes: &[0; 40],
            payload: &[&payload],
        };
        group.throughput(Throughput::Bytes(size as u64));
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("encode and seal", size), |bench| {
            bench.iter(|| {
                out.clear();
                record::encode(&mut out, black_box(&parts));
                record::seal(&mut out, 80)
            });
        });
        group.bench_function(BenchmarkId::new("decode", size), |bench| {
            bench.iter(|| record::decode(black_box(&out)).is_ok());
        });
    }
    group.finish();
}

fn headers(criterion: &mut Criterion) {
    let stamp = FrameStamp {
        lsn: Lsn(4096),
        prev_crc: 1,
        epoch: Epoch { term: 1, run: 1 },
        store_time_ms: 1,
        durable_lsn: Lsn(0),
        acked_lsn: Lsn(0),
    };
    let entry = RecordEntry { len: 1024, crc: 7, queue_offset: QueueOffset(1) };
    let mut header = vec![0; frame::header_bytes(1)];
    let len = u32::try_from(header.len()).expect("a header is small") + entry.len;
    criterion.bench_function("frame header: encode", |bench| {
        bench.iter(|| {
            frame::encode_header(&mut header, FrameKind::Records, len, black_box(&stamp), [entry].into_iter())
        });
    });
    criterion.bench_function("frame header: decode", |bench| {
        bench.iter(|| frame::decode_header(black_box(&header), Lsn(4096)).is_ok());
    });
}

criterion_group! { name = benches; config = cpu_criterion(); targets = checksums, records, headers }
criterion_main!(benches);
