//! What became of a message.

use serde::{Deserialize, Serialize};

use super::message::ShownMessage;

/// Asks what became of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ShowTrace {
    /// Its id: its producer's, or that of a place where it lies.
    pub id: String,
    /// The topic that clients send their own traces to; none are looked for when it is empty.
    pub trace_topic: Option<String>,
}

/// What became of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trace {
    /// Where it lies first, as far as that is known.
    pub message: Option<ShownMessage>,
    /// What happened, in the order of time.
    pub steps: Vec<Step>,
    /// There is more than is told.
    pub cut: bool,
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepKind {
    /// Its producer made it, by the producer's clock.
    Born,
    /// It was stored in its topic.
    #[default]
    Stored,
    /// It was stored to be delivered later.
    Delayed,
    /// It was stored as half of a transaction.
    Half,
    /// Its transaction was committed.
    Committed,
    /// Its transaction was rolled back.
    RolledBack,
    /// It is to be delivered at this time.
    Due,
    /// It was put into a topic after it had waited.
    Delivered,
    /// Its group gets it again.
    Retried,
    /// Its group has given it up.
    DeadLetter,
    /// An operator returned it.
    Returned,
    /// A group has committed an offset behind it.
    Consumed,
    /// A group has not come to it yet.
    Waiting,
    /// A client says that it sent it.
    ClientSent,
    /// A client says that it began to consume it.
    ClientBegan,
    /// A client says how consuming it went.
    ClientDone,
    /// A client says how its transaction ended.
    ClientEnded,
}

/// A step of a message's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Step {
    /// What happened.
    pub kind: StepKind,
    /// When, where that is known.
    pub at_ms: Option<u64>,
    /// The topic that it happened in.
    pub topic: Option<String>,
    /// The queue's number in it.
    pub queue: Option<u32>,
    /// The message's place in the queue.
    pub queue_offset: Option<u64>,
    /// The message's place in the log.
    pub lsn: Option<u64>,
    /// The group that it concerns.
    pub group: Option<String>,
    /// What else is to be said.
    pub note: Option<String>,
}
