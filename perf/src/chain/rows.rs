//! Which rows there are, in which order, and where between them the disk is probed.

use anchorlog_engine::BackendChoice;

use crate::open_loop::Load;
use crate::row::{Producers, RowSpec, Scale};

/// What a step measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Plain durable sends: what the others are held against.
    Send,
    /// Half message and commit.
    Transaction,
    /// Messages that are delivered later.
    Delay,
    /// Live sends while very many delayed messages fall due.
    Pending {
        /// How many.
        count: u64,
    },
    /// Messages that are sent back, and come again.
    Retry,
    /// A backlog, consumed plainly and in order: two rows.
    Backlog,
    /// Sends and ordered consumption at once, by so many queues.
    Queues {
        /// Of the topic.
        count: u32,
    },
    /// Commits of very many groups beside sends.
    Commits,
    /// All of it, from the send to the processed message.
    Whole {
        /// With every promise, or with none.
        safe: bool,
    },
}

impl Kind {
    /// What one count of its rows is.
    pub(crate) fn counts(self) -> &'static str {
        match self {
            Kind::Send => "durable sends",
            Kind::Transaction => "transactions: both answers are there",
            Kind::Delay => "durable sends, to be delivered later",
            Kind::Pending { .. } => "durable sends while others fall due",
            Kind::Retry => "messages sent back",
            Kind::Backlog => "messages processed",
            Kind::Queues { .. } => "messages sent and processed in order",
            Kind::Commits => "durable sends beside commits",
            Kind::Whole { .. } => "messages from the send to the processed message",
        }
    }

    /// Whether each count is one durable write of a message by as many producers as the row says: what the disk's limit is about.
    pub(crate) fn is_bounded(self) -> bool {
        matches!(self, Kind::Send | Kind::Transaction | Kind::Delay | Kind::Commits)
    }
}

/// One step of a run.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A round of the disk probe.
    Probe,
    /// Rows that are measured together.
    Rows(Kind, RowSpec),
}

/// Names of the rows among these steps.
pub(crate) fn row_names(steps: &[Step]) -> Vec<String> {
    steps
        .iter()
        .filter_map(|step| if let Step::Rows(_, spec) = step { Some(spec.name.clone()) } else { None })
        .collect()
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Seconds of a row.
    pub(crate) seconds: f64,
    /// Backend of all brokers.
    pub(crate) backend: BackendChoice,
    /// Messages that are pending.
    pub(crate) pending: u64,
    /// Parts of names; only rows that have one of them run. None: all do.
    pub(crate) only: &'a [String],
    /// How large the stores are.
    pub(crate) scale: &'static Scale,
}

/// Connections, and messages on their way on each.
const LOADS: [(usize, usize); 2] = [(64, 1), (8, 64)];
/// Queues that are many.
pub(super) const MANY_QUEUES: u32 = 64;

/// The steps of a run.
pub(crate) fn steps(wish: &Wish<'_>) -> Vec<Step> {
    let few = LOADS[0];
    let many = LOADS[1];
    let mut steps = vec![Step::Probe];
    let add = |steps: &mut Vec<Step>, name: String, kind: Kind, connections: (usize, usize)| {
        let named = |name: &str| wish.only.iter().any(|part| name.contains(part.as_str()));
        // The two rows of a backlog are measured in turns.
        let both = kind == Kind::Backlog && named("broker/orderly");
        if wish.only.is_empty() || named(&name) || both {
            steps.push(Step::Rows(kind, spec(wish, name, kind, connections)));
        }
    };
    for (count, each) in LOADS {
        for (what, kind) in [("send", Kind::Send), ("transaction", Kind::Transaction), ("delay", Kind::Delay)] {
            add(&mut steps, format!("broker/{what}/{}", count * each), kind, (count, each));
        }
    }
    add(&mut steps, "broker/delay/pending".to_owned(), Kind::Pending { count: wish.pending }, few);
    add(&mut steps, "broker/retry".to_owned(), Kind::Retry, few);
    steps.push(Step::Probe);
    add(&mut steps, "broker/consume".to_owned(), Kind::Backlog, many);
    for (name, count) in [("broker/many-queues", MANY_QUEUES), ("broker/one-queue", 1)] {
        add(&mut steps, name.to_owned(), Kind::Queues { count }, many);
    }
    add(&mut steps, "broker/commits".to_owned(), Kind::Commits, few);
    steps.push(Step::Probe);
    for (count, each) in LOADS {
        for safe in [false, true] {
            let name = format!("chain/{}/{}", if safe { "safe" } else { "fast" }, count * each);
            add(&mut steps, name, Kind::Whole { safe }, (count, each));
        }
    }
    steps
}

fn spec(wish: &Wish<'_>, name: String, kind: Kind, (count, each): (usize, usize)) -> RowSpec {
    RowSpec {
        name,
        durable: kind != Kind::Whole { safe: false },
        producers: Producers::Connections { count, each },
        backend: wish.backend,
        seconds: wish.seconds,
        size: wish.size,
        load: Load::Closed,
        follow: false,
        scale: wish.scale,
    }
}

/// The row that a row is held against, by name.
pub(crate) fn base_of(name: &str) -> Option<String> {
    let of = |what: &str, base: &str| name.strip_prefix(what).map(|load| format!("{base}{load}"));
    match name {
        "broker/delay/pending" => None,
        "broker/orderly" => Some("broker/consume".to_owned()),
        "broker/one-queue" => Some("broker/many-queues".to_owned()),
        _ => of("broker/transaction/", "broker/send/")
            .or_else(|| of("broker/delay/", "broker/send/"))
            .or_else(|| of("chain/safe/", "chain/fast/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish<'_> = Wish {
        size: 1024,
        seconds: 1.2,
        backend: BackendChoice::Auto,
        pending: 1000,
        only: &[],
        scale: &crate::row::FULL,
    };

    fn names(wish: &Wish<'_>) -> Vec<String> {
        let name = |step| match step {
            Step::Probe => "probe".to_owned(),
            Step::Rows(_, spec) => spec.name,
        };
        steps(wish).into_iter().map(name).collect()
    }

    #[test]
    fn every_row_has_what_it_is_held_against_before_it() {
        let names = names(&WISH);
        assert_eq!(names[..3], ["probe", "broker/send/64", "broker/transaction/64"]);
        assert_eq!(names.iter().filter(|name| *name == "probe").count(), 3);
        for name in &names {
            let Some(base) = base_of(name) else { continue };
            let at = |wanted: &str| names.iter().position(|name| name == wanted);
            assert!(at(&base) < at(name), "{base} comes before {name}");
        }
        for name in ["broker/transaction/512", "broker/retry", "broker/one-queue", "chain/safe/64", "chain/safe/512"] {
            assert!(names.iter().any(|found| found == name), "{name}");
        }
    }

    #[test]
    fn rows_can_be_picked() {
        let only = ["chain/safe".to_owned(), "orderly".to_owned()];
        let names = names(&Wish { only: &only, ..WISH });
        let rows: Vec<String> = names.into_iter().filter(|name| name != "probe").collect();
        assert_eq!(rows, ["broker/consume", "chain/safe/64", "chain/safe/512"]);
    }

    #[test]
    fn only_the_chain_without_promises_is_not_durable() {
        for step in steps(&WISH) {
            let Step::Rows(_, spec) = step else { continue };
            assert_eq!(spec.durable, !spec.name.starts_with("chain/fast"), "{}", spec.name);
        }
    }
}
