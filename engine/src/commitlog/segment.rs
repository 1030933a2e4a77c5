//! One segment file: where an LSN lies in it, and the header that says whose it is.
//!
//! The header is written before the segment's epoch is known, so it holds none; the first frame behind it does.

use crate::io::AlignedBuf;
use crate::io::IO_ALIGN;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::options::Tail;
use crate::units::{Lsn, to_usize};

/// First word of a segment file: `ALSG`.
pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"ALSG");
/// Version of the segment header.
pub const SEGMENT_VERSION: u32 = 1;

const HEADER_FIELDS: usize = 52;

/// What is fixed when a log is created and shapes its LSN space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a segment file, header included.
    pub segment_bytes: u64,
    /// What happens to a commit's last block.
    pub tail: Tail,
}

impl Geometry {
    /// Bytes of the log in one segment.
    #[must_use]
    pub const fn data_bytes(&self) -> u64 {
        self.segment_bytes - SEGMENT_HEADER_BYTES
    }

    /// First LSN of the segment that holds `lsn`.
    #[must_use]
    pub const fn base(&self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - lsn.0 % self.data_bytes())
    }

    /// First LSN behind the segment that holds `lsn`.
    #[must_use]
    pub const fn segment_end(&self, lsn: Lsn) -> Lsn {
        Lsn(self.base(lsn).0 + self.data_bytes())
    }

    /// Where `lsn` lies in its file.
    #[must_use]
    pub const fn file_offset(&self, lsn: Lsn) -> u64 {
        SEGMENT_HEADER_BYTES + lsn.0 % self.data_bytes()
    }
}

/// File name of the segment that begins at `base`.
#[must_use]
pub fn file_name(base: Lsn) -> String {
    format!("{:020}.seg", base.0)
}

/// The base that a file name states, if it is a segment's name.
#[must_use]
pub fn base_of(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(".seg")?;
    if digits.len() != 20 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Lsn)
}

/// The header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log it belongs to.
    pub store_id: u128,
    /// The log's geometry.
    pub geometry: Geometry,
    /// First LSN in it.
    pub base: Lsn,
}

/// Why bytes are not the header that should stand there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentHeaderError {
    /// Another first word.
    #[error("no segment magic (found {0:#010x})")]
    Magic(u32),
    /// A version that this program does not know.
    #[error("segment version {0}")]
    Version(u32),
    /// The checksum does not fit.
    #[error("header checksum {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// Stored.
        found: u32,
        /// Computed.
        computed: u32,
    },
    /// A tail mode that this program does not know.
    #[error("tail mode {0}")]
    Tail(u32),
}

pub(crate) const fn tail_code(tail: Tail) -> u32 {
    match tail {
        Tail::Rewrite => 0,
        Tail::Pad => 1,
    }
}

pub(crate) const fn tail_from_code(code: u32) -> Option<Tail> {
    match code {
        0 => Some(Tail::Rewrite),
        1 => Some(Tail::Pad),
        _ => None,
    }
}

impl SegmentHeader {
    /// # Shape
    /// One block of 4096 bytes, zero behind the fields: magic u32, version u32, store id u128, segment bytes u64, tail mode u32,
    /// reserved u32, base LSN u64, CRC-32 u32 of all fields before it. Little-endian.
    #[must_use]
    pub fn encode(&self) -> AlignedBuf {
        let mut block = AlignedBuf::zeroed(IO_ALIGN);
        block[0..4].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        block[4..8].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        block[8..24].copy_from_slice(&self.store_id.to_le_bytes());
        block[24..32].copy_from_slice(&self.geometry.segment_bytes.to_le_bytes());
        block[32..36].copy_from_slice(&tail_code(self.geometry.tail).to_le_bytes());
        block[40..48].copy_from_slice(&self.base.0.to_le_bytes());
        let crc = crc32fast::hash(&block[..HEADER_FIELDS - 4]);
        block[48..52].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Decodes a header block.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn decode(block: &[u8; IO_ALIGN]) -> Result<SegmentHeader, SegmentHeaderError> {
        let u32_at = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(0) != SEGMENT_MAGIC {
            return Err(SegmentHeaderError::Magic(u32_at(0)));
        }
        if u32_at(4) != SEGMENT_VERSION {
            return Err(SegmentHeaderError::Version(u32_at(4)));
        }
        let (found, computed) = (u32_at(48), crc32fast::hash(&block[..HEADER_FIELDS - 4]));
        if found != computed {
            return Err(SegmentHeaderError::Checksum { found, computed });
        }
        Ok(SegmentHeader {
            store_id: u128::from(u64_at(8)) | u128::from(u64_at(16)) << 64,
            geometry: Geometry {
                segment_bytes: u64_at(24),
                tail: tail_from_code(u32_at(32)).ok_or(SegmentHeaderError::Tail(u32_at(32)))?,
            },
            base: Lsn(u64_at(40)),
        })
    }

    /// [`SegmentHeader::decode`] of a buffer that holds at least one block.
    ///
    /// # Errors
    /// Says what does not fit.
    ///
    /// # Panics
    /// When the buffer is shorter than a block.
    pub fn decode_buf(buf: &AlignedBuf) -> Result<SegmentHeader, SegmentHeaderError> {
        SegmentHeader::decode(buf.first_chunk().expect("a header block is one block long"))
    }
}

const _: () = assert!(to_usize(SEGMENT_HEADER_BYTES) == IO_ALIGN, "the header is one block");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_comes_back_and_any_bytes_do_not_panic(
            store_id in any::<u128>(), base in any::<u64>(), at in 0usize..52, bit in 0u32..8,
        ) {
            let header = SegmentHeader {
                store_id,
                geometry: Geometry { segment_bytes: 65536, tail: Tail::Pad },
                base: Lsn(base),
            };
            let mut block = header.encode();
            prop_assert_eq!(SegmentHeader::decode_buf(&block), Ok(header));
            block[at] ^= 1 << bit;
            prop_assert!(SegmentHeader::decode_buf(&block).is_err());
        }
    }

    #[test]
    fn an_lsn_has_one_place() {
        let geometry = Geometry { segment_bytes: 65536, tail: Tail::Rewrite };
        assert_eq!(geometry.base(Lsn(61440)), Lsn(61440));
        assert_eq!(geometry.segment_end(Lsn(61439)), Lsn(61440));
        assert_eq!(geometry.file_offset(Lsn(61441)), 4097);
        assert_eq!(base_of(&file_name(Lsn(61440))), Some(Lsn(61440)));
        assert_eq!(base_of("spare-0.seg"), None);
    }
}
