//! What does it cost to understand a request and to write its answer, in both header encodings?
//!
//! Guards: a decoder of our own that borrows, instead of a generic JSON tree: at half a million requests a second each microsecond is half
//! a core.

use anchorlog::wire::Encoding;
use anchorlog::wire::frame::FrameRef;
use anchorlog::wire::header::{Head, Header};
use anchorlog_benches::{cpu_criterion, noise};
use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;

fn send_request(encoding: Encoding) -> BytesMut {
    let mut out = BytesMut::new();
    let mut frame = Head::request(encoding, 310, 17).encode(&mut out);
    for (name, value) in [
        ("a", "producer-group"),
        ("b", "topic-of-usual-length"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "3"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", "UNIQ_KEY\u{1}7F0000010B8C18B4AAC21A2B3C4D0000\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}"),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ] {
        frame.field(name, value);
    }
    frame.finish(&noise(1024)).expect("it fits a frame");
    out
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode a send request");
    for encoding in [Encoding::Json, Encoding::Binary] {
        let bytes = send_request(encoding);
        group.bench_function(BenchmarkId::from_parameter(format!("{encoding:?}")), |bench| {
            bench.iter(|| {
                let frame = FrameRef::parse(black_box(&bytes)).expect("sound").expect("whole");
                let header = Header::of(&frame).expect("sound");
                header.field("b").map(str::len)
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode a send answer");
    for encoding in [Encoding::Json, Encoding::Binary] {
        let mut out = BytesMut::with_capacity(4096);
        group.bench_function(BenchmarkId::from_parameter(format!("{encoding:?}")), |bench| {
            bench.iter(|| {
                out.clear();
                let mut frame = Head::response(encoding, 0, black_box(17)).encode(&mut out);
                frame
                    .field("msgId", "7F00000100002A9F0000000000001000")
                    .number("queueId", 3)
                    .number("queueOffset", 123_456);
                frame.finish(&[]).expect("it fits a frame");
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = cpu_criterion(); targets = decode, encode }
criterion_main!(benches);
