//! What is asked of the key index.

use crate::units::Lsn;

/// In which order messages are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    /// The last appended first.
    NewestFirst,
    /// In the order of the log.
    OldestFirst,
}

/// A search for the messages that have a key; for [`crate::Engine::find`].
#[derive(Clone, Copy, Debug)]
pub struct KeyQuery<'a> {
    /// The key; all of it.
    pub key: &'a [u8],
    /// Earliest store time, in milliseconds since 1970.
    pub from_ms: u64,
    /// Latest store time, in milliseconds since 1970.
    pub to_ms: u64,
    /// Which come first.
    pub order: KeyOrder,
    /// Only what comes behind the message of this LSN, in that order: to go on behind the last message of an earlier answer.
    pub beyond: Option<Lsn>,
    /// Most messages to return.
    pub count: usize,
    /// Most bytes of messages to return, but for the first.
    pub bytes_max: usize,
}

impl<'a> KeyQuery<'a> {
    /// The newest 32 messages of any time, or 4 MiB of them, the newest first.
    #[must_use]
    pub fn new(key: &'a [u8]) -> KeyQuery<'a> {
        KeyQuery {
            key,
            from_ms: 0,
            to_ms: u64::MAX,
            order: KeyOrder::NewestFirst,
            beyond: None,
            count: 32,
            bytes_max: 4 << 20,
        }
    }
}
