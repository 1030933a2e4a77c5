//! Transactions that nobody has decided.

use serde::{Deserialize, Serialize};

use super::message::ShownMessage;

/// Asks for transactions that are not decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListTransactions {
    /// Of this producer group only.
    pub group: Option<String>,
    /// Meant for this topic only.
    pub topic: Option<String>,
    /// With this key, or this id of their producer, only.
    pub key: Option<String>,
    /// Only those that nobody is asked about any more.
    pub parked: bool,
    /// Behind this one.
    pub after: Option<String>,
    /// Most of them in one part.
    pub limit: Option<usize>,
}

/// Transactions that are not decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Transactions {
    /// In the order in which they began.
    pub transactions: Vec<TransactionTold>,
    /// Where the following part begins.
    pub next: Option<String>,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TransactionState {
    /// Its producer has not decided, and is asked.
    #[default]
    Pending,
    /// Nobody knew, and nobody is asked any more.
    Parked,
    /// Its message can be read.
    Committed,
    /// Nobody will see its message.
    RolledBack,
}

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TransactionTold {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: TransactionState,
    /// The producer group, while it is not decided.
    pub group: Option<String>,
    /// Where its message is meant to go, and in which queue.
    pub topic: Option<String>,
    /// The queue's number in it.
    pub queue: Option<u32>,
    /// Time since its message was stored.
    pub age_ms: Option<u64>,
    /// Questions so far to a producer that was there.
    pub checks: Option<u32>,
    /// When somebody is asked next.
    pub next_check_ms: Option<u64>,
    /// When it was decided.
    pub decided_ms: Option<u64>,
    /// Its message, while it is not decided.
    pub half: Option<ShownMessage>,
    /// Why its message cannot be shown.
    pub fault: Option<String>,
}

/// Asks for one transaction, its message whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShowTransaction {
    /// Its name, or the id of its half message by its place.
    pub id: String,
}

/// Decides a transaction. Answered without a body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecideTransaction {
    /// As for [`ShowTransaction`].
    pub id: String,
    /// Whether its message is to be read; else nobody will.
    pub commit: bool,
}
