//! Where the pages of the derived store lie in its file, and how each proves itself (`docs/format.md`, *Derived store*).
//!
//! ```text
//!  block   0      1       2 ... 1025      1026    1027 ...
//!          head   sums 0  pages 1..1024   sums 1  pages 1025..2048
//! ```
//!
//! Page 0 is the embedded database's header. It is the only page ever written in place, so it is kept apart, in the head,
//! with what identifies the file and with a checksum of its own in the same sector.

use crate::io::IO_ALIGN;
use crate::units::{to_u64, to_usize};

/// Bytes of a page, and of a block of the file.
pub(super) const PAGE_BYTES: usize = IO_ALIGN;
/// Checksums in one block of them.
pub(super) const SUMS_PER_BLOCK: u64 = to_u64(PAGE_BYTES / size_of::<u32>());
/// Bytes of page 0 that the embedded database uses.
pub(super) const HEADER_BYTES: usize = 320;

const MAGIC: [u8; 4] = *b"ALDS";
const VERSION: u32 = 1;
/// First bytes of the embedded database's header once it is complete; zero while the file is being made.
const HEADER_MAGIC: [u8; 4] = *b"redb";
const MAGIC_AT: usize = HEADER_BYTES;
const VERSION_AT: usize = MAGIC_AT + 4;
const FORMAT_AT: usize = VERSION_AT + 4;
const STORE_ID_AT: usize = FORMAT_AT + 8;
const LEN_AT: usize = STORE_ID_AT + 16;
const HEAD_END: usize = LEN_AT + 8;
const CRC_AT: usize = SECTOR_BYTES - 4;
/// What reaches the medium whole or not at all.
const SECTOR_BYTES: usize = 512;

const _: () = assert!(HEAD_END <= CRC_AT, "the head fits one sector");

/// Whose store it is, and in which form its owner keeps things in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreIdentity {
    /// The log's.
    pub(crate) store_id: u128,
    /// Of keys and values, chosen by whoever writes them.
    pub(crate) format_version: u32,
}

/// The first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The embedded database's header.
    pub(super) header: [u8; HEADER_BYTES],
    /// Bytes that the embedded database believes to have.
    pub(super) len: u64,
}

impl Head {
    pub(super) fn encode(&self, identity: StoreIdentity) -> [u8; PAGE_BYTES] {
        let mut block = [0; PAGE_BYTES];
        block[..HEADER_BYTES].copy_from_slice(&self.header);
        block[MAGIC_AT..VERSION_AT].copy_from_slice(&MAGIC);
        block[VERSION_AT..FORMAT_AT].copy_from_slice(&VERSION.to_le_bytes());
        block[FORMAT_AT..FORMAT_AT + 4].copy_from_slice(&identity.format_version.to_le_bytes());
        block[STORE_ID_AT..LEN_AT].copy_from_slice(&identity.store_id.to_le_bytes());
        block[LEN_AT..HEAD_END].copy_from_slice(&self.len.to_le_bytes());
        let sum = head_sum(&block);
        block[CRC_AT..SECTOR_BYTES].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a head back.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn decode(block: &[u8; PAGE_BYTES], identity: StoreIdentity) -> Result<Head, String> {
        if block.iter().all(|byte| *byte == 0) {
            return Err("its making was not finished".to_owned());
        }
        let (sum, stored) = (head_sum(block), le_u32(block, CRC_AT));
        if sum != stored {
            return Err(format!("the head's checksum is {stored:08x}, its bytes have {sum:08x}"));
        }
        if block[MAGIC_AT..VERSION_AT] != MAGIC {
            return Err("the head is not that of a derived store".to_owned());
        }
        for (what, found, want) in [
            ("layout version", le_u32(block, VERSION_AT), VERSION),
            ("format version", le_u32(block, FORMAT_AT), identity.format_version),
        ] {
            if found != want {
                return Err(format!("its {what} is {found}, this version keeps {want}"));
            }
        }
        let mut store_id = [0; 16];
        store_id.copy_from_slice(&block[STORE_ID_AT..LEN_AT]);
        let store_id = u128::from_le_bytes(store_id);
        if store_id != identity.store_id {
            return Err(format!("it belongs to the log {store_id:032x}, not to {:032x}", identity.store_id));
        }
        if block[..HEADER_MAGIC.len()] != HEADER_MAGIC {
            return Err("its making was not finished".to_owned());
        }
        let (mut header, mut len) = ([0; HEADER_BYTES], [0; 8]);
        header.copy_from_slice(&block[..HEADER_BYTES]);
        len.copy_from_slice(&block[LEN_AT..HEAD_END]);
        Ok(Head { header, len: u64::from_le_bytes(len) })
    }
}

fn head_sum(block: &[u8; PAGE_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..CRC_AT]);
    hasher.update(&block[SECTOR_BYTES..]);
    hasher.finalize()
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// The checksum of a page: of its bytes and its number, so that a page in another's place is found. Never zero, which
/// stands for "never written".
pub(super) fn page_sum(page: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    hasher.update(&page.to_le_bytes());
    hasher.finalize().max(1)
}

/// Where a page (not page 0) has its checksum: which block of them, and which entry of it.
pub(super) fn sum_place(page: u64) -> (usize, usize) {
    debug_assert!(page > 0, "the head holds page 0");
    (to_usize((page - 1) / SUMS_PER_BLOCK), to_usize((page - 1) % SUMS_PER_BLOCK))
}

/// The byte offset of a block of checksums.
pub(super) fn sums_offset(group: usize) -> u64 {
    (1 + to_u64(group) * (SUMS_PER_BLOCK + 1)) * to_u64(PAGE_BYTES)
}

/// The byte offset of a page (not page 0).
pub(super) fn page_offset(page: u64) -> u64 {
    let (group, at) = sum_place(page);
    sums_offset(group) + (1 + to_u64(at)) * to_u64(PAGE_BYTES)
}

/// Reads a block of checksums.
pub(super) fn decode_sums(block: &[u8]) -> Box<[u32]> {
    block.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)).collect()
}

/// Writes a block of checksums.
pub(super) fn encode_sums(sums: &[u32], block: &mut [u8]) {
    for (four, sum) in block.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
        *four = sum.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: StoreIdentity = StoreIdentity { store_id: 7, format_version: 3 };

    fn head() -> Head {
        let mut header = [9; HEADER_BYTES];
        header[..4].copy_from_slice(&HEADER_MAGIC);
        Head { header, len: 1 << 40 }
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        assert_eq!(Head::decode(&head().encode(IDENTITY), IDENTITY), Ok(head()));
    }

    #[test]
    fn the_bytes_of_a_head_and_the_checksum_of_a_page_stay_as_they_are() {
        let block = head().encode(IDENTITY);
        let hex: String = block[HEADER_BYTES..HEAD_END].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "414c4453010000000300000000000000070000000000000000000000000000000000000000010000");
        assert_eq!(block[CRC_AT..SECTOR_BYTES], [105, 201, 9, 227]);
        assert_eq!(page_sum(1, &[5; PAGE_BYTES]), 0xf7d6_df0d);
    }

    #[test]
    fn every_flipped_bit_of_a_head_is_found() {
        let block = head().encode(IDENTITY);
        for bit in 0..8 * PAGE_BYTES {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&bad, IDENTITY).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_head_of_another_log_or_form_is_told_apart() {
        let block = head().encode(IDENTITY);
        let why = |identity| Head::decode(&block, identity).expect_err("it is not this one's");
        assert!(why(StoreIdentity { store_id: 8, ..IDENTITY }).contains("belongs to the log"));
        assert!(why(StoreIdentity { format_version: 4, ..IDENTITY }).contains("format version is 3"));
        assert!(Head::decode(&[0; PAGE_BYTES], IDENTITY).expect_err("it is blank").contains("not finished"));
    }

    #[test]
    fn pages_and_checksums_fill_the_file_without_gap_or_overlap() {
        let mut taken = vec![0, sums_offset(0), sums_offset(1), sums_offset(2)];
        taken.extend((1..=2 * SUMS_PER_BLOCK + 5).map(page_offset));
        taken.sort_unstable();
        let blocks: Vec<u64> = taken.iter().map(|offset| offset / to_u64(PAGE_BYTES)).collect();
        assert_eq!(blocks, (0..to_u64(blocks.len())).collect::<Vec<_>>());
    }

    #[test]
    fn a_page_in_anothers_place_has_another_checksum() {
        let bytes = [5; PAGE_BYTES];
        assert_ne!(page_sum(1, &bytes), page_sum(2, &bytes));
        let sums: Box<[u32]> = (0..1024).collect();
        let mut block = [0; PAGE_BYTES];
        encode_sums(&sums, &mut block);
        assert_eq!(decode_sums(&block), sums);
    }
}
