//! Doing what the log says of its own start: in a replica always, in a leader what was said before it opened.
//!
//! The record that says so is acknowledged when it shows in the table; it is acted on once it is durable here as well. What survives is
//! what the lists say that stand in the table with it.

use std::time::Duration;

use crate::commit::watermark::Watermark;
use crate::limits;
use crate::retention::releaser::{Failure, Releaser};
use crate::retention::survivors;
use crate::units::Lsn;

impl Releaser {
    /// Does a piece of what is to be done; says when to look again, and `None` when the own rules count.
    pub(super) fn follow(&mut self, now: Duration) -> Result<Option<Duration>, Failure> {
        if now < self.review_at && self.is_caught_up {
            return Ok(Some(limits::HOUSEKEEPING_INTERVAL));
        }
        self.is_caught_up = false;
        if let Some(due) = self.follow_start()? {
            return Ok(Some(due));
        }
        self.is_caught_up = true;
        if !self.parts.follows {
            return Ok(None);
        }
        self.review_at = now + limits::REVIEW_INTERVAL;
        self.follow_survivors()?;
        self.drop_surplus().map(Some)
    }

    /// Lets go what lies below the start that the log names.
    fn follow_start(&mut self) -> Result<Option<Duration>, Failure> {
        let entry = self.parts.table.get(survivors::START_KEY)?;
        let start = survivors::start_of(entry.as_ref().map(|entry| &*entry.value));
        let current = self.parts.marks.start();
        if start <= current {
            // What a leader's log says behind what is acknowledged is done when it is; the own rules wait for that.
            let leaving = self.parts.retention.lock().expect("the retention rules are intact").leaving;
            let waits = !self.parts.follows && leaving > current;
            return Ok(waits.then_some(limits::HOUSEKEEPING_INTERVAL));
        }
        if !self.is_durable() || self.parts.segments.find(start).is_none() {
            return Ok(Some(Duration::from_millis(1)));
        }
        if start > self.parts.checkpoint.applied() {
            self.parts.checkpoint.want(start);
            (self.parts.wake_checkpointer)();
        }
        if start > self.parts.checkpoint.holds_back() {
            return Ok(Some(Duration::from_millis(1)));
        }
        let mut lists = self.parts.table.survivors()?;
        lists.retain(|(base, _)| (current..start).contains(base));
        for (base, list) in lists {
            self.parts.survivors.set(base, Some(list));
        }
        // Without room to say so in the manifest it is tried again.
        Ok(Some(if self.finish(start)? { Duration::ZERO } else { limits::RELEASE_FULL_RETRY }))
    }

    /// Takes over what the log says of survivors now.
    fn follow_survivors(&mut self) -> Result<(), Failure> {
        let start = self.parts.marks.start();
        let lists = self.parts.table.survivors()?;
        let said = self.parts.table.get(survivors::START_KEY)?;
        // After a power failure less may be known to be acknowledged than was acted on: what is not listed yet is not gone.
        if survivors::start_of(said.as_ref().map(|entry| &*entry.value)) < start || !self.is_durable() {
            return Ok(());
        }
        let mut changed = Vec::new();
        for (base, list) in &lists {
            let is_kept = *base < start && self.parts.segments.find(*base).is_some();
            if is_kept && self.parts.survivors.list(*base).as_ref() != Some(list) {
                self.parts.survivors.set(*base, Some(list.clone()));
                changed.push(*base);
            }
        }
        let is_listed = |base: &Lsn| lists.iter().any(|(listed, _)| listed == base);
        let gone = self.parts.survivors.bases().into_iter().filter(|base| *base < start && !is_listed(base));
        let gone: Vec<Lsn> = gone.collect();
        for base in &gone {
            self.parts.survivors.set(*base, None);
        }
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let (survivors, mut queues) = (&self.parts.survivors, Vec::new());
        self.parts.queues.release(start, |lsn| survivors.in_queue(lsn), |id| queues.push(id))?;
        (self.parts.queues_changed)(queues);
        for base in gone {
            self.parts.segments.remove_sparse(base)?;
            self.unpunched.remove(&base);
        }
        self.unpunched.extend(changed);
        Ok(())
    }

    /// Whether everything that shows in the table is durable here; asks for it if not.
    fn is_durable(&self) -> bool {
        let shown = self.parts.marks.load(Watermark::Dispatched);
        let durable = self.parts.marks.load(Watermark::Durable) >= shown;
        if !durable {
            (self.parts.hurry)(shown);
        }
        durable
    }
}
