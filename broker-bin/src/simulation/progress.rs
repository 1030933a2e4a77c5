//! What a group has committed: the last answered value, or one that came later.

use std::collections::BTreeMap;

/// One queue's offset.
#[derive(Debug, Default)]
struct Committed {
    /// The last that was answered.
    sure: Option<u64>,
    /// What was said since, and not answered.
    later: Vec<u64>,
}

/// The offsets of one group, by topic and queue.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<(&'static str, u32), Committed>);

impl Progress {
    /// An offset is being committed.
    pub(super) fn says(&mut self, queue: (&'static str, u32), offset: u64) {
        self.0.entry(queue).or_default().later.push(offset);
    }

    /// That was answered 0.
    pub(super) fn said(&mut self, queue: (&'static str, u32), offset: u64) {
        let committed = self.0.entry(queue).or_default();
        committed.sure = Some(offset);
        if let Some(at) = committed.later.iter().position(|later| *later == offset) {
            committed.later.drain(..=at);
        }
    }

    /// What a queue's offset is found to be, now or after a crash; it is that from now on. `None`: none was committed.
    pub(super) fn found(&mut self, queue: (&'static str, u32), offset: Option<u64>) -> Result<(), String> {
        let committed = self.0.entry(queue).or_default();
        // A queue whose message 0 is there begins with it.
        let unknown = committed.sure.is_none() && offset.unwrap_or(0) == 0;
        if !unknown && offset != committed.sure && !committed.later.iter().any(|later| Some(*later) == offset) {
            return Err(format!("the offset of {queue:?} is {offset:?}, and may be one of {committed:?}"));
        }
        *committed = Committed { sure: committed.sure.and(offset).or(offset.filter(|_| !unknown)), later: Vec::new() };
        Ok(())
    }

    /// The queues that something was said of.
    pub(super) fn queues(&self) -> Vec<(&'static str, u32)> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: (&str, u32) = ("T1", 0);

    #[test]
    fn an_answered_offset_is_never_older_after_a_crash() {
        let mut progress = Progress::default();
        assert_eq!(progress.found(QUEUE, Some(0)), Ok(()), "nothing was committed");
        assert!(progress.found(QUEUE, Some(3)).is_err());
        progress.says(QUEUE, 1);
        progress.says(QUEUE, 5);
        progress.said(QUEUE, 5);
        progress.says(QUEUE, 7);
        assert!(progress.found(QUEUE, Some(1)).is_err());
        assert!(progress.found(QUEUE, Some(0)).is_err());
        assert!(progress.found(QUEUE, None).is_err());
        assert_eq!(progress.found(QUEUE, Some(7)), Ok(()));
        assert!(progress.found(QUEUE, Some(5)).is_err(), "it was found later than that");
    }
}
