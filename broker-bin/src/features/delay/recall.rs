//! The handle by which a producer can take a timed message back. Clients read the broker's name out of it.
//!
//! ```text
//! base64url( "v1 " topic " " broker " " time in ms " " the producer's id of the message )
//! ```

use std::fmt::Write as _;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The handle of a timed message: every answer to such a send has one.
pub(super) fn encode(topic: &str, broker: &str, time_ms: u64, unique_key: &str) -> String {
    let mut plain = String::with_capacity(26 + topic.len() + broker.len() + unique_key.len());
    for part in ["v1 ", topic, " ", broker, " "] {
        plain.push_str(part);
    }
    write!(plain, "{time_ms} ").expect("a string takes everything");
    plain.push_str(unique_key);
    let (groups, rest) = plain.as_bytes().as_chunks::<3>();
    let mut text = Vec::with_capacity(plain.len().div_ceil(3) * 4);
    groups.iter().for_each(|group| text.extend_from_slice(&digits(*group)));
    if !rest.is_empty() {
        let mut group = [0; 3];
        group[..rest.len()].copy_from_slice(rest);
        text.extend_from_slice(&digits(group)[..=rest.len()]);
        text.resize(text.len().next_multiple_of(4), b'=');
    }
    String::from_utf8(text).expect("digits are ASCII")
}

fn digits([first, second, third]: [u8; 3]) -> [u8; 4] {
    let digits = [first >> 2, first << 4 | second >> 4, second << 2 | third >> 6, third];
    digits.map(|digit| ALPHABET[usize::from(digit & 0x3F)])
}

/// Names a timed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) topic: String,
    pub(super) broker: String,
    pub(super) time_ms: u64,
    pub(super) unique_key: String,
}

impl Handle {
    #[cfg(test)]
    fn encode(&self) -> String {
        encode(&self.topic, &self.broker, self.time_ms, &self.unique_key)
    }

    pub(super) fn decode(text: &str) -> Option<Handle> {
        let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
        for digit in text.trim_end_matches('=').bytes() {
            let value = ALPHABET.iter().position(|&known| known == digit)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
            count += 6;
            if count >= 8 {
                count -= 8;
                bytes.push(u8::try_from(bits >> count & 0xFF).ok()?);
            }
        }
        let plain = String::from_utf8(bytes).ok()?;
        let mut words = plain.split(' ');
        let (version, topic, broker, time, key) =
            (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
        (version == "v1" && words.next().is_none()).then_some(())?;
        let time_ms = time.parse().ok()?;
        Some(Handle { topic: topic.to_owned(), broker: broker.to_owned(), time_ms, unique_key: key.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the original broker wrote it.
    const SEEN: &str = "djEgVF9kZWxpdmVyX2F0X0o1XzRudXAgYnJva2VyLWEgMTc5NTIxNzU0NDAwMSBGRDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMjI0MjE0RTBFMkYy\
                        QTY2RTVERDE4MDAwMQ==";

    #[test]
    fn a_handle_is_written_as_the_original_writes_it() {
        let handle = Handle {
            topic: "T_deliver_at_J5_4nup".to_owned(),
            broker: "broker-a".to_owned(),
            time_ms: 1_795_217_544_001,
            unique_key: "FD00000000000000000000000000000224214E0E2F2A66E5DD180001".to_owned(),
        };
        assert_eq!(handle.encode(), SEEN);
        assert_eq!(Handle::decode(SEEN), Some(handle));
        for bad in ["", "djE=", "!!!!", "djIgYSBiIDEgYw==", "djEgYSBiIHggYw=="] {
            assert_eq!(Handle::decode(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_handle_is_read_as_it_was_written(words in "[!-~]{1,9}", time_ms in any::<u64>()) {
            let handle = Handle { topic: words.clone(), broker: "b".to_owned(), time_ms, unique_key: words };
            prop_assert_eq!(Handle::decode(&handle.encode()), Some(handle));
        }
    }
}
