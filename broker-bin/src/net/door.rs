//! What stands between a connection's bytes and its requests: nothing, or TLS. Which, its first byte says.
//!
//! ```text
//!   socket --bytes--> Door --plain bytes--> Worker        0x16 begins a TLS record; a frame begins with the high byte of its length,
//!   socket <--bytes-- Door <--plain bytes-- Worker        which is zero below 16 MiB
//! ```
//! 1. It reads no socket and no clock; the driver passes bytes in, and takes what is to be written out.
//! 2. Of what the worker has to say no more is sealed than [`SEALED_AT_ONCE`] before it is written: who does not read is noticed there.

use std::io::{BufRead, Write};

use rustls::ServerConnection;

use super::tls::Tls;

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// Most plain bytes that are sealed before they are written.
pub(super) const SEALED_AT_ONCE: usize = 64 << 10;

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// TLS is wanted, and there is no certificate.
    NoTls,
    /// It is not TLS, and must be.
    Plain,
    /// What came is no TLS that can be agreed on.
    Failed(String),
}

/// The door of one connection.
#[derive(Default)]
pub(super) enum Door {
    /// Nothing has come yet.
    #[default]
    Shut,
    /// Bytes go through as they are.
    Plain,
    /// Bytes are sealed.
    Tls(Box<Session>),
}

impl Door {
    /// Opens it as the first byte wants.
    pub(super) fn open(&mut self, tls: Option<&Tls>, first: u8) -> Result<(), Refusal> {
        *self = match (tls, first) {
            (None, HANDSHAKE) => return Err(Refusal::NoTls),
            (Some(tls), HANDSHAKE) => {
                let tls = tls.begin().map_err(|error| Refusal::Failed(error.to_string()))?;
                Door::Tls(Box::new(Session { tls, sealed: Vec::new(), written: 0, taken: false }))
            }
            (Some(tls), _) if tls.is_only() => return Err(Refusal::Plain),
            _ => Door::Plain,
        };
        Ok(())
    }
}

/// One TLS connection.
pub(super) struct Session {
    tls: ServerConnection,
    /// To be written.
    sealed: Vec<u8>,
    /// Of that, what is written.
    written: usize,
    /// The worker waits to hear that what was taken from it is written.
    pub(super) taken: bool,
}

impl Session {
    /// Takes bytes in, and gives out what they held. False when the other side has ended it.
    pub(super) fn unseal(&mut self, mut bytes: &[u8], mut give: impl FnMut(&[u8])) -> Result<bool, Refusal> {
        while !bytes.is_empty() {
            let outcome = self.unseal_some(&mut bytes, &mut give);
            // Also what says why it fails.
            self.collect();
            if !outcome? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn unseal_some(&mut self, bytes: &mut &[u8], give: &mut impl FnMut(&[u8])) -> Result<bool, Refusal> {
        let failed = |what: &dyn std::fmt::Display| Refusal::Failed(what.to_string());
        // Reading a slice fails only when what was read before was not taken out.
        self.tls.read_tls(bytes).map_err(|error| failed(&error))?;
        let state = self.tls.process_new_packets().map_err(|error| failed(&error))?;
        let mut left = state.plaintext_bytes_to_read();
        let mut reader = self.tls.reader();
        while left > 0 {
            let piece = reader.fill_buf().map_err(|error| failed(&error))?;
            let count = piece.len();
            if count == 0 {
                break;
            }
            give(piece);
            reader.consume(count);
            left = left.saturating_sub(count);
        }
        Ok(!state.peer_has_closed())
    }

    /// Seals bytes to be written.
    pub(super) fn seal(&mut self, plain: &[u8]) {
        // A connection that has failed takes no more; it is closed by then.
        let sealed = self.tls.writer().write_all(plain);
        if sealed.is_ok() {
            self.collect();
        }
    }

    /// Says that it ends here.
    pub(super) fn end(&mut self) {
        self.tls.send_close_notify();
        self.collect();
    }

    fn collect(&mut self) {
        while self.tls.wants_write() {
            // Memory takes everything.
            if self.tls.write_tls(&mut self.sealed).is_err() {
                break;
            }
        }
    }

    /// What is to be written.
    pub(super) fn sealed(&self) -> &[u8] {
        &self.sealed[self.written..]
    }

    /// So much of [`Session::sealed`] is written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written = (self.written + bytes).min(self.sealed.len());
        if self.written == self.sealed.len() {
            self.written = 0;
            self.sealed.clear();
            self.sealed.shrink_to(2 * SEALED_AT_ONCE);
        }
    }
}
