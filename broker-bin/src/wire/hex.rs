//! Upper-case hexadecimal, as clients write their ids.

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Whether a text is the hexadecimal form of some bytes, and not empty.
#[must_use]
pub fn is_upper(text: &[u8]) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    !text.is_empty() && text.len().is_multiple_of(2) && text.iter().all(digit)
}

/// Adds the bytes of which `text` is the hexadecimal form; see [`is_upper`].
pub fn push_bytes(out: &mut Vec<u8>, text: &[u8]) {
    let digit = |byte: u8| if byte <= b'9' { byte.wrapping_sub(b'0') } else { byte - b'A' + 10 };
    out.extend(text.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])));
}

/// The hexadecimal form of some bytes.
#[must_use]
pub fn upper(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_whole_upper_case_bytes_are_hexadecimal() {
        assert!(is_upper(b"09AF"));
        for other in [&b""[..], b"0", b"0a", b"0G", b"+1", b"0 "] {
            assert!(!is_upper(other), "{}", other.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn bytes_are_read_as_they_were_written(bytes in prop::collection::vec(any::<u8>(), 1..20)) {
            let text = upper(&bytes);
            prop_assert!(is_upper(text.as_bytes()));
            let mut read = Vec::new();
            push_bytes(&mut read, text.as_bytes());
            prop_assert_eq!(read, bytes);
        }
    }
}
