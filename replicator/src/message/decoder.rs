//! From a stream of bytes, cut anywhere, to messages.

use super::codec::{self, MAGIC, kind};
use super::{FIELDS_BYTES_MAX, HEAD_BYTES, Message, TAIL_BYTES_MAX, VERSION};

/// Why bytes are not the protocol. The stream cannot be followed behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They begin with something else.
    #[error("{0:02x?} does not begin a message")]
    Magic([u8; 4]),
    /// The other side speaks another version.
    #[error("version {found} of the protocol; this is version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Something is longer than it may be.
    #[error("{found} bytes of {what}; {max} are the most")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it says it is.
        found: usize,
        /// How long it may be.
        max: usize,
    },
    /// The checksum does not fit.
    #[error("a message's checksum is {expected:08x}, its bytes have {found:08x}")]
    Checksum {
        /// The one that it names.
        expected: u32,
        /// The one that its bytes have.
        found: u32,
    },
    /// The checksum fits, and the fields are not those of its kind.
    #[error("a message of kind {kind} with fields that nobody writes")]
    Fields {
        /// The kind.
        kind: u8,
    },
}

/// What the stream holds next.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made: a box would cost each heartbeat, and save nothing"
)]
pub enum Item<'a> {
    /// A message. The log bytes behind [`Message::Data`] come next, in pieces.
    Message(Message),
    /// Log bytes of the [`Message::Data`] before it.
    Log(&'a [u8]),
}

/// Reads a stream of messages, holding back only what is not complete. Log bytes are handed on as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Head, fields, and what belongs to them, as far as they are there.
    held: Vec<u8>,
    /// Log bytes still to come.
    log_left: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Decoder {
    /// Takes the next item from the front of `input`; `None` when more bytes are needed, all of `input` being held then.
    ///
    /// # Errors
    /// The stream cannot be followed any further.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, DecodeError> {
        if self.log_left > 0 {
            let (log, rest) = input.split_at(input.len().min(self.log_left));
            *input = rest;
            self.log_left -= log.len();
            return Ok((!log.is_empty()).then_some(Item::Log(log)));
        }
        if !self.fill(HEAD_BYTES, input) {
            // What cannot become a message any more is refused without waiting for the rest of it.
            let front = self.held.len().min(MAGIC.len());
            return if self.held[..front] == MAGIC[..front] { Ok(None) } else { Err(self.not_magic()) };
        }
        let (fields_len, tail_len) = self.lengths()?;
        let kind = self.held[5];
        if !self.fill(HEAD_BYTES + fields_len, input) {
            return Ok(None);
        }
        let fields = &self.held[HEAD_BYTES..HEAD_BYTES + fields_len];
        let (expected, found) = (u32_at(&self.held, 12), codec::checksum(&self.held[..12], fields));
        if expected != found {
            return Err(DecodeError::Checksum { expected, found });
        }
        let mut tail = Vec::new();
        if codec::keeps_tail(kind) {
            if !self.fill(HEAD_BYTES + fields_len + tail_len, input) {
                return Ok(None);
            }
            tail = self.held.split_off(HEAD_BYTES + fields_len);
        } else if kind == kind::DATA {
            self.log_left = tail_len;
        } else if tail_len > 0 {
            return Err(DecodeError::Fields { kind });
        }
        let message = codec::decode(kind, &self.held[HEAD_BYTES..], u32_at(&self.held, 8), tail);
        self.held.clear();
        Ok(Some(Item::Message(message.ok_or(DecodeError::Fields { kind })?)))
    }

    /// Bytes held back.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Moves bytes from `input` until `len` are held; false when there are not as many.
    fn fill(&mut self, len: usize, input: &mut &[u8]) -> bool {
        let wanted = len.saturating_sub(self.held.len()).min(input.len());
        let (front, rest) = input.split_at(wanted);
        self.held.extend_from_slice(front);
        *input = rest;
        self.held.len() >= len
    }

    fn not_magic(&self) -> DecodeError {
        let mut found = [0; 4];
        let len = self.held.len().min(4);
        found[..len].copy_from_slice(&self.held[..len]);
        DecodeError::Magic(found)
    }

    /// Of the fields and of what follows them.
    fn lengths(&self) -> Result<(usize, usize), DecodeError> {
        if self.held[..4] != MAGIC {
            return Err(self.not_magic());
        }
        if self.held[4] != VERSION {
            return Err(DecodeError::Version { found: self.held[4] });
        }
        let (fields_len, tail_len) = (u16_at(&self.held, 6), u32_at(&self.held, 8));
        let tail_len = usize::try_from(tail_len).unwrap_or(usize::MAX);
        for (what, found, max) in [("fields", fields_len, FIELDS_BYTES_MAX), ("bytes", tail_len, TAIL_BYTES_MAX)] {
            if found > max {
                return Err(DecodeError::TooLong { what, found, max });
            }
        }
        Ok((fields_len, tail_len))
    }
}
