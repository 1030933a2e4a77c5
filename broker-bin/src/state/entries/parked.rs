//! `parked/<key of an entry>`: an entry that could not be done, as it was, and why. Refers to what that one referred to.
//!
//! ```text
//! value: version 1 | reason bytes 2, reason | the value of the entry
//! ```

use super::{BadEntry, Fields, behind, name};

/// What its keys begin with.
pub const PREFIX: &[u8] = b"parked/";

const VERSION: u8 = 1;

/// Longest reason kept.
const REASON_BYTES_MAX: usize = 500;

/// Key and value for the entry of this key and value.
#[must_use]
pub fn encode(key: &[u8], value: &[u8], reason: &str) -> (Vec<u8>, Vec<u8>) {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    // Bounded by REASON_BYTES_MAX.
    let bytes = u16::try_from(end).unwrap_or(0);
    let head = [&[VERSION][..], &bytes.to_be_bytes(), &reason.as_bytes()[..usize::from(bytes)]].concat();
    ([PREFIX, key].concat(), [&head, value].concat())
}

/// An entry that was parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked<'a> {
    /// The key that it had.
    pub key: &'a [u8],
    /// The value that it had.
    pub value: &'a [u8],
    /// Why it was parked.
    pub reason: Box<str>,
}

/// Reads an entry.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode<'a>(key: &'a [u8], value: &'a [u8]) -> Result<Parked<'a>, BadEntry> {
    let key = behind(PREFIX, key)?;
    let mut fields = Fields::of_version(VERSION, value)?;
    let bytes = u16::from_be_bytes(fields.take()?);
    let reason = name(fields.bytes(usize::from(bytes))?)?;
    Ok(Parked { key, value: fields.0, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parked_entry_says_what_it_was_and_why() {
        let (key, value) = encode(b"due/x", b"yz", "no");
        assert_eq!((&*key, &*value), (&b"parked/due/x"[..], &b"\x01\0\x02noyz"[..]));
        assert_eq!(decode(&key, &value), Ok(Parked { key: b"due/x", value: b"yz", reason: "no".into() }));
        let (key, value) = encode(b"k", b"", &"é".repeat(400));
        assert_eq!(decode(&key, &value).map(|parked| parked.reason.len()), Ok(500));
        assert!(decode(b"due/x", b"\x01\0\0").is_err() && decode(&key, b"\x02\0\0").is_err());
    }
}
