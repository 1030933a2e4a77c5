//! Messages that prove themselves: each says which stream it belongs to, its place there, and what its bytes must be.
//!
//! ```text
//!  magic u32 | stream u32 | run u64 | sequence u64 | check u64 | random bytes ...      (integers big-endian)
//! ```
//! The random bytes come from a pool that is made once: nothing on the way can compress them, and making one costs a look-up.
//! `check` covers all of the message, so any reader can judge it; this one also compares the bytes with the pool.

use rand::{Rng, SeedableRng};

/// Bytes before the random part.
pub(crate) const HEAD_BYTES: usize = 32;
/// Smallest message: the head and something random.
pub(crate) const SIZE_MIN: usize = 64;
/// Largest message.
pub(crate) const SIZE_MAX: usize = 64 << 10;

const MAGIC: u32 = 0x414c_5046;
const POOL_BYTES: usize = 1 << 20;
const SLICE_COUNT: usize = 61;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Not one of this run's messages.
    Foreign,
    /// One of ours, with other bytes than were sent.
    Changed,
}

/// The source of every message of one row.
pub(crate) struct Payloads {
    run: u64,
    size: usize,
    pool: Vec<u8>,
    slices: Vec<(usize, u64)>,
}

impl Payloads {
    /// Messages of `size` bytes that no other run makes, `seed` apart.
    pub(crate) fn new(size: usize, seed: u64) -> Payloads {
        assert!((SIZE_MIN..=SIZE_MAX).contains(&size), "sizes are checked where they are parsed");
        let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
        let mut pool = vec![0; POOL_BYTES];
        rng.fill_bytes(&mut pool);
        let body = size - HEAD_BYTES;
        let stride = (POOL_BYTES - body) / SLICE_COUNT;
        let slices = (0..SLICE_COUNT).map(|at| (at * stride, fold(&pool[at * stride..at * stride + body]))).collect();
        Payloads { run: rng.next_u64(), size, pool, slices }
    }

    /// Bytes of one message.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The head of a message; [`Payloads::body`] follows it.
    pub(crate) fn head(&self, stream: u32, sequence: u64) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&MAGIC.to_be_bytes());
        head[4..8].copy_from_slice(&stream.to_be_bytes());
        head[8..16].copy_from_slice(&self.run.to_be_bytes());
        head[16..24].copy_from_slice(&sequence.to_be_bytes());
        let check = self.check_of(stream, sequence, self.slices[slice_of(stream, sequence)].1);
        head[24..].copy_from_slice(&check.to_be_bytes());
        head
    }

    /// The random part of a message.
    pub(crate) fn body(&self, stream: u32, sequence: u64) -> &[u8] {
        let (start, _) = self.slices[slice_of(stream, sequence)];
        &self.pool[start..start + self.size - HEAD_BYTES]
    }

    /// Stream and sequence of a message that was read back.
    ///
    /// # Errors
    /// When it is not, byte for byte, what was sent.
    pub(crate) fn judge(&self, message: &[u8]) -> Result<(u32, u64), Damage> {
        let word = |at: usize| message.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let (Some(first), Some(run), Some(sequence), Some(check)) = (word(0), word(8), word(16), word(24)) else {
            return Err(Damage::Foreign);
        };
        if first >> 32 != u64::from(MAGIC) || run != self.run {
            return Err(Damage::Foreign);
        }
        let stream = u32::try_from(first & u64::from(u32::MAX)).map_err(|_| Damage::Foreign)?;
        let (_, folded) = self.slices[slice_of(stream, sequence)];
        let same = message[HEAD_BYTES..] == *self.body(stream, sequence);
        if same && check == self.check_of(stream, sequence, folded) {
            Ok((stream, sequence))
        } else {
            Err(Damage::Changed)
        }
    }

    fn check_of(&self, stream: u32, sequence: u64, folded: u64) -> u64 {
        mix(mix(mix(folded, self.run), u64::from(stream)), sequence)
    }
}

fn slice_of(stream: u32, sequence: u64) -> usize {
    let at = (sequence % to_u64(SLICE_COUNT) + u64::from(stream) * 7) % to_u64(SLICE_COUNT);
    usize::try_from(at).expect("it is below SLICE_COUNT")
}

fn to_u64(value: usize) -> u64 {
    anchorlog_engine::units::to_u64(value)
}

/// A 64-bit fold of any bytes, word by word.
fn fold(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mut folded = mix(0, to_u64(bytes.len()));
    for word in &mut words {
        folded = mix(folded, u64::from_be_bytes(word.try_into().expect("chunks of eight")));
    }
    words.remainder().iter().fold(folded, |folded, byte| mix(folded, u64::from(*byte)))
}

/// A bijection of `folded` for every `word`, so that no change of a single word goes unnoticed.
fn mix(folded: u64, word: u64) -> u64 {
    let stirred = (folded ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    stirred ^ (stirred >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payloads: &Payloads, stream: u32, sequence: u64) -> Vec<u8> {
        let mut message = payloads.head(stream, sequence).to_vec();
        message.extend_from_slice(payloads.body(stream, sequence));
        message
    }

    #[test]
    fn a_message_says_where_it_belongs() {
        for size in [SIZE_MIN, 128, 1000, SIZE_MAX] {
            let payloads = Payloads::new(size, 7);
            let sent = message(&payloads, 3, 1 << 40);
            assert_eq!(sent.len(), payloads.size());
            assert_eq!(payloads.judge(&sent), Ok((3, 1 << 40)));
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let payloads = Payloads::new(128, 7);
        let sent = message(&payloads, 3, 9);
        for at in 0..sent.len() {
            let mut changed = sent.clone();
            changed[at] ^= 0x10;
            assert!(payloads.judge(&changed).is_err(), "byte {at}");
        }
        assert_eq!(payloads.judge(&sent[..127]), Err(Damage::Changed));
        assert_eq!(payloads.judge(&sent[..20]), Err(Damage::Foreign));
    }

    #[test]
    fn another_runs_messages_are_foreign() {
        let sent = message(&Payloads::new(128, 7), 3, 9);
        assert_eq!(Payloads::new(128, 8).judge(&sent), Err(Damage::Foreign));
    }
}
