//! Publishing progress and waiting for it.
//!
//! Invariants:
//! 1. `dispatched <= acked`, `acked <= durable` under synchronous flush (`<= assigned` under asynchronous),
//!    `durable <= written <= assigned`. With replicated acks `acked <= replicated` too, while the ack rule asks for it.
//! 2. A watermark only grows and has one writer; replicated acks are settled by whoever moved one of the two, one at a time.
//! 3. After fencing nothing is acknowledged: `acked` stays where it is, and whoever waits for more gets the error.
//! 4. Nobody is woken for a group that does not cover him: blocked callers sleep on the futex word of the group that will.
//!
//! The cost that decided the shape: one wake-up per message caps at a quarter of a million acks a second on two cores, one per group at
//! ten times that. So a thread with many appends in flight subscribes ([`Subscription`]) and looks at the number.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::task::Waker;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Fenced, WaitError};
use crate::io::sys::{self, EventFd};
use crate::units::Lsn;

/// Which of the log's progress marks. Each is an exclusive end, only grows, and has one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watermark {
    /// LSN given out up to here: the log grew. Some of it may be lost with the process, or with power.
    Assigned,
    /// Write calls completed up to here: buffer space before it is free again.
    Written,
    /// On stable storage up to here.
    Durable,
    /// Acknowledged up to here, under the engine's flush mode and its ack rule.
    Acked,
    /// Readable through queues up to here.
    Dispatched,
}

/// All watermarks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// First byte retained.
    pub start: Lsn,
    /// LSN given out up to here.
    pub assigned: Lsn,
    /// Write calls completed.
    pub written: Lsn,
    /// On stable storage.
    pub durable: Lsn,
    /// Acknowledged.
    pub acked: Lsn,
    /// In the queues.
    pub dispatched: Lsn,
}

/// Futex words: one for each group in a row of four, so that a waiter behind the cut is not woken by the group before it.
const WORD_COUNT: u32 = 4;

/// One watermark with its sleepers.
struct Gate {
    value: AtomicU64,
    /// Twice the number of groups begun, odd while a group is being announced (a sequence lock over `cut`).
    groups: AtomicU32,
    cut: AtomicU64,
    words: [AtomicU32; WORD_COUNT as usize],
    sleepers: AtomicUsize,
}

impl Gate {
    fn new(value: Lsn) -> Gate {
        Gate {
            value: AtomicU64::new(value.0),
            groups: AtomicU32::new(0),
            cut: AtomicU64::new(value.0),
            words: Default::default(),
            sleepers: AtomicUsize::new(0),
        }
    }

    fn load(&self) -> Lsn {
        Lsn(self.value.load(Ordering::SeqCst))
    }

    fn begin_group(&self, cut: Lsn) {
        self.groups.fetch_add(1, Ordering::SeqCst);
        self.cut.store(cut.0, Ordering::SeqCst);
        self.groups.fetch_add(1, Ordering::SeqCst);
    }

    /// The futex word of the group that will cover `target`.
    fn word_for(&self, target: Lsn) -> &AtomicU32 {
        loop {
            let before = self.groups.load(Ordering::SeqCst);
            let cut = self.cut.load(Ordering::SeqCst);
            let after = self.groups.load(Ordering::SeqCst);
            if before == after && before.is_multiple_of(2) {
                let group = before / 2 + u32::from(target.0 > cut);
                return &self.words[(group % WORD_COUNT) as usize];
            }
            std::thread::yield_now();
        }
    }

    fn advance(&self, value: Lsn, one_group: bool) {
        self.value.store(value.0, Ordering::SeqCst);
        self.wake(one_group);
    }

    fn wake(&self, one_group: bool) {
        if self.sleepers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let group = self.groups.load(Ordering::SeqCst) / 2;
        for (index, word) in (0..WORD_COUNT).zip(&self.words) {
            if !one_group || index == group % WORD_COUNT {
                word.fetch_add(1, Ordering::SeqCst);
                sys::futex_wake(word, u32::MAX / 2);
            }
        }
    }
}

/// A descriptor's side of a watermark.
#[derive(Debug)]
struct Armed {
    mark: Watermark,
    target: AtomicU64,
    event: EventFd,
}

/// What acknowledgement waits for on other machines.
struct Replication {
    replicated: AtomicU64,
    /// Whether the ack rule asks for it.
    counts: AtomicBool,
    acked: Gate,
    settling: Mutex<()>,
}

/// Every watermark of one engine.
pub(crate) struct Marks {
    /// Whether an append is acknowledged as soon as it is assigned.
    ack_at_copy: bool,
    start: AtomicU64,
    assigned: AtomicU64,
    /// The lowest end of the log that somebody waits for; `u64::MAX` while nobody does.
    assigned_wanted: AtomicU64,
    /// Follows `assigned` when somebody waits for it.
    grown: Gate,
    written: Gate,
    durable: Gate,
    dispatched: Gate,
    replication: Option<Replication>,
    /// Where acknowledgement ended when the log was fenced; `u64::MAX` before.
    acked_end: AtomicU64,
    fence: OnceLock<Fenced>,
    closing: AtomicBool,
    armed: RwLock<Vec<Arc<Armed>>>,
    wakers: Mutex<BTreeMap<(Lsn, u64), Waker>>,
    waker_count: AtomicUsize,
    next_waker: AtomicU64,
}

impl Marks {
    pub(crate) fn new(ack_at_copy: bool, start: Lsn, end: Lsn) -> Marks {
        Marks {
            ack_at_copy,
            start: AtomicU64::new(start.0),
            assigned: AtomicU64::new(end.0),
            assigned_wanted: AtomicU64::new(u64::MAX),
            grown: Gate::new(end),
            written: Gate::new(end),
            durable: Gate::new(end),
            dispatched: Gate::new(end),
            replication: None,
            acked_end: AtomicU64::new(u64::MAX),
            fence: OnceLock::new(),
            closing: AtomicBool::new(false),
            armed: RwLock::new(Vec::new()),
            wakers: Mutex::new(BTreeMap::new()),
            waker_count: AtomicUsize::new(0),
            next_waker: AtomicU64::new(0),
        }
    }

    /// Lets acknowledgement wait for other machines, too. What is known of them: everything up to `acked` is acknowledged, and up to
    /// `dispatched` it is in the queues.
    pub(crate) fn replicated(mut self, acked: Lsn, dispatched: Lsn) -> Marks {
        self.dispatched = Gate::new(dispatched);
        self.replication = Some(Replication {
            replicated: AtomicU64::new(acked.0),
            counts: AtomicBool::new(true),
            acked: Gate::new(acked),
            settling: Mutex::new(()),
        });
        self
    }

    pub(crate) fn load(&self, mark: Watermark) -> Lsn {
        match mark {
            Watermark::Assigned => self.assigned(),
            Watermark::Written => self.written.load(),
            Watermark::Durable => self.durable.load(),
            Watermark::Acked => self.acked(),
            Watermark::Dispatched => self.dispatched.load(),
        }
    }

    pub(crate) fn acked(&self) -> Lsn {
        let reached = match &self.replication {
            None => self.local(),
            Some(replication) => replication.acked.load(),
        };
        reached.min(Lsn(self.acked_end.load(Ordering::SeqCst)))
    }

    /// How far this machine's part of the ack rule is kept.
    fn local(&self) -> Lsn {
        if self.ack_at_copy { self.assigned() } else { self.durable.load() }
    }

    /// Moves `acked` to where both parts of the ack rule let it; does nothing without replicated acks.
    fn settle(&self) {
        let Some(replication) = &self.replication else { return };
        let end = {
            let _settling = replication.settling.lock().expect("settling is intact");
            let mut end = self.local().min(Lsn(self.acked_end.load(Ordering::SeqCst)));
            if replication.counts.load(Ordering::SeqCst) {
                end = end.min(Lsn(replication.replicated.load(Ordering::SeqCst)));
            }
            if end <= replication.acked.load() {
                return;
            }
            replication.acked.advance(end, false);
            end
        };
        self.notify(Watermark::Acked, end);
    }

    /// How far other machines have the log; `None` without replicated acks.
    pub(crate) fn replicated_lsn(&self) -> Option<Lsn> {
        self.replication.as_ref().map(|replication| Lsn(replication.replicated.load(Ordering::SeqCst)))
    }

    /// Tells how far other machines have the log. Only grows.
    pub(crate) fn set_replicated(&self, end: Lsn) {
        if let Some(replication) = &self.replication
            && replication.replicated.fetch_max(end.0, Ordering::SeqCst) < end.0
        {
            self.settle();
        }
    }

    /// Whether acknowledgement waits for other machines from now on.
    pub(crate) fn set_replicas_count(&self, counts: bool) {
        if let Some(replication) = &self.replication {
            replication.counts.store(counts, Ordering::SeqCst);
            self.settle();
        }
    }

    pub(crate) fn assigned(&self) -> Lsn {
        Lsn(self.assigned.load(Ordering::SeqCst))
    }

    pub(crate) fn start(&self) -> Lsn {
        Lsn(self.start.load(Ordering::SeqCst))
    }

    pub(crate) fn set_start(&self, start: Lsn) {
        self.start.fetch_max(start.0, Ordering::SeqCst);
    }

    pub(crate) fn all(&self) -> Watermarks {
        // Read from the smallest to the largest, so that the order holds in what is returned.
        let start = self.start();
        let dispatched = self.dispatched.load();
        let durable = self.durable.load();
        let acked = self.acked();
        let written = self.written.load();
        Watermarks { start, dispatched, durable, acked, written, assigned: self.assigned() }
    }

    /// Tells that the log was assigned up to `end`. Called under the append lock.
    pub(crate) fn set_assigned(&self, end: Lsn) {
        self.assigned.store(end.0, Ordering::SeqCst);
        if self.assigned_wanted.load(Ordering::SeqCst) <= end.0 {
            self.tell_growth(end);
        }
        if self.ack_at_copy {
            if self.replication.is_some() {
                self.settle();
            } else {
                self.notify(Watermark::Acked, end);
            }
        }
    }

    fn tell_growth(&self, end: Lsn) {
        self.assigned_wanted.store(u64::MAX, Ordering::SeqCst);
        self.grown.advance(end, false);
        self.notify(Watermark::Assigned, end);
        // Whoever wants more is not forgotten.
        for armed in self.armed.read().expect("subscriptions are intact").iter() {
            if armed.mark == Watermark::Assigned {
                self.assigned_wanted.fetch_min(armed.target.load(Ordering::SeqCst), Ordering::SeqCst);
            }
        }
    }

    /// Announces that the next advance of `durable` will be to `cut`.
    pub(crate) fn begin_group(&self, cut: Lsn) {
        self.written.begin_group(cut);
        self.durable.begin_group(cut);
    }

    pub(crate) fn set_written(&self, end: Lsn) {
        self.written.advance(end, false);
        self.notify(Watermark::Written, end);
    }

    /// `one_group`: at most one announced group ends here.
    pub(crate) fn set_durable(&self, end: Lsn, one_group: bool) {
        self.durable.advance(end, one_group);
        self.notify(Watermark::Durable, end);
        if self.replication.is_some() {
            self.settle();
            // Whoever waits for other machines has nothing to wait for here any more.
            if self.is_closing() {
                self.wake_everybody();
            }
        } else if !self.ack_at_copy {
            self.notify(Watermark::Acked, end);
        }
    }

    pub(crate) fn set_dispatched(&self, end: Lsn) {
        self.dispatched.advance(end, false);
        self.notify(Watermark::Dispatched, end);
    }

    fn notify(&self, mark: Watermark, end: Lsn) {
        for armed in self.armed.read().expect("subscriptions are intact").iter() {
            if armed.mark == mark && armed.target.load(Ordering::SeqCst) <= end.0 {
                armed.fire(end);
                // What ends everything may have come while the target was in hand.
                if self.fence.get().is_some() || self.is_closing() {
                    armed.fire(Lsn::MAX);
                }
            }
        }
        if mark == Watermark::Acked && self.waker_count.load(Ordering::SeqCst) > 0 {
            let due = {
                let mut wakers = self.wakers.lock().expect("wakers are intact");
                let later = wakers.split_off(&(end.plus(1), 0));
                let due = std::mem::replace(&mut *wakers, later);
                self.waker_count.fetch_sub(due.len(), Ordering::SeqCst);
                due
            };
            // Outside the lock: a waker may run anything.
            due.into_values().for_each(wake);
        }
    }

    /// Ends acknowledgement for good. The first call counts.
    pub(crate) fn set_fenced(&self, fenced: Fenced) {
        {
            let settling = self.replication.as_ref().map(|replication| replication.settling.lock());
            self.acked_end.fetch_min(self.acked().0, Ordering::SeqCst);
            drop(settling);
        }
        if self.fence.set(fenced).is_ok() {
            tracing::error!(reason = %self.fence.get().expect("just set"), "log fenced");
        }
        self.wake_everybody();
    }

    pub(crate) fn set_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake_everybody();
    }

    fn wake_everybody(&self) {
        let acked = self.replication.as_ref().map(|replication| &replication.acked);
        for gate in [&self.grown, &self.written, &self.durable, &self.dispatched].into_iter().chain(acked) {
            gate.wake(false);
        }
        for armed in self.armed.read().expect("subscriptions are intact").iter() {
            armed.fire(Lsn::MAX);
        }
        let wakers = std::mem::take(&mut *self.wakers.lock().expect("wakers are intact"));
        self.waker_count.fetch_sub(wakers.len(), Ordering::SeqCst);
        wakers.into_values().for_each(wake);
    }

    pub(crate) fn fenced(&self) -> Option<&Fenced> {
        self.fence.get()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Whether `target` is reached; an error when it never will be in this run.
    pub(crate) fn poll(&self, mark: Watermark, target: Lsn) -> Result<bool, WaitError> {
        if self.load(mark) >= target {
            return Ok(true);
        }
        if let Some(fenced) = self.fenced() {
            return Err(WaitError::Fenced(fenced.clone()));
        }
        // What was assigned is still committed while closing; other machines may never have it.
        let waits_for_others = mark == Watermark::Acked && self.replication.is_some() && self.local() >= target;
        if waits_for_others && self.is_closing() {
            return Err(WaitError::Closing);
        }
        Ok(false)
    }

    /// Sleeps until the watermark is at least `target`.
    pub(crate) fn wait(
        &self,
        mark: Watermark,
        target: Lsn,
        clock: &dyn Clock,
        timeout: Option<Duration>,
    ) -> Result<(), WaitError> {
        if self.poll(mark, target)? {
            return Ok(());
        }
        let gate = match (mark, &self.replication) {
            (Watermark::Assigned, _) => &self.grown,
            (Watermark::Written, _) => &self.written,
            (Watermark::Acked, Some(replication)) => &replication.acked,
            (Watermark::Durable | Watermark::Acked, _) => &self.durable,
            (Watermark::Dispatched, _) => &self.dispatched,
        };
        let deadline = timeout.map(|timeout| clock.monotonic() + timeout);
        gate.sleepers.fetch_add(1, Ordering::SeqCst);
        let outcome = loop {
            let word = gate.word_for(target);
            let seen = word.load(Ordering::SeqCst);
            // Held up before that load, it may have read the word of a group that was cut short and is over.
            if !std::ptr::eq(word, gate.word_for(target)) {
                continue;
            }
            if mark == Watermark::Assigned {
                self.assigned_wanted.fetch_min(target.0, Ordering::SeqCst);
            }
            match self.poll(mark, target) {
                Ok(true) => break Ok(()),
                Ok(false) if self.is_closing() && self.closed_for(target) => break Err(WaitError::Closing),
                Ok(false) => {}
                Err(error) => break Err(error),
            }
            let left = match deadline {
                None => None,
                Some(deadline) => match deadline.checked_sub(clock.monotonic()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => break Err(WaitError::TimedOut),
                },
            };
            sys::futex_wait(word, seen, left);
        };
        gate.sleepers.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    /// While closing, what was assigned is still committed; what lies beyond never will be.
    fn closed_for(&self, target: Lsn) -> bool {
        target > self.assigned()
    }

    /// Registers the waker of one ticket, in the place of the one before.
    pub(crate) fn set_waker(&self, target: Lsn, id: &mut Option<u64>, waker: Waker) {
        let id = *id.get_or_insert_with(|| self.next_waker.fetch_add(1, Ordering::Relaxed));
        let mut wakers = self.wakers.lock().expect("wakers are intact");
        if wakers.insert((target, id), waker).is_none() {
            self.waker_count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Takes a ticket's waker back.
    pub(crate) fn remove_waker(&self, target: Lsn, id: u64) {
        if self.wakers.lock().expect("wakers are intact").remove(&(target, id)).is_some() {
            self.waker_count.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// `watch_count`: raised as long as the subscription lives.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        mark: Watermark,
        watch_count: Option<Arc<AtomicUsize>>,
    ) -> std::io::Result<Subscription> {
        let armed = Arc::new(Armed { mark, target: AtomicU64::new(u64::MAX), event: EventFd::new()? });
        self.armed.write().expect("subscriptions are intact").push(Arc::clone(&armed));
        if let Some(count) = &watch_count {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Subscription { marks: Arc::clone(self), armed, watch_count })
    }
}

/// A waker is the embedder's code: its panic is his, not the commit thread's.
fn wake(waker: Waker) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("a waker panicked");
    }
}

impl Armed {
    fn fire(&self, end: Lsn) {
        let target = self.target.swap(u64::MAX, Ordering::SeqCst);
        if target == u64::MAX {
            return;
        }
        if target <= end.0 {
            self.event.signal();
        } else {
            // Armed again, further on, between the caller's look and the swap.
            self.target.fetch_min(target, Ordering::SeqCst);
        }
    }
}

/// Many appends' progress through one descriptor: armed with an LSN, it becomes readable (an eventfd) once the watermark is there, or the
/// log is fenced or closing. No wake-up per message.
pub struct Subscription {
    marks: Arc<Marks>,
    armed: Arc<Armed>,
    /// Somebody waits for queues: the dispatcher is not to let messages lie.
    watch_count: Option<Arc<AtomicUsize>>,
}

impl Subscription {
    /// Becomes readable when it fires. To be polled, not read: [`Subscription::drain`] does that.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.armed.event.as_fd()
    }

    /// Fires once the watermark is at least `target`, at once when it is already. The lowest target armed since it last fired counts.
    pub fn arm(&self, target: Lsn) {
        self.armed.target.fetch_min(target.0, Ordering::SeqCst);
        if self.armed.mark == Watermark::Assigned {
            self.marks.assigned_wanted.fetch_min(target.0, Ordering::SeqCst);
        }
        let now = self.current();
        if now >= target || self.marks.fenced().is_some() || self.marks.is_closing() {
            self.armed.fire(if now >= target { now } else { Lsn::MAX });
        }
    }

    /// The watermark now; makes the descriptor unreadable again.
    #[must_use]
    pub fn drain(&self) -> Lsn {
        let _was_readable = self.armed.event.drain();
        self.current()
    }

    /// The watermark now.
    #[must_use]
    pub fn current(&self) -> Lsn {
        self.marks.load(self.armed.mark)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut all = self.marks.armed.write().expect("subscriptions are intact");
        all.retain(|armed| !Arc::ptr_eq(armed, &self.armed));
        if let Some(count) = &self.watch_count {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("armed", &self.armed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::clock::SystemClock;

    fn marks() -> Arc<Marks> {
        Arc::new(Marks::new(false, Lsn::ZERO, Lsn::ZERO))
    }

    fn fence(marks: &Marks) {
        let source = Arc::new(io::Error::other("broken"));
        marks.set_fenced(Fenced { lsn: marks.load(Watermark::Durable), what: "write".into(), source });
    }

    #[test]
    fn a_waiter_leaves_when_its_group_is_durable_and_not_before() {
        let marks = marks();
        marks.set_assigned(Lsn(300));
        marks.begin_group(Lsn(100));
        let waiter = {
            let marks = Arc::clone(&marks);
            std::thread::spawn(move || marks.wait(Watermark::Acked, Lsn(200), &SystemClock::new(), None))
        };
        marks.set_durable(Lsn(100), true);
        marks.begin_group(Lsn(300));
        assert!(!waiter.is_finished());
        marks.set_durable(Lsn(300), true);
        waiter.join().unwrap().unwrap();
    }

    #[test]
    fn waiting_ends_in_time_when_nothing_comes() {
        let marks = marks();
        let outcome = marks.wait(Watermark::Acked, Lsn(1), &SystemClock::new(), Some(Duration::from_millis(5)));
        assert!(matches!(outcome, Err(WaitError::TimedOut)));
    }

    #[test]
    fn a_fence_fails_waiters_and_freezes_acks() {
        let marks = marks();
        marks.set_assigned(Lsn(500));
        marks.set_durable(Lsn(100), true);
        fence(&marks);
        marks.set_durable(Lsn(500), true);
        assert_eq!(marks.acked(), Lsn(100));
        let outcome = marks.wait(Watermark::Acked, Lsn(200), &SystemClock::new(), None);
        assert!(matches!(outcome, Err(WaitError::Fenced(_))));
        assert!(marks.wait(Watermark::Acked, Lsn(100), &SystemClock::new(), None).is_ok());
    }

    #[test]
    fn a_subscription_fires_once_for_the_lowest_target() {
        let marks = marks();
        let subscription = marks.subscribe(Watermark::Acked, None).unwrap();
        subscription.arm(Lsn(50));
        subscription.arm(Lsn(20));
        marks.set_durable(Lsn(10), true);
        assert!(!subscription.armed.event.drain());
        marks.set_durable(Lsn(30), true);
        assert!(subscription.armed.event.drain());
        marks.set_durable(Lsn(60), true);
        assert!(!subscription.armed.event.drain(), "it is not armed any more");
        subscription.arm(Lsn(60));
        assert!(subscription.armed.event.drain(), "already there");
    }
}
