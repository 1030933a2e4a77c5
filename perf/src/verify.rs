//! The accounts: what was sent, what was acknowledged, what was found, and what that says.
//!
//! A *stream* is a sequence of messages each of which was sent after its predecessor (by one thread in one order, or by a slot of a
//! connection that waits for the answer), into one queue. So within a stream:
//! 1. an acknowledged message that is not found, and that retention did not recycle, is **lost**;
//! 2. a message found twice is **duplicated**;
//! 3. a message found behind a later one is **out of order**;
//! 4. a message whose bytes changed is **damaged** (and, if it was acknowledged, lost as well).
//!
//! A message that was sent and never acknowledged may be found or not: both are right.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::payload::{Damage, Payloads};

/// What was sent in one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamLedger {
    /// Messages sent: sequences `0..sent`.
    pub(crate) sent: u64,
    /// Those of them that were not acknowledged.
    pub(crate) unacked: BTreeSet<u64>,
    /// Sequences below this were recycled by retention before they could be read back.
    pub(crate) recycled: u64,
}

/// The verdict, in messages. `lost`, `duplicated`, `out_of_order`, `damaged` and `unexpected` are zero for a log that keeps its promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// Acknowledged by the log.
    pub(crate) acked: u64,
    /// Acknowledged, and recycled by retention (the row's store is bounded) before reading back.
    pub(crate) recycled: u64,
    /// Read back.
    pub(crate) read: u64,
    /// Acknowledged, not recycled, not found.
    pub(crate) lost: u64,
    /// Found again after they had been found.
    pub(crate) duplicated: u64,
    /// Found behind a later message of their stream.
    pub(crate) out_of_order: u64,
    /// Found with other bytes than were sent.
    pub(crate) damaged: u64,
    /// Found although nobody sent them.
    pub(crate) unexpected: u64,
}

impl Verified {
    /// Whether every promise was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.out_of_order + self.damaged + self.unexpected == 0
    }

    /// Both together.
    pub(crate) fn plus(self, other: Verified) -> Verified {
        Verified {
            acked: self.acked + other.acked,
            recycled: self.recycled + other.recycled,
            read: self.read + other.read,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            out_of_order: self.out_of_order + other.out_of_order,
            damaged: self.damaged + other.damaged,
            unexpected: self.unexpected + other.unexpected,
        }
    }
}

#[derive(Default)]
struct Seen {
    bits: Vec<u64>,
    /// One more than the highest sequence found.
    end: u64,
}

impl Seen {
    /// Marks a sequence; false when it was marked before.
    fn mark(&mut self, sequence: u64) -> bool {
        let (word, bit) = place(sequence);
        if word >= self.bits.len() {
            self.bits.resize((word + 1).next_power_of_two(), 0);
        }
        let fresh = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        fresh
    }

    fn has(&self, sequence: u64) -> bool {
        let (word, bit) = place(sequence);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(sequence: u64) -> (usize, u64) {
    (anchorlog_engine::units::to_usize(sequence / 64), 1 << (sequence % 64))
}

/// Takes messages in the order in which each queue gives them.
pub(crate) struct Verifier {
    seen: Vec<Seen>,
    counted: Verified,
}

impl Verifier {
    /// For `streams` streams. What was sent is told at the end, so that a reader can run beside the producers.
    pub(crate) fn new(streams: usize) -> Verifier {
        Verifier { seen: (0..streams).map(|_| Seen::default()).collect(), counted: Verified::default() }
    }

    /// A message as it was read.
    pub(crate) fn take(&mut self, payloads: &Payloads, message: &[u8]) {
        match payloads.judge(message) {
            Ok((stream, sequence)) => self.found(stream, sequence),
            Err(Damage::Changed) => {
                self.counted.read += 1;
                self.counted.damaged += 1;
            }
            Err(Damage::Foreign) => {
                self.counted.read += 1;
                self.counted.unexpected += 1;
            }
        }
    }

    /// A message that is as it was sent.
    pub(crate) fn found(&mut self, stream: u32, sequence: u64) {
        self.counted.read += 1;
        let Some(seen) = self.seen.get_mut(stream as usize) else {
            self.counted.unexpected += 1;
            return;
        };
        if !seen.mark(sequence) {
            self.counted.duplicated += 1;
        } else if sequence < seen.end {
            self.counted.out_of_order += 1;
        } else {
            seen.end = sequence + 1;
        }
    }

    /// Messages taken so far.
    pub(crate) fn read(&self) -> u64 {
        self.counted.read
    }

    /// The lowest sequence of a stream that was found.
    pub(crate) fn first_found(&self, stream: usize) -> Option<u64> {
        let bits = &self.seen.get(stream)?.bits;
        let word = bits.iter().position(|word| *word != 0)?;
        Some(word as u64 * 64 + u64::from(bits[word].trailing_zeros()))
    }

    /// Compares with what was sent.
    pub(crate) fn finish(self, ledgers: &[StreamLedger]) -> Verified {
        let mut verified = self.counted;
        for (seen, ledger) in self.seen.iter().zip(ledgers) {
            let acked_below = |end: u64| end - u64::try_from(ledger.unacked.range(..end).count()).unwrap_or(0);
            let floor = ledger.recycled.min(ledger.sent);
            verified.acked += acked_below(ledger.sent);
            verified.recycled += acked_below(floor);
            verified.lost += (floor..ledger.sent)
                .filter(|sequence| !seen.has(*sequence) && !ledger.unacked.contains(sequence))
                .count() as u64;
            verified.unexpected += (ledger.sent..seen.end).filter(|sequence| seen.has(*sequence)).count() as u64;
        }
        verified
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two streams of ten, of which number 4 of the second was never acknowledged; `change` edits what is read.
    fn verdict(change: impl FnOnce(&mut Vec<(u32, u64)>)) -> Verified {
        let mut found: Vec<(u32, u64)> = (0..10).flat_map(|sequence| [(0, sequence), (1, sequence)]).collect();
        change(&mut found);
        let mut verifier = Verifier::new(2);
        for (stream, sequence) in found {
            verifier.found(stream, sequence);
        }
        verifier.finish(&[
            StreamLedger { sent: 10, ..StreamLedger::default() },
            StreamLedger { sent: 10, unacked: BTreeSet::from([4]), recycled: 0 },
        ])
    }

    #[test]
    fn a_log_that_keeps_its_promises_is_clean() {
        let verified = verdict(|_| ());
        assert_eq!(verified, Verified { acked: 19, read: 20, ..Verified::default() });
        assert!(verified.is_clean());
    }

    #[test]
    fn a_lost_message_is_found_out() {
        let verified = verdict(|found| found.retain(|message| *message != (0, 5)));
        assert_eq!(verified, Verified { acked: 19, read: 19, lost: 1, ..Verified::default() });
        assert!(!verified.is_clean());
    }

    #[test]
    fn the_last_message_lost_is_found_out() {
        assert_eq!(verdict(|found| found.retain(|message| *message != (0, 9))).lost, 1);
    }

    #[test]
    fn a_message_without_ack_may_be_missing() {
        assert!(verdict(|found| found.retain(|message| *message != (1, 4))).is_clean());
    }

    #[test]
    fn a_duplicate_is_found_out() {
        let verified = verdict(|found| found.push((0, 9)));
        assert_eq!(verified, Verified { acked: 19, read: 21, duplicated: 1, ..Verified::default() });
    }

    #[test]
    fn disorder_is_found_out() {
        let verified = verdict(|found| found.swap(4, 6));
        assert_eq!(verified, Verified { acked: 19, read: 20, out_of_order: 1, ..Verified::default() });
    }

    #[test]
    fn order_between_streams_does_not_matter() {
        assert!(verdict(|found| found.sort_unstable()).is_clean());
    }

    #[test]
    fn what_nobody_sent_is_found_out() {
        assert_eq!(verdict(|found| found.push((0, 10))).unexpected, 1);
        assert_eq!(verdict(|found| found.push((2, 0))).unexpected, 1);
    }

    #[test]
    fn recycled_messages_are_not_lost_and_are_said() {
        let mut verifier = Verifier::new(1);
        assert_eq!(verifier.first_found(0), None);
        (6..10).for_each(|sequence| verifier.found(0, sequence));
        assert_eq!(verifier.first_found(0), Some(6));
        let ledger = StreamLedger { sent: 10, unacked: BTreeSet::from([2]), recycled: 6 };
        let verified = verifier.finish(&[ledger]);
        assert_eq!(verified, Verified { acked: 9, recycled: 5, read: 4, ..Verified::default() });
    }

    #[test]
    fn a_damaged_message_is_also_lost() {
        let payloads = Payloads::new(64, 1);
        let mut message = payloads.head(0, 0).to_vec();
        message.extend_from_slice(payloads.body(0, 0));
        message[63] ^= 1;
        let mut verifier = Verifier::new(1);
        verifier.take(&payloads, &message);
        verifier.take(&payloads, b"something else");
        let verified = verifier.finish(&[StreamLedger { sent: 1, ..StreamLedger::default() }]);
        assert_eq!((verified.lost, verified.damaged, verified.unexpected), (1, 1, 1));
    }
}
