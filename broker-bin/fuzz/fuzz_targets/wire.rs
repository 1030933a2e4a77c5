//! Any bytes for every reader of the protocol.
#![no_main]

use anchorlog::wire::body::Heartbeat;
use anchorlog::wire::header::Head;
use anchorlog::wire::message::{MessageId, properties, records};
use anchorlog::wire::{Encoding, FrameRef, Header, batch};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(frame)) = FrameRef::parse(bytes) {
        header(frame.encoding, frame.header);
        body(frame.body);
    }
    for encoding in [Encoding::Json, Encoding::Binary] {
        header(encoding, bytes);
    }
    body(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _count = properties(text).count();
        if let Ok(id) = text.parse::<MessageId>() {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
});

/// What can be read is written, and reads the same.
fn header(encoding: Encoding, bytes: &[u8]) {
    let Ok(read) = Header::decode(encoding, bytes) else { return };
    let head = Head {
        encoding,
        code: read.code,
        language: read.language,
        version: read.version,
        opaque: read.opaque,
        flag: read.flag,
        remark: read.remark(),
    };
    let mut out = BytesMut::new();
    let mut frame = head.encode(&mut out);
    if read.has_fields() {
        frame.fields();
    }
    for (name, value) in read.fields() {
        frame.field(name, value);
    }
    if frame.finish(b"").is_err() {
        assert!(out.is_empty());
        return;
    }
    let frame = FrameRef::parse(&out).expect("a frame").expect("a whole one");
    let again = Header::of(&frame).expect("good");
    assert_eq!((again.code, again.opaque, again.flag), (read.code, read.opaque, read.flag));
    assert_eq!(again.remark(), read.remark());
    assert!(again.fields().eq(read.fields()));
    for (name, _) in read.fields() {
        assert_eq!(again.field(name), read.field(name));
    }
}

fn body(bytes: &[u8]) {
    let _heartbeat = Heartbeat::decode(bytes);
    let mut out = BytesMut::new();
    for record in records(bytes).map_while(Result::ok) {
        // A record of the other form, or one with repaired text, may not fit the first form.
        if record.head.encode(&mut out, &record.topic, record.body, &[&record.properties]).is_ok() {
            let again = records(&out).next().expect("one").expect("good");
            assert_eq!((again.topic, again.body, again.properties), (record.topic, record.body, record.properties));
        }
        out.clear();
    }
    for entry in batch::entries(bytes).map_while(Result::ok) {
        if entry.encode(&mut out).is_ok() {
            assert_eq!(batch::entries(&out).next(), Some(Ok(entry)));
        }
        out.clear();
    }
}
