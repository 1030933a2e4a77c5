//! Numbers in as few bytes as they need.
//!
//! | form | bytes | order |
//! |---|---|---|
//! | [`put`] | seven bits a byte, the lowest first, the highest bit set in all but the last | none |
//! | [`put_sorted`] | as many ones as bytes follow the first, a zero, the number, big-endian | that of the numbers |

/// Adds a number.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Takes a number off the front; `None` when there is none.
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7F);
        if shift == 63 && part > 1 {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Adds a number so that bytes sort as numbers do, with no fewer than `least` bytes behind the first.
pub fn put_sorted(out: &mut Vec<u8>, number: u64, least: usize) {
    let bits = 64 - number.leading_zeros() as usize;
    let behind = (0..8).find(|behind| bits <= 7 + 7 * behind).unwrap_or(8).max(least);
    let ones = u8::MAX.checked_shl(8 - u32::try_from(behind).unwrap_or(8)).unwrap_or(0);
    let bytes = number.to_be_bytes();
    if behind == 8 {
        out.push(u8::MAX);
    } else {
        out.push(ones | bytes[7 - behind]);
    }
    out.extend_from_slice(&bytes[8 - behind..]);
}

/// Takes a number off the front that [`put_sorted`] wrote; `None` when there is none.
pub fn take_sorted(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let behind = first.leading_ones() as usize;
    let (low, rest) = rest.split_at_checked(behind)?;
    *bytes = rest;
    // What the ones and the zero leave of the first byte.
    let high = if behind >= 7 { 0 } else { u64::from(first & (0x7F >> behind)) };
    Some(low.iter().fold(high, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(number: u64, least: usize) -> Vec<u8> {
        let mut out = Vec::new();
        put_sorted(&mut out, number, least);
        out
    }

    #[test]
    fn small_numbers_take_few_bytes() {
        assert_eq!((sorted(0, 0), sorted(127, 0), sorted(128, 0)), (vec![0], vec![127], vec![0x80, 128]));
        assert_eq!((sorted(16_383, 0), sorted(16_384, 0)), (vec![0xBF, 0xFF], vec![0xC0, 0x40, 0]));
        assert_eq!(sorted(u64::MAX, 0), [0xFF; 9]);
        assert_eq!((sorted(1 << 55, 0).len(), sorted(1 << 56, 0).len(), sorted((1 << 56) - 1, 0).len()), (8, 9, 8));
        assert_eq!(sorted(5, 2), [0xC0, 0, 5]);
    }

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written(number in any::<u64>(), bits in 0..64u32, least in 0..9usize) {
            let number = number >> bits;
            let mut out = Vec::new();
            put(&mut out, number);
            let mut rest = &out[..];
            prop_assert_eq!((take(&mut rest), rest.len()), (Some(number), 0));
            prop_assert_eq!(take(&mut &out[..out.len() - 1]), None);
            let out = sorted(number, least);
            let mut rest = &out[..];
            prop_assert_eq!((take_sorted(&mut rest), rest.len()), (Some(number), 0));
            prop_assert_eq!(take_sorted(&mut &out[..out.len() - 1]), None);
        }

        #[test]
        fn bytes_sort_as_numbers_do(one in any::<u64>(), two in any::<u64>(), bits in any::<(u8, u8)>()) {
            let (one, two) = (one >> (bits.0 % 64), two >> (bits.1 % 64));
            prop_assert_eq!(sorted(one, 0).cmp(&sorted(two, 0)), one.cmp(&two));
        }
    }
}
