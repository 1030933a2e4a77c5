//! The body of a batch send: messages back to back, each with flag, body and properties of its own.
//!
//! | Field | Bytes |
//! |---|---|
//! | total size | 4 |
//! | magic and CRC, not used | 4 + 4 |
//! | flag | 4 |
//! | body length, body | 4 + n |
//! | properties length, properties | 2 + n |
//!
//! Source: wire notes, section 4.6.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::message::{BadRecord, Input, RecordTooLong};

/// Bytes of an entry without its body and properties.
const FIXED_BYTES: usize = 4 * 5 + 2;

/// One message of a batch. All else comes from the request and is the same for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEntry<'a> {
    /// The producer's own flags.
    pub flag: i32,
    /// The body.
    pub body: &'a [u8],
    /// The properties; the request's own follow when it is stored.
    pub properties: Cow<'a, str>,
}

/// Takes a batch apart. After an error there is nothing more; a batch with an error is refused whole.
pub fn entries(body: &[u8]) -> impl Iterator<Item = Result<BatchEntry<'_>, BadRecord>> {
    let mut input = Input { bytes: body, at: 0 };
    std::iter::from_fn(move || {
        if input.at == body.len() {
            return None;
        }
        let entry = read_entry(&mut input);
        if entry.is_err() {
            input.at = body.len();
        }
        Some(entry)
    })
}

fn read_entry<'a>(input: &mut Input<'a>) -> Result<BatchEntry<'a>, BadRecord> {
    let start = input.at;
    let total = usize::try_from(i32::from_be_bytes(input.take("a size")?));
    let _unused: [u8; 8] = input.take("a magic number and a CRC")?;
    let flag = i32::from_be_bytes(input.take("a flag")?);
    let length = i64::from(i32::from_be_bytes(input.take("a body length")?));
    let body = input.slice(length, "a body as long as it says")?;
    let length = i64::from(i16::from_be_bytes(input.take("a properties length")?));
    let properties = String::from_utf8_lossy(input.slice(length, "properties as long as they say")?);
    if total != Ok(input.at - start) {
        return Err(BadRecord { at: start, want: "the size that the fields add up to" });
    }
    Ok(BatchEntry { flag, body, properties })
}

impl BatchEntry<'_> {
    /// Appends the entry to the body of a request.
    ///
    /// # Errors
    /// When it does not fit; then nothing is written.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), RecordTooLong> {
        let bytes = FIXED_BYTES + self.body.len() + self.properties.len();
        let too_long = RecordTooLong::Properties { bytes: self.properties.len() };
        let properties_length = i16::try_from(self.properties.len()).map_err(|_| too_long)?;
        let total = i32::try_from(bytes).map_err(|_| RecordTooLong::Record { bytes })?;
        let body_length = i32::try_from(self.body.len()).map_err(|_| RecordTooLong::Record { bytes })?;
        out.reserve(bytes);
        out.put_i32(total);
        out.put_i64(0);
        out.put_i32(self.flag);
        out.put_i32(body_length);
        out.put_slice(self.body);
        out.put_i16(properties_length);
        out.put_slice(self.properties.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_in_comes_out(
            batch in prop::collection::vec((any::<i32>(), prop::collection::vec(any::<u8>(), 0..30), any::<String>()), 0..6),
        ) {
            let mut out = BytesMut::new();
            for (flag, body, properties) in &batch {
                BatchEntry { flag: *flag, body, properties: properties.into() }.encode(&mut out).expect("it fits");
            }
            let read: Vec<_> = entries(&out).collect::<Result<_, _>>().expect("good");
            prop_assert_eq!(read.len(), batch.len());
            for (entry, (flag, body, properties)) in read.iter().zip(&batch) {
                prop_assert_eq!((entry.flag, entry.body, &*entry.properties), (*flag, &**body, &**properties));
            }
            if !out.is_empty() {
                prop_assert!(entries(&out[..out.len() - 1]).any(|entry| entry.is_err()));
            }
        }

        #[test]
        fn any_bytes_are_a_batch_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(entries(&bytes).count() <= bytes.len());
        }
    }
}
