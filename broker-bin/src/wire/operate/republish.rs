//! Moving what waits in a topic to another one.

use serde::{Deserialize, Serialize};

/// Asks how far a topic's queues are in another topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RepublishPair {
    /// Whose messages.
    pub from: String,
    /// Where they are put, too.
    pub to: String,
    /// For this group only: what it has not consumed, and it counts as consumed by then.
    pub group: Option<String>,
}

/// How far a topic's queues are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Republished {
    /// Queue by queue.
    pub queues: Vec<RepublishQueue>,
    /// How many queues the other topic has.
    pub to_queues: u32,
}

/// How far a queue is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RepublishQueue {
    /// Its number.
    pub queue: u32,
    /// The first message that is not there yet.
    pub next: u64,
    /// The end of what lies in the queue.
    pub end: u64,
    /// When the next message was stored.
    pub next_ms: Option<u64>,
}

/// Moves some messages of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RepublishStep {
    /// What is moved where.
    pub pair: RepublishPair,
    /// The queue.
    pub queue: u32,
    /// From here.
    pub at: u64,
    /// That was told by a step: it stands in the log just so.
    pub begun: bool,
    /// Only messages before this one.
    pub end: u64,
    /// Most of them.
    pub limit: Option<usize>,
    /// Goes on behind a message that can never be read again, as an operator said by name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_damaged: bool,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RepublishStepped {
    /// The first message that is not there yet.
    pub next: u64,
    /// So many are, by this step.
    pub moved: u64,
    /// So many were gone before they could be moved.
    pub gone: u64,
    /// The message before `next` was left behind, for this reason.
    pub damaged: Option<String>,
    /// When the next message was stored.
    pub next_ms: Option<u64>,
}
