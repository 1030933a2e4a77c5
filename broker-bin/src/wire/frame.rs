//! Where one frame ends and the next begins.
//!
//! 1. Looking costs the same however much has arrived, so it may be repeated after every read.
//! 2. Nothing is allocated for a length that a peer merely announced.
//! 3. A stream with one bad frame is lost: whoever reads it closes the connection and never looks for the next frame.
//!
//! | Offset | Size | Field |
//! |---|---|---|
//! | 0 | i32 | bytes behind this word: 4 + header + body |
//! | 4 | u8 | serialization of the header: 0 JSON, 1 binary |
//! | 5 | u24 | header bytes |
//! | 8 | | header, then body |
//!
//! Source: wire notes, sections 1.1 and 1.5.

use bytes::{Bytes, BytesMut};

use crate::limits::FRAME_BYTES_MAX;

/// Bytes before the header: the length word and the header word.
pub const PREFIX_BYTES: usize = 8;
/// Largest header that its 24-bit length can announce.
pub const HEADER_BYTES_MAX: usize = (1 << 24) - 1;

/// How a frame's header is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Type 0: a JSON object. What every client sends unless told otherwise.
    #[default]
    Json,
    /// Type 1: the compact form that RocketMQ calls `ROCKETMQ`.
    Binary,
}

impl Encoding {
    /// The byte that announces it.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Encoding::Json => 0,
            Encoding::Binary => 1,
        }
    }
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length word announces more than a frame may have; it may be no length at all.
    #[error("frame announces {bytes} bytes, {FRAME_BYTES_MAX} are the most{}", hint(*bytes))]
    TooLong {
        /// What stands in the length word, read without a sign.
        bytes: u32,
    },
    /// The length word leaves no room for the header word.
    #[error("frame announces {bytes} bytes, fewer than its header word needs")]
    TooShort {
        /// What stands in the length word.
        bytes: u32,
    },
    /// The header is longer than the frame.
    #[error("header announces {header_bytes} bytes, the frame has room for {room_bytes}")]
    HeaderTooLong {
        /// What stands in the header word.
        header_bytes: u32,
        /// Bytes of the frame behind that word.
        room_bytes: u32,
    },
    /// The header is neither JSON nor binary.
    #[error("header has serialization {byte}; 0 and 1 are known")]
    UnknownEncoding {
        /// The byte that announces the serialization.
        byte: u8,
    },
}

/// What a stranger's first bytes may be, for the person who reads the log.
fn hint(length_word: u32) -> &'static str {
    match length_word.to_be_bytes() {
        [0x16, 3, ..] => " (this is how TLS begins)",
        [b'G', b'E', b'T', b' '] | [b'P', b'O', b'S', b'T'] | [b'H', b'E', b'A', b'D'] => " (this is how HTTP begins)",
        [b'P', b'R', b'I', b' '] => " (this is how HTTP/2 begins, which gRPC clients speak)",
        [b'P', b'R', b'O', b'X'] => " (this is how a PROXY protocol header begins)",
        _ => "",
    }
}

/// A whole frame that lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef<'a> {
    /// How the header is written.
    pub encoding: Encoding,
    /// The header.
    pub header: &'a [u8],
    /// The body; no bytes mean no body.
    pub body: &'a [u8],
}

impl<'a> FrameRef<'a> {
    /// Reads the frame that `bytes` begins with; `None` while some of it has not arrived.
    ///
    /// The next frame begins [`FrameRef::total_bytes`] further on.
    ///
    /// # Errors
    /// As soon as enough has arrived to tell that this is no frame. The stream cannot be used any more.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<FrameRef<'a>>, FrameError> {
        let Some(shape) = Shape::read(bytes)? else { return Ok(None) };
        if bytes.len() < shape.total_bytes {
            return Ok(None);
        }
        let (header, body) = bytes[PREFIX_BYTES..shape.total_bytes].split_at(shape.header_bytes);
        Ok(Some(FrameRef { encoding: shape.encoding, header, body }))
    }

    /// Bytes of the frame with its length word.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        PREFIX_BYTES + self.header.len() + self.body.len()
    }
}

/// A whole frame with bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// How the header is written.
    pub encoding: Encoding,
    /// The header.
    pub header: Bytes,
    /// The body; no bytes mean no body.
    pub body: Bytes,
}

impl Frame {
    /// Takes the first frame out of `buffer` without copying it; `None`, and nothing taken, while some of it has not arrived.
    ///
    /// # Errors
    /// As [`FrameRef::parse`].
    pub fn split(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(shape) = Shape::read(buffer)? else { return Ok(None) };
        if buffer.len() < shape.total_bytes {
            return Ok(None);
        }
        let mut rest = buffer.split_to(shape.total_bytes).freeze().split_off(PREFIX_BYTES);
        let header = rest.split_to(shape.header_bytes);
        Ok(Some(Frame { encoding: shape.encoding, header, body: rest }))
    }
}

/// Bytes of the frame that `bytes` begins with, its length word included; `None` before that is known.
///
/// For whoever sizes a buffer; grow it as bytes arrive, not to what is announced here.
///
/// # Errors
/// As [`FrameRef::parse`].
pub fn announced_bytes(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    Ok(Shape::read(bytes)?.map(|shape| shape.total_bytes))
}

struct Shape {
    encoding: Encoding,
    header_bytes: usize,
    total_bytes: usize,
}

impl Shape {
    /// Reads both words, and judges each as soon as it is there.
    fn read(bytes: &[u8]) -> Result<Option<Shape>, FrameError> {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        let total_bytes = 4 + length as usize;
        if total_bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { bytes: length });
        }
        if length < 4 {
            return Err(FrameError::TooShort { bytes: length });
        }
        let encoding = match rest.first() {
            None => return Ok(None),
            Some(0) => Encoding::Json,
            Some(1) => Encoding::Binary,
            Some(&byte) => return Err(FrameError::UnknownEncoding { byte }),
        };
        let Some(&[_, high, middle, low]) = rest.first_chunk::<4>() else { return Ok(None) };
        let header_bytes = u32::from_be_bytes([0, high, middle, low]);
        if header_bytes > length - 4 {
            return Err(FrameError::HeaderTooLong { header_bytes, room_bytes: length - 4 });
        }
        Ok(Some(Shape { encoding, header_bytes: header_bytes as usize, total_bytes }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(encoding: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(4 + header.len() + body.len()).expect("small").to_be_bytes().to_vec();
        let word = u32::from(encoding) << 24 | u32::try_from(header.len()).expect("small");
        bytes.extend(word.to_be_bytes());
        bytes.extend(header);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_torn_frame_is_waited_for_and_coalesced_frames_come_apart() {
        let stream = [frame(0, b"{}", b"one"), frame(1, b"", b""), frame(0, b"h", b"")].concat();
        for cut in 0..=stream.len() {
            let mut buffer = BytesMut::from(&stream[..cut]);
            let mut taken = Vec::new();
            while let Some(found) = Frame::split(&mut buffer).expect("good frames") {
                taken.push(found);
            }
            buffer.extend_from_slice(&stream[cut..]);
            while let Some(found) = Frame::split(&mut buffer).expect("good frames") {
                taken.push(found);
            }
            let bodies: Vec<_> = taken.iter().map(|frame| frame.body.as_ref()).collect();
            assert_eq!(bodies, [b"one".as_slice(), b"", b""]);
            assert_eq!(taken[1].encoding, Encoding::Binary);
            assert_eq!(taken[2].header.as_ref(), b"h");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_as_early_as_it_can_be_told() {
        let cases: [(&[u8], FrameError); 6] = [
            (&[2, 0, 0, 0], FrameError::TooLong { bytes: 0x0200_0000 }),
            (&[0xFF, 0xFF, 0xFF, 0xFF], FrameError::TooLong { bytes: u32::MAX }),
            (&[0x00, 0xFF, 0xFF, 0xFD], FrameError::TooLong { bytes: 0x00FF_FFFD }),
            (&[0, 0, 0, 3], FrameError::TooShort { bytes: 3 }),
            (&[0, 0, 0, 9, 7], FrameError::UnknownEncoding { byte: 7 }),
            (&[0, 0, 0, 9, 0, 0, 0, 6], FrameError::HeaderTooLong { header_bytes: 6, room_bytes: 5 }),
        ];
        for (bytes, error) in cases {
            assert_eq!(FrameRef::parse(bytes), Err(error), "{bytes:?}");
            assert_eq!(FrameRef::parse(&bytes[..bytes.len() - 1]), Ok(None), "{bytes:?}");
        }
        assert!(FrameError::TooLong { bytes: 0x1603_0102 }.to_string().contains("TLS"));
    }

    #[test]
    fn the_largest_frame_is_taken() {
        let length = u32::try_from(FRAME_BYTES_MAX - 4).expect("small");
        assert_eq!(announced_bytes(&[&length.to_be_bytes()[..], &[0; 4]].concat()), Ok(Some(FRAME_BYTES_MAX)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error_or_too_few(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(found)) = FrameRef::parse(&bytes) {
                prop_assert!(found.total_bytes() <= bytes.len());
                let mut buffer = BytesMut::from(&bytes[..]);
                let owned = Frame::split(&mut buffer).expect("a frame").expect("a whole one");
                prop_assert_eq!(owned.header.as_ref(), found.header);
                prop_assert_eq!(owned.body.as_ref(), found.body);
                prop_assert_eq!(buffer.as_ref(), &bytes[found.total_bytes()..]);
            }
        }
    }
}
