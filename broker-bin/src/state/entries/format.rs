//! `meta/format`: which version of the broker's state a store holds. The first entry of every store.
//!
//! ```text
//! value: version 4
//! ```

use super::BadEntry;

/// Its key.
pub const KEY: &[u8] = b"meta/format";

/// The version that this broker writes. It reads older ones too, and raises them: 1 knew nothing of what is due, of transactions, and of
/// properties that the broker changed; 2 nothing of links that say only what differs from their message, nor of short keys of what is due.
pub const KNOWN: u32 = 3;

/// The value.
#[must_use]
pub fn encode(version: u32) -> [u8; 4] {
    version.to_be_bytes()
}

/// Reads a value.
///
/// # Errors
/// When it is none.
pub fn decode(value: &[u8]) -> Result<u32, BadEntry> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| BadEntry("its value has another length than 4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_was_written() {
        assert_eq!(encode(KNOWN), [0, 0, 0, 3]);
        assert_eq!(decode(&encode(u32::MAX)), Ok(u32::MAX));
        assert!(decode(b"").is_err() && decode(&[0; 5]).is_err());
    }
}
