//! Any bytes for the decoder of what replicas tell each other.
//!
//! The first byte says whether checksums are set right, so that what lies behind them is reached; the second in which pieces all arrives.
#![no_main]

use anchorlog_replicator::message::{Decoder, FIELDS_BYTES_MAX, HEAD_BYTES, Item, Message, TAIL_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

/// Kinds whose fields end with a checksum of the bytes behind them: *seed piece* and *range answer*.
const CHECKED: [u8; 2] = [7, 10];

fuzz_target!(|input: &[u8]| {
    let Some(([mode, piece], bytes)) = input.split_first_chunk::<2>() else { return };
    let mut stream = bytes.to_vec();
    if mode & 1 == 1 {
        set_right(&mut stream);
    }
    let (mut decoder, mut read, mut log) = (Decoder::default(), Vec::new(), 0_usize);
    for piece in stream.chunks(usize::from(*piece) + 1) {
        let mut rest = piece;
        loop {
            match decoder.next(&mut rest) {
                Ok(Some(Item::Message(message))) => {
                    assert_eq!(log, 0, "a message in the middle of log bytes");
                    let written = message.encode();
                    assert!(written.len() <= HEAD_BYTES + FIELDS_BYTES_MAX + TAIL_BYTES_MAX);
                    if let Message::Data(data) = &message {
                        log = data.len as usize;
                    }
                    read.extend_from_slice(&written);
                }
                Ok(Some(Item::Log(bytes))) => {
                    assert!(!bytes.is_empty());
                    log = log.checked_sub(bytes.len()).expect("no more than was announced");
                    read.extend_from_slice(bytes);
                }
                Ok(None) => break,
                Err(_) => return written_back(&stream, &read),
            }
        }
        assert!(rest.is_empty(), "what is not an item yet is held");
        assert!(decoder.held_bytes() <= HEAD_BYTES + FIELDS_BYTES_MAX + TAIL_BYTES_MAX);
    }
    written_back(&stream, &read);
});

/// There is one way to write each message.
fn written_back(stream: &[u8], read: &[u8]) {
    assert!(stream.starts_with(read), "other bytes than were read");
}

/// Sets magic, version and checksums of all messages, as far as they can be followed.
fn set_right(mut rest: &mut [u8]) {
    while rest.len() >= HEAD_BYTES {
        rest[..5].copy_from_slice(b"ALRP\x01");
        let fields = usize::from(u16::from_le_bytes([rest[6], rest[7]]));
        let tail = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        let end = HEAD_BYTES + fields;
        if fields > FIELDS_BYTES_MAX || tail > TAIL_BYTES_MAX || end + tail > rest.len() {
            return;
        }
        if CHECKED.contains(&rest[5]) && fields >= 4 {
            let checksum = crc32fast::hash(&rest[end..end + tail]);
            rest[end - 4..end].copy_from_slice(&checksum.to_le_bytes());
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&rest[..12]);
        hasher.update(&rest[HEAD_BYTES..end]);
        rest[12..HEAD_BYTES].copy_from_slice(&hasher.finalize().to_le_bytes());
        rest = &mut rest[end + tail..];
    }
}
