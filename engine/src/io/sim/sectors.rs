//! Bytes of one simulated file, sparse and cheap to copy: pages are shared until one side writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::units::{to_u64, to_usize};

/// What the medium writes whole or not at all.
pub(super) const SECTOR: usize = 512;

/// What is allocated and given back as a whole.
pub(super) const PAGE: usize = 4096;

/// The bytes of one sector.
pub(super) type Sector = [u8; SECTOR];

/// A file's bytes and length. What was never written reads as zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Sectors {
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
    /// Length of the file in bytes.
    pub(super) len: u64,
}

impl Sectors {
    /// Copies bytes out, without regard to the length.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        for (at, piece) in pieces(offset, out.len()) {
            let start = to_usize((offset + to_u64(at)) % to_u64(PAGE));
            match self.pages.get(&((offset + to_u64(at)) / to_u64(PAGE))) {
                Some(page) => out[at..at + piece].copy_from_slice(&page[start..start + piece]),
                None => out[at..at + piece].fill(0),
            }
        }
    }

    /// Copies bytes in, without changing the length.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, piece) in pieces(offset, bytes.len()) {
            let start = to_usize((offset + to_u64(at)) % to_u64(PAGE));
            let page = self.pages.entry((offset + to_u64(at)) / to_u64(PAGE)).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[start..start + piece].copy_from_slice(&bytes[at..at + piece]);
        }
    }

    /// Makes a range zeros, without changing the length.
    pub(super) fn clear(&mut self, offset: u64, len: usize) {
        for (at, piece) in pieces(offset, len) {
            if piece == PAGE {
                self.pages.remove(&((offset + to_u64(at)) / to_u64(PAGE)));
            } else {
                self.write(offset + to_u64(at), &[0; PAGE][..piece]);
            }
        }
    }

    /// Whether all bytes of a page are zeros.
    pub(super) fn is_clear(&self, page: u64) -> bool {
        self.pages.get(&page).is_none_or(|page| page.iter().all(|byte| *byte == 0))
    }

    pub(super) fn sector(&self, number: u64) -> Sector {
        let mut sector = [0; SECTOR];
        self.read(number * to_u64(SECTOR), &mut sector);
        sector
    }

    pub(super) fn set_sector(&mut self, number: u64, sector: &Sector) {
        self.write(number * to_u64(SECTOR), sector);
    }

    /// Numbers of the sectors at or behind `len` that may hold something.
    pub(super) fn sectors_from(&self, len: u64) -> Vec<u64> {
        let per_page = to_u64(PAGE / SECTOR);
        let first = len.div_ceil(to_u64(SECTOR));
        self.pages
            .range(len / to_u64(PAGE)..)
            .flat_map(|(page, _)| page * per_page..(page + 1) * per_page)
            .filter(|sector| *sector >= first)
            .collect()
    }

    /// Sets the length; bytes behind it are gone.
    pub(super) fn set_len(&mut self, len: u64) {
        for sector in self.sectors_from(len) {
            self.set_sector(sector, &[0; SECTOR]);
        }
        self.pages.split_off(&len.div_ceil(to_u64(PAGE)));
        if !len.is_multiple_of(to_u64(SECTOR)) {
            let kept = to_usize(len % to_u64(SECTOR));
            let mut last = self.sector(len / to_u64(SECTOR));
            last[kept..].fill(0);
            self.set_sector(len / to_u64(SECTOR), &last);
        }
        self.len = len;
    }

    /// All bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; to_usize(self.len)];
        self.read(0, &mut bytes);
        bytes
    }
}

/// Cuts a range at page borders: (distance from the start, length) of each piece.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let room = PAGE - to_usize((offset + to_u64(at)) % to_u64(PAGE));
        let piece = (at, room.min(len - at));
        at += piece.1;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_page_borders_and_copies_do_not_follow() {
        let mut bytes = Sectors { len: 10_000, ..Sectors::default() };
        bytes.write(4000, &[5; 200]);
        let copy = bytes.clone();
        bytes.write(4000, &[6; 1]);
        let mut seen = [0; 202];
        copy.read(3999, &mut seen);
        assert_eq!((seen[0], seen[1], seen[200], seen[201]), (0, 5, 5, 0));
    }

    #[test]
    fn what_a_shorter_length_cut_off_reads_as_zeros_when_it_grows_again() {
        let mut bytes = Sectors { len: 8192, ..Sectors::default() };
        bytes.write(0, &[1; 8192]);
        bytes.set_len(100);
        bytes.set_len(8192);
        let seen = bytes.to_vec();
        assert!(seen[..100].iter().all(|byte| *byte == 1) && seen[100..].iter().all(|byte| *byte == 0));
    }
}
