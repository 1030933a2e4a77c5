//! Who is at the other end, proven both ways before a byte of log moves, and that every later byte is his.
//!
//! Both ends hold one shared key. They greet each other with fresh nonces, then each proves that it knows the key, bound to both
//! greetings; from the same greetings come the two keys that every later record's code is made with.
//!
//! ```text
//! connecting                                   accepting
//! greeting(nonce) ------------------------------->
//!      <------------------------------- greeting(nonce)
//! proof = HMAC(key, "connects" | greetings) ----->          wrong: closed, nothing said
//!      <---- proof = HMAC(key, "accepts" | greetings)
//! record: length | bytes | HMAC(HMAC(key, direction | greetings), sequence | length | bytes), its first 16 bytes
//! ```
//!
//! Invariants:
//! 1. What is proven holds for these two greetings alone: a recording of an earlier conversation proves nothing, and neither side can
//!    be handed its own proof.
//! 2. Nothing of a record is passed on before its code is checked: no byte that somebody in between changed, left out, repeated or moved
//!    is ever looked at.
//! 3. Codes are compared in a time that does not depend on where they differ.
//!
//! What is deliberately not here: secrecy. Who listens reads along; where that matters, TLS is the choice. Bytes are laid out in
//! `replicator/docs/transport.md`.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::limits;

/// Begins every greeting.
const MAGIC: [u8; 8] = *b"ANCHREPL";
/// The version of greeting, handshake and records.
const VERSION: u8 = 1;

/// Length of a greeting in bytes.
pub(crate) const GREETING_BYTES: usize = 48;
/// Length of a proof in bytes.
pub(crate) const PROOF_BYTES: usize = 32;
/// Length of a record's code in bytes.
pub(crate) const CODE_BYTES: usize = 16;
/// Length of a record's head in bytes: its length.
pub(crate) const HEAD_BYTES: usize = 4;

type Greeting = [u8; GREETING_BYTES];

/// How two ends make sure of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// They do not: the loopback interface only.
    Open,
    /// By a shared key.
    Key,
    /// By TLS certificates.
    Tls,
}

impl Protection {
    const fn code(self) -> u8 {
        match self {
            Protection::Open => 0,
            Protection::Key => 1,
            Protection::Tls => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Protection::Open => "none",
            Protection::Key => "a shared key",
            Protection::Tls => "TLS",
        }
    }
}

/// Why the other end is not let in, or why we do not trust it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AuthError {
    #[error("the other end does not speak this protocol")]
    Stranger,
    #[error("the other end speaks version {found} of the transport, this one {VERSION}")]
    Version { found: u8 },
    #[error("the other end is protected by {found}, this one by {}", ours.name())]
    Protection { ours: Protection, found: &'static str },
    #[error("the other end does not know the shared key")]
    WrongKey,
    #[error("a record's code is wrong: the connection was tampered with, or damaged")]
    WrongCode,
    #[error("a record of {0} bytes is longer than any")]
    TooLong(u32),
}

/// A key that all members share. Never shown.
#[derive(Clone)]
pub struct SharedKey(Hmac<Sha256>);

/// A shared key was refused.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a shared key has at least {} bytes, this one has {found}", limits::KEY_BYTES_MIN)]
pub struct WeakKey {
    /// Its length in bytes.
    pub found: usize,
}

impl SharedKey {
    /// A key from its bytes.
    ///
    /// # Errors
    /// When it is shorter than [`limits::KEY_BYTES_MIN`].
    ///
    /// # Panics
    /// Never: the code takes keys of any length.
    pub fn new(bytes: &[u8]) -> Result<SharedKey, WeakKey> {
        if bytes.len() < limits::KEY_BYTES_MIN {
            return Err(WeakKey { found: bytes.len() });
        }
        Ok(SharedKey(Hmac::new_from_slice(bytes).expect("a key may have any length")))
    }

    fn code(&self, label: &[u8], greetings: &Greetings) -> Hmac<Sha256> {
        self.0.clone().chain_update(label).chain_update(greetings.connecting).chain_update(greetings.accepting)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(..)")
    }
}

/// What an end says first.
pub(crate) fn greeting(protection: Protection, nonce: [u8; 32]) -> Greeting {
    let mut bytes = [0; GREETING_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8] = VERSION;
    bytes[9] = protection.code();
    bytes[16..].copy_from_slice(&nonce);
    bytes
}

/// Checks what the other end said first.
pub(crate) fn check_greeting(bytes: &Greeting, ours: Protection) -> Result<(), AuthError> {
    if bytes[..8] != MAGIC || bytes[10..16] != [0; 6] {
        return Err(AuthError::Stranger);
    }
    if bytes[8] != VERSION {
        return Err(AuthError::Version { found: bytes[8] });
    }
    if bytes[9] != ours.code() {
        let all = [Protection::Open, Protection::Key, Protection::Tls];
        let found = all.iter().find(|one| one.code() == bytes[9]).map_or("something unknown", |one| one.name());
        return Err(AuthError::Protection { ours, found });
    }
    Ok(())
}

/// Both greetings of one conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greetings {
    pub(crate) connecting: Greeting,
    pub(crate) accepting: Greeting,
}

/// Which end one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Connecting,
    Accepting,
}

impl Side {
    pub(crate) const fn other(self) -> Side {
        match self {
            Side::Connecting => Side::Accepting,
            Side::Accepting => Side::Connecting,
        }
    }

    const fn proof_label(self) -> &'static [u8] {
        match self {
            Side::Connecting => b"anchorlog connects",
            Side::Accepting => b"anchorlog accepts!",
        }
    }

    /// For the records that this side sends.
    const fn record_label(self) -> &'static [u8] {
        match self {
            Side::Connecting => b"records to accepts",
            Side::Accepting => b"records to connect",
        }
    }
}

/// What `side` sends to show that it knows the key.
pub(crate) fn proof(key: &SharedKey, greetings: &Greetings, side: Side) -> [u8; PROOF_BYTES] {
    key.code(side.proof_label(), greetings).finalize().into_bytes().into()
}

/// Checks what `side` sent to show that it knows the key.
pub(crate) fn check_proof(
    key: &SharedKey,
    greetings: &Greetings,
    side: Side,
    proof: &[u8; PROOF_BYTES],
) -> Result<(), AuthError> {
    key.code(side.proof_label(), greetings).verify_slice(proof).map_err(|_| AuthError::WrongKey)
}

/// The code of one direction's records.
struct RecordCode {
    key: Hmac<Sha256>,
    sequence: u64,
}

impl RecordCode {
    fn new(key: &SharedKey, greetings: &Greetings, sender: Side) -> RecordCode {
        let key = key.code(sender.record_label(), greetings).finalize().into_bytes();
        RecordCode { key: Hmac::new_from_slice(&key).expect("a key may have any length"), sequence: 0 }
    }

    /// Begins the next record's code.
    fn begin(&mut self, head: [u8; HEAD_BYTES]) -> Hmac<Sha256> {
        let code = self.key.clone().chain_update(self.sequence.to_le_bytes()).chain_update(head);
        self.sequence += 1;
        code
    }
}

impl fmt::Debug for RecordCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordCode").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Makes records of one direction.
#[derive(Debug)]
pub(crate) struct Sealer(RecordCode);

impl Sealer {
    pub(crate) fn new(key: &SharedKey, greetings: &Greetings, us: Side) -> Sealer {
        Sealer(RecordCode::new(key, greetings, us))
    }

    /// What goes before and behind `pieces` on the wire, which together are at most [`limits::RECORD_BYTES_MAX`] and not nothing.
    pub(crate) fn seal<T: AsRef<[u8]>>(&mut self, pieces: &[T]) -> ([u8; HEAD_BYTES], [u8; CODE_BYTES]) {
        let length: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        assert!((1..=limits::RECORD_BYTES_MAX).contains(&length), "{length} bytes are no record");
        let head = u32::try_from(length).expect("checked above").to_le_bytes();
        let mut code = self.0.begin(head);
        for piece in pieces {
            code.update(piece.as_ref());
        }
        let mut short = [0; CODE_BYTES];
        short.copy_from_slice(&code.finalize().into_bytes()[..CODE_BYTES]);
        (head, short)
    }
}

/// Takes records of one direction apart.
#[derive(Debug)]
pub(crate) struct Opener {
    code: RecordCode,
    /// Of the record that is not whole yet.
    partial: Vec<u8>,
}

impl Opener {
    pub(crate) fn new(key: &SharedKey, greetings: &Greetings, us: Side) -> Opener {
        Opener { code: RecordCode::new(key, greetings, us.other()), partial: Vec::new() }
    }

    /// Takes what came in; what is proven of it is added to `out`. After an error nothing more may be passed in.
    pub(crate) fn open(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), AuthError> {
        while !bytes.is_empty() || self.partial.len() >= HEAD_BYTES {
            // First the head, then as much as it says and no more.
            let wanted = match self.partial.first_chunk::<HEAD_BYTES>() {
                None => HEAD_BYTES,
                Some(head) => HEAD_BYTES + Self::length(*head)? + CODE_BYTES,
            };
            let (now, later) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            if self.partial.len() < wanted {
                return Ok(());
            }
            if wanted == HEAD_BYTES {
                continue;
            }
            let (head, rest) = self.partial.split_first_chunk::<HEAD_BYTES>().expect("it is whole");
            let (payload, code) = rest.split_at(rest.len() - CODE_BYTES);
            let expected = self.code.begin(*head).chain_update(payload);
            expected.verify_truncated_left(code).map_err(|_| AuthError::WrongCode)?;
            out.extend_from_slice(payload);
            self.partial.clear();
        }
        Ok(())
    }

    fn length(head: [u8; HEAD_BYTES]) -> Result<usize, AuthError> {
        let length = u32::from_le_bytes(head);
        match usize::try_from(length) {
            Ok(bytes) if (1..=limits::RECORD_BYTES_MAX).contains(&bytes) => Ok(bytes),
            _ => Err(AuthError::TooLong(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> SharedKey {
        SharedKey::new(text.as_bytes()).unwrap()
    }

    fn greetings() -> Greetings {
        Greetings { connecting: greeting(Protection::Key, [1; 32]), accepting: greeting(Protection::Key, [2; 32]) }
    }

    fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
        let (head, code) = sealer.seal(&[payload]);
        [&head[..], payload, &code[..]].concat()
    }

    #[test]
    fn a_short_key_is_refused_and_no_key_is_ever_shown() {
        assert_eq!(SharedKey::new(b"fifteen bytes..").unwrap_err(), WeakKey { found: 15 });
        assert_eq!(format!("{:?}", key("a key of thirty-two characters!!")), "SharedKey(..)");
    }

    #[test]
    fn strangers_versions_and_protections_are_told_apart() {
        let good = greeting(Protection::Key, [7; 32]);
        assert_eq!(check_greeting(&good, Protection::Key), Ok(()));
        assert!(matches!(check_greeting(&good, Protection::Tls), Err(AuthError::Protection { .. })));
        let mut other = good;
        other[0] = b'G';
        assert_eq!(check_greeting(&other, Protection::Key), Err(AuthError::Stranger));
        let mut newer = good;
        newer[8] = 2;
        assert_eq!(check_greeting(&newer, Protection::Key), Err(AuthError::Version { found: 2 }));
    }

    #[test]
    fn a_proof_holds_for_one_key_one_side_and_one_conversation() {
        let (ours, theirs) = (key("sixteen bytes of key"), key("another sixteen bytes"));
        let here = greetings();
        let proof_here = proof(&ours, &here, Side::Connecting);
        assert_eq!(check_proof(&ours, &here, Side::Connecting, &proof_here), Ok(()));
        assert_eq!(check_proof(&theirs, &here, Side::Connecting, &proof_here), Err(AuthError::WrongKey));
        assert_eq!(check_proof(&ours, &here, Side::Accepting, &proof_here), Err(AuthError::WrongKey), "thrown back");
        let later = Greetings { accepting: greeting(Protection::Key, [3; 32]), ..here };
        assert_eq!(check_proof(&ours, &later, Side::Connecting, &proof_here), Err(AuthError::WrongKey), "replayed");
    }

    #[test]
    fn the_bytes_are_those_that_another_program_made() {
        let (ours, here) = (key("sixteen bytes of key"), greetings());
        let mut sealer = Sealer::new(&ours, &here, Side::Connecting);
        let said = [
            here.connecting.to_vec(),
            here.accepting.to_vec(),
            proof(&ours, &here, Side::Connecting).to_vec(),
            proof(&ours, &here, Side::Accepting).to_vec(),
            sealed(&mut sealer, b"three anchors"),
            sealed(&mut sealer, b"and a rope"),
        ];
        let text = include_str!("../../../fixtures/replication/handshake-v1.hex");
        let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        let found: String = said.concat().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digits);
    }

    #[test]
    fn a_record_that_is_repeated_left_out_or_sent_back_is_refused() {
        let key = key("sixteen bytes of key");
        let mut sealer = Sealer::new(&key, &greetings(), Side::Connecting);
        let first = sealed(&mut sealer, b"first");
        let second = sealed(&mut sealer, b"second");
        let open = |us, parts: &[&[u8]]| {
            let mut opener = Opener::new(&key, &greetings(), us);
            let mut out = Vec::new();
            parts.iter().try_for_each(|part| opener.open(part, &mut out)).map(|()| out)
        };
        assert_eq!(open(Side::Accepting, &[&first, &second]).unwrap(), b"firstsecond");
        assert_eq!(open(Side::Accepting, &[&first, &first]), Err(AuthError::WrongCode));
        assert_eq!(open(Side::Accepting, &[&second]), Err(AuthError::WrongCode));
        assert_eq!(open(Side::Connecting, &[&first]), Err(AuthError::WrongCode));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_bytes_are_kept() {
        let mut opener = Opener::new(&key("sixteen bytes of key"), &greetings(), Side::Accepting);
        let mut out = Vec::new();
        assert_eq!(opener.open(&[0xff; 64], &mut out), Err(AuthError::TooLong(u32::MAX)));
        let mut opener = Opener::new(&key("sixteen bytes of key"), &greetings(), Side::Accepting);
        assert_eq!(opener.open(&[0; 4], &mut out), Err(AuthError::TooLong(0)));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in_wherever_they_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..8),
            step in 1_usize..97,
        ) {
            let key = key("sixteen bytes of key");
            let mut sealer = Sealer::new(&key, &greetings(), Side::Accepting);
            let wire: Vec<u8> = payloads.iter().flat_map(|payload| sealed(&mut sealer, payload)).collect();
            let mut opener = Opener::new(&key, &greetings(), Side::Connecting);
            let mut out = Vec::new();
            for part in wire.chunks(step) {
                opener.open(part, &mut out).unwrap();
            }
            prop_assert_eq!(out, payloads.concat());
        }

        #[test]
        fn no_flipped_bit_goes_unseen(
            payload in prop::collection::vec(any::<u8>(), 1..200),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let key = key("sixteen bytes of key");
            let mut wire = sealed(&mut Sealer::new(&key, &greetings(), Side::Accepting), &payload);
            let at = at.index(wire.len());
            wire[at] ^= 1_u8 << bit;
            let mut out = Vec::new();
            let outcome = Opener::new(&key, &greetings(), Side::Connecting).open(&wire, &mut out);
            // A length that grew waits for bytes that never come.
            prop_assert!(outcome.is_err() || at < HEAD_BYTES);
            prop_assert!(out.is_empty());
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut opener = Opener::new(&key("sixteen bytes of key"), &greetings(), Side::Accepting);
            let mut out = Vec::new();
            let _refused = opener.open(&bytes, &mut out).is_err();
            prop_assert!(out.is_empty());
        }
    }
}
