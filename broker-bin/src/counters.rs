//! What happened since the start, as numbers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// Counters that every network thread adds to.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])* pub $name: Counter,)* }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[doc = $doc])* pub $name: u64,)* }

        impl Counters {
            /// Reads them all.
            #[must_use]
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }
        }

        impl Counts {
            /// Every counter: its name, what it counts, its value.
            #[must_use]
            pub fn each(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*), self.$name),)*]
            }
        }
    };
}

/// Parts of a counter: threads that count at once have one each, unless there are more of them.
const PARTS: usize = 8;

thread_local! {
    static PART: usize = NEXT_PART.fetch_add(1, Ordering::Relaxed) % PARTS;
}
static NEXT_PART: AtomicUsize = AtomicUsize::new(0);

/// On a cache line of its own: threads that add do not take it from each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part(AtomicU64);

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter([Part; PARTS]);

impl Counter {
    /// Adds to it.
    pub fn add(&self, by: u64) {
        PART.with(|part| self.0[*part].0.fetch_add(by, Ordering::Relaxed));
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.iter().map(|part| part.0.load(Ordering::Relaxed)).sum()
    }
}

counters! {
    /// Connections accepted.
    connections,
    /// Requests taken, oneway ones included.
    requests,
    /// Messages answered as committed.
    messages_acked,
    /// Messages answered as stored and not confirmed in time.
    messages_unconfirmed,
    /// Messages refused; nothing of them is stored.
    sends_refused,
    /// Sends that waited because the log buffer was full.
    sends_blocked,
    /// Messages and send-backs that came again and were answered as the first time; nothing was stored for them.
    repeats_answered,
    /// Messages that were forgotten before their time for want of memory: they would be stored again.
    repeats_forgotten,
    /// Messages stored to be delivered later.
    messages_delayed,
    /// Messages delivered when their time had come.
    messages_delivered,
    /// Messages that were taken back before their time.
    messages_recalled,
    /// Entries that can never be done; they wait for an operator.
    entries_parked,
    /// Messages that consumers could not deal with, and get again.
    messages_sent_back,
    /// Messages that a group has given up; they wait for somebody to look at them.
    dead_letters,
    /// Calls that told of dead letters.
    alarms_made,
    /// Dead letters of which nobody could be told.
    alarms_failed,
    /// Dead letters that an operator returned.
    dead_letters_replayed,
    /// Half messages stored.
    transactions_begun,
    /// Transactions committed: their messages can be read.
    transactions_committed,
    /// Transactions rolled back.
    transactions_rolled_back,
    /// Questions to producers that had not decided in time.
    transactions_asked,
    /// Transactions that nobody decided; they are kept, and nobody is asked any more.
    transactions_parked,
    /// Verdicts that were refused: of another transaction, or contrary to the first.
    verdicts_refused,
    /// Queues locked for a consumer that did not have them before.
    queues_locked,
    /// Commits refused because the queue belongs to another member of the group.
    commits_refused,
    /// Commits that moved a group back.
    offsets_rewound,
    /// Pulls and commits of what was cut off, or of a queue before it was made anew; they were moved back.
    positions_moved,
    /// Times that members of a group began to subscribe differently, or to differ in another way.
    groups_differing,
    /// Heartbeats of consumers that a strict group keeps out.
    members_refused,
    /// Messages that a filter could not be applied to; they were passed over.
    filters_failed,
    /// Replies given to whoever asked.
    replies_pushed,
    /// Replies whose asker was not there, or did not take them.
    replies_failed,
    /// Messages given to consumers.
    messages_pulled,
    /// Pulls that were held.
    pulls_held,
    /// Pulls that read from the disk.
    pulls_cold,
    /// Connections closed because of bytes that are no frame.
    bad_frames,
    /// Connections closed because they did not read their answers.
    slow_readers,
    /// Connections closed because a request took too long to come, or too much of their address was unfinished.
    unfinished_closed,
    /// Times that a connection was not read until some of its sends were acknowledged.
    connections_held_back,
    /// Pulls refused because too many were held.
    pulls_refused,
    /// Connections closed because they were silent.
    idle_closed,
    /// Connections turned away because there were too many.
    connections_refused,
    /// Connections closed because they began without TLS where they must not, or with TLS that could not be agreed on.
    connections_turned_away,
    /// Times that the files of the certificate changed and were taken over.
    certificates_reloaded,
    /// Times that they changed and did not fit together: what was there before holds.
    certificates_refused,
    /// Requests with a code that is not offered.
    unknown_codes,
    /// Requests that whoever sent them may not make.
    requests_denied,
    /// Times that a file of accounts changed and was taken over.
    access_reloads,
    /// Times that it changed and could not be understood: what it said before holds.
    access_reloads_failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_add_is_one_number() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * PARTS {
                scope.spawn(|| (0..1000).for_each(|_| counters.requests.add(2)));
            }
        });
        assert_eq!((counters.requests.get(), counters.connections.get()), (32_000, 0));
    }
}
