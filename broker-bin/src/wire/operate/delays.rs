//! What is to be delivered later.

use serde::{Deserialize, Serialize};

/// Asks for what is to be delivered later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListDelays {
    /// Into this topic only.
    pub topic: Option<String>,
    /// With this key only.
    pub key: Option<String>,
    /// Due at this time or later.
    pub from_ms: Option<u64>,
    /// Due before this time.
    pub to_ms: Option<u64>,
    /// Behind this one.
    pub after: Option<String>,
    /// Most of them in one part.
    pub limit: Option<usize>,
}

/// What is to be delivered later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delays {
    /// In the order in which they fall due.
    pub delays: Vec<Delayed>,
    /// Where the following part begins.
    pub next: Option<String>,
}

/// Why a message is delivered later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DelayKind {
    /// Its producer asked for a level of delay.
    #[default]
    Level,
    /// Its producer asked for a time.
    Time,
    /// A consumer could not deal with it, and its group gets it again.
    Retry,
}

/// A message that is to be delivered later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delayed {
    /// Names it until it is delivered.
    pub id: String,
    /// When it is due.
    pub due_ms: u64,
    /// Why it waits.
    pub kind: DelayKind,
    /// Where it goes.
    pub topic: String,
    /// The queue's number in it.
    pub queue: u32,
    /// What it will be found by; first its producer's id.
    pub keys: Vec<String>,
    /// Bytes that its record takes in the log.
    pub record_bytes: u32,
    /// Where the message lies in the log.
    pub lsn: Option<u64>,
}

/// Takes back what is to be delivered later: it never is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CancelDelay {
    /// Which.
    pub id: String,
    /// Also what a group is to get again, which nobody else keeps.
    pub force: bool,
}
