//! What is kept of a key: 32 bits, different in every log, so that nobody can choose keys that meet in one place.
//!
//! The store holds these hashes: another function is another version of its rows.

use crate::units::to_u64;

/// Odd numbers with about as many ones as zeros.
const MULTIPLIERS: [u64; 3] = [0x9E6C_63D0_876A_9A67, 0xD1B5_4A32_D192_ED03, 0xA24B_AED4_963E_E407];

/// The hash of one log.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash {
    seed: u64,
}

impl KeyHash {
    pub(super) fn new(store_id: u128) -> KeyHash {
        KeyHash { seed: halves(store_id) }
    }

    pub(super) fn of(self, key: &[u8]) -> u32 {
        let (words, rest) = key.as_chunks::<8>();
        // The length tells a key from one that goes on with zeros.
        let mut state = self.seed ^ to_u64(key.len()).wrapping_mul(MULTIPLIERS[0]);
        for word in words {
            state = fold(state ^ u64::from_le_bytes(*word), MULTIPLIERS[1]);
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(last), MULTIPLIERS[1]);
        let [.., a, b, c, d] = fold(state ^ self.seed, MULTIPLIERS[2]).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

/// Every bit of the outcome depends on many of each factor.
fn fold(one: u64, other: u64) -> u64 {
    halves(u128::from(one) * u128::from(other))
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
const fn halves(wide: u128) -> u64 {
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_keys_meet_no_more_often_than_chance_has_it() {
        let hash = KeyHash::new(0x1234_5678_9ABC_DEF0_0FED_CBA9_8765_4321);
        let mut all: Vec<u32> = (0..200_000).map(|n| hash.of(format!("order-{n}").as_bytes())).collect();
        all.sort_unstable();
        let met = all.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(met < 20, "{met}, and 4.7 are expected");
        for bit in 0..32 {
            let ones = all.iter().filter(|hash| **hash >> bit & 1 == 1).count();
            assert!((98_000..102_000).contains(&ones), "bit {bit}: {ones} of 200000");
        }
    }

    #[test]
    fn length_place_and_log_all_count() {
        let hash = KeyHash::new(7);
        let keys: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"abcdefgh", b"abcdefgh\0", b"abcdefghabcdefgh"];
        let mut all: Vec<u32> = keys.iter().map(|key| hash.of(key)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), keys.len());
        assert_ne!(hash.of(b"abcdefgh12345678"), hash.of(b"12345678abcdefgh"));
        assert_ne!(hash.of(b"a"), KeyHash::new(8).of(b"a"));
        assert_eq!(
            hash.of(b"three anchors"),
            3_093_017_589,
            "the hash is part of the store's rows: a change is a new version of them"
        );
    }
}
