//! What happened, in words, as a number, and counted.

use std::collections::VecDeque;
use std::time::Duration;

const HISTORY_LINES: usize = 60;

/// What was done, in words and as a number.
#[derive(Default)]
pub(crate) struct History {
    lines: VecDeque<String>,
    pub(crate) hash: u64,
}

impl History {
    pub(crate) fn fold(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    }

    pub(crate) fn note(&mut self, now: Duration, line: String) {
        line.bytes().for_each(|byte| self.fold(u64::from(byte)));
        if self.lines.len() == HISTORY_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>9.3} s: {line}", now.as_secs_f64()));
    }

    pub(crate) fn lines(&self) -> String {
        self.lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}

macro_rules! tally {
    ($($name:ident: $what:literal),+ $(,)?) => {
        /// How often something happened; the sum over all runs shows what was tried.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: u64),+
        }

        impl Tally {
            fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$(($what, self.$name)),+]
            }

            pub(crate) fn add(&mut self, other: &Tally) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

tally! {
    appended: "messages appended",
    promised: "messages acknowledged or shown",
    refused: "not admitted",
    links: "connections",
    link_errors: "connections that failed",
    silent: "connections that fell silent",
    replaced: "connections that were replaced",
    flipped: "bits turned around on the way",
    garbled: "bytes overwritten on the way",
    torn: "bytes that vanished from the middle",
    doubled: "bytes that came twice",
    abandoned: "connections that one end forgot",
    kills: "processes killed",
    crashes: "power failures",
    all_crashes: "power failures of all",
    cuts: "logs cut",
    anew: "logs begun anew",
    promotions: "promotions",
    no_quorum: "promotions without a quorum",
    superseded: "leaders that learned of a higher term",
    handed_over: "leaders that handed over",
    led_on: "leaders that could not",
    gave_way: "leaders that came back and gave way",
    waited: "leaders that came back and waited",
    unsafely: "promotions without the former leader",
    alone: "messages acknowledged by the leader alone",
    given_up: "of those lost, as was named",
    degraded: "leaders that degraded",
    members: "changes of members",
    unsure: "promotions while members changed",
    full_follower: "leaders that found a follower's disk full",
    partitions: "partitions",
    pauses: "nodes paused",
    stalls: "disks that stalled",
    full: "disks that were full",
    releases: "releases",
    kept: "messages kept by name",
    survivors: "segments that survivors keep",
}

impl Tally {
    /// Whether everything that a run can meet was met.
    pub(crate) fn is_full(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count > 0)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.counts().iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&parts.join(", "))
    }
}
