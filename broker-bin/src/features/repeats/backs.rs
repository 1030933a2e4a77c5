//! Which messages were sent back lately, and by whom: by the place of the message and the group, which stand for one attempt.
//!
//! 1. What was sent back since the log was opened is known here, unless it is forgotten for want of room. What was sent back before is
//!    looked for in the log and the table, as long as that can matter: see [`Backs::may_be_older`].
//! 2. One at a time sends a message back.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use anchorlog_engine::Lsn;

use super::answers::Told;
use crate::counters::Counter;
use crate::limits;
use crate::lock::lock;

/// One attempt of a group at a message, to be sent back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Back {
    /// The group.
    pub group: Box<str>,
    /// The place of the message that the group has read.
    pub lsn: Lsn,
}

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Where the batch ends that did it; `None` while it has no place.
    pub end_lsn: Option<Lsn>,
    /// Who was told.
    pub told: Told,
}

#[derive(Debug, Default)]
struct Known {
    all: HashMap<Back, Sender>,
    /// As they were claimed; some of them are gone from `all`, or were claimed anew.
    order: VecDeque<(u64, Back)>,
    /// What lies before this may have been sent back before the log was opened; and until when that matters.
    opened: Lsn,
    opened_until_ms: u64,
    has_forgotten: bool,
}

/// All of them. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Backs(Mutex<Known>);

impl Backs {
    /// The log was opened, and ended there.
    pub(super) fn opened(&self, end: Lsn, until_ms: u64) {
        let mut known = lock(&self.0);
        (known.opened, known.opened_until_ms) = (end, until_ms);
    }

    /// Whether it may have been sent back within the window without being known here.
    #[must_use]
    pub fn may_be_older(&self, back: &Back, now_ms: u64) -> bool {
        let known = lock(&self.0);
        known.has_forgotten || back.lsn < known.opened && now_ms < known.opened_until_ms
    }

    /// Who sent it back since `since_ms`.
    #[must_use]
    pub fn look(&self, back: &Back, since_ms: u64) -> Option<Sender> {
        let known = lock(&self.0);
        known.all.get(back).copied().filter(|sender| sender.end_lsn.is_none() || sender.told.at_ms >= since_ms)
    }

    /// Claims it; false when it is not as it was `seen` any more.
    pub fn claim(&self, back: &Back, told: Told, seen: Option<Sender>, since_ms: u64, forgotten: &Counter) -> bool {
        let mut known = lock(&self.0);
        let known = &mut *known;
        let now = known.all.get(back).filter(|sender| sender.end_lsn.is_none() || sender.told.at_ms >= since_ms);
        if now.map(|sender| sender.end_lsn) != seen.map(|sender| sender.end_lsn) {
            return false;
        }
        known.all.insert(back.clone(), Sender { end_lsn: None, told });
        known.order.push_back((told.at_ms, back.clone()));
        while let Some((at_ms, _)) = known.order.front() {
            let is_over = *at_ms < since_ms;
            if !is_over && known.order.len() <= limits::BACKS_MAX {
                break;
            }
            let Some((at_ms, oldest)) = known.order.pop_front() else { break };
            if known.all.get(&oldest).is_some_and(|sender| sender.told.at_ms == at_ms) {
                known.all.remove(&oldest);
                if !is_over {
                    known.has_forgotten = true;
                    forgotten.add(1);
                }
            }
        }
        true
    }

    /// What was claimed has its place, which ends here.
    pub fn appended(&self, back: &Back, end_lsn: Lsn) {
        if let Some(sender) = lock(&self.0).all.get_mut(back) {
            sender.end_lsn = Some(end_lsn);
        }
    }

    /// It was sent back before, and somebody else is told so.
    pub fn tell(&self, back: &Back, told: Told) {
        let mut known = lock(&self.0);
        let known = &mut *known;
        // Somebody may be doing it once more already.
        if known.all.get(back).is_none_or(|sender| sender.end_lsn.is_some()) {
            // It is acknowledged: where it ends does not matter any more.
            known.all.insert(back.clone(), Sender { end_lsn: Some(Lsn::ZERO), told });
        }
        known.order.push_back((told.at_ms, back.clone()));
    }

    /// What was claimed is not done.
    pub fn undo(&self, back: &Back) {
        lock(&self.0).all.remove(back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ConnectionId;

    fn back(lsn: u64) -> Back {
        Back { group: "g".into(), lsn: Lsn(lsn) }
    }

    fn told(at_ms: u64) -> Told {
        let connection = ConnectionId { worker: 0, slot: 1, generation: 2 };
        Told { peer: "10.0.0.5:1".parse().expect("an address"), connection, at_ms }
    }

    #[test]
    fn one_at_a_time_sends_a_message_back_and_is_known_for_the_window() {
        let (backs, forgotten) = (Backs::default(), Counter::default());
        assert!(backs.look(&back(8), 0).is_none());
        assert!(backs.claim(&back(8), told(100), None, 0, &forgotten));
        assert!(!backs.claim(&back(8), told(101), None, 0, &forgotten), "somebody else does it");
        backs.undo(&back(8));
        assert!(backs.claim(&back(8), told(102), None, 0, &forgotten));
        backs.appended(&back(8), Lsn(64));
        let found = backs.look(&back(8), 102).expect("known");
        assert_eq!(found.end_lsn, Some(Lsn(64)));
        assert!(backs.look(&back(8), 103).is_none(), "the window is over");
        assert!(backs.claim(&back(8), told(103), Some(found), 0, &forgotten), "once more, knowing of the first time");
        backs.appended(&back(8), Lsn(128));
        for lsn in [8, 16] {
            backs.tell(&back(lsn), told(900));
            assert_eq!(backs.look(&back(lsn), 900).expect("known").told.at_ms, 900);
        }
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_looked_for_elsewhere_then() {
        let (backs, forgotten) = (Backs::default(), Counter::default());
        backs.opened(Lsn(80), 1000);
        assert!(backs.may_be_older(&back(72), 999) && !backs.may_be_older(&back(80), 0));
        assert!(!backs.may_be_older(&back(72), 1000));
        for lsn in 0..=limits::BACKS_MAX as u64 {
            assert!(backs.claim(&back(lsn), told(500), None, 0, &forgotten));
        }
        assert_eq!((forgotten.get(), backs.look(&back(0), 0).is_none()), (1, true));
        assert!(backs.may_be_older(&back(80), 0));
    }
}
