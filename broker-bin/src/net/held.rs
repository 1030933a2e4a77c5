//! Pulls that wait for a message.
//!
//! 1. A held pull is in the table, in the timers, and under watch in the engine: all three or none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::{Engine, Watcher};

use super::ReplyTo;
use crate::features::pull::Pull;

/// A pull that waits.
#[derive(Debug)]
pub(super) struct HeldPull {
    pub(super) pull: Box<Pull>,
    pub(super) to: ReplyTo,
    /// When it is answered in any case.
    pub(super) deadline: Duration,
}

/// Names a held pull; never used twice for two of them, so that a late event finds nothing.
pub(super) type Token = u64;

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    held: Option<HeldPull>,
}

/// All held pulls of one network thread.
#[derive(Debug, Default)]
pub(super) struct HeldPulls {
    slots: Vec<Slot>,
    free: Vec<u32>,
    deadlines: BTreeSet<(Duration, Token)>,
}

impl HeldPulls {
    /// Holds a pull until its queue has something behind [`Pull::from`].
    pub(super) fn hold(&mut self, engine: &Engine, watcher: &Arc<Watcher>, held: HeldPull) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("bounded by connections and pulls of each")
        });
        let place = &mut self.slots[slot as usize];
        let token = u64::from(place.generation) << 32 | u64::from(slot);
        self.deadlines.insert((held.deadline, token));
        let (queue, from) = (held.pull.queue.clone(), held.pull.from);
        place.held = Some(held);
        engine.watch(&queue, from, watcher, token);
        token
    }

    /// Takes a pull out; `None` when it is not held any more.
    pub(super) fn take(&mut self, token: Token) -> Option<HeldPull> {
        let slot = u32::try_from(token & 0xFFFF_FFFF).ok()?;
        let place = self.slots.get_mut(slot as usize)?;
        if u64::from(place.generation) != token >> 32 {
            return None;
        }
        let held = place.held.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        self.deadlines.remove(&(held.deadline, token));
        Some(held)
    }

    /// Takes a pull out before it was woken.
    pub(super) fn cancel(&mut self, engine: &Engine, watcher: &Arc<Watcher>, token: Token) -> Option<HeldPull> {
        let held = self.take(token)?;
        engine.unwatch(&held.pull.queue, watcher, token);
        Some(held)
    }

    /// The pull whose time is up first, if it is up.
    pub(super) fn due(&self, now: Duration) -> Option<Token> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, token)| *token)
    }

    /// Any pull.
    pub(super) fn any(&self) -> Option<Token> {
        self.deadlines.first().map(|(_, token)| *token)
    }

    /// Those that are meant.
    pub(super) fn those(&self, meant: impl Fn(&Pull) -> bool) -> Vec<Token> {
        let token = |(slot, place): (usize, &Slot)| {
            place.held.as_ref().filter(|held| meant(&held.pull))?;
            Some(u64::from(place.generation) << 32 | u64::try_from(slot).ok()?)
        };
        self.slots.iter().enumerate().filter_map(token).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.deadlines.len()
    }
}
