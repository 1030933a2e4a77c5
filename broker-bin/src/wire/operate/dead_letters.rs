//! Dead letters.

use serde::{Deserialize, Serialize};

use super::message::ShownMessage;

/// Asks which groups have dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListDeadLetterGroups {
    /// Behind this one.
    pub after: Option<String>,
    /// Most of them in one part.
    pub limit: Option<usize>,
}

/// Which groups have dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetterGroups {
    /// By their names.
    pub groups: Vec<DeadLetterGroup>,
    /// Where the following part begins.
    pub next: Option<String>,
}

/// A group's dead letters in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetterGroup {
    /// The group.
    pub group: String,
    /// How many there are, replayed ones among them.
    pub letters: u64,
    /// How many of them were replayed.
    pub replayed: u64,
    /// When the oldest came.
    pub oldest_ms: Option<u64>,
    /// When the newest came.
    pub newest_ms: Option<u64>,
}

/// Asks for a group's dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListDeadLetters {
    /// The group.
    pub group: String,
    /// Only the one with this id: its producer's, or that of its place.
    pub id: Option<String>,
    /// With this key only.
    pub key: Option<String>,
    /// That came at this time or later.
    pub from_ms: Option<u64>,
    /// That came before this time.
    pub to_ms: Option<u64>,
    /// Only those that were not replayed.
    pub waiting: bool,
    /// With properties and bodies.
    pub whole: bool,
    /// Behind this place, as an earlier part said it.
    pub after: Option<String>,
    /// Most of them in one part.
    pub limit: Option<usize>,
}

/// A group's dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetters {
    /// In the order in which they came.
    pub letters: Vec<DeadLetter>,
    /// The broker's time.
    pub now_ms: u64,
    /// Where the following part begins.
    pub next: Option<String>,
}

/// A dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetter {
    /// The message as it lies there.
    pub message: ShownMessage,
    /// The topic that it came from.
    pub origin_topic: Option<String>,
    /// Its last replay, if there was one.
    pub replayed: Option<Replayed>,
    /// Why it cannot be shown; its queue and place there are told all the same.
    pub fault: Option<String>,
}

/// The last replay of a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Replayed {
    /// When.
    pub at_ms: u64,
    /// How often by then.
    pub times: u32,
    /// The topic that it was returned to.
    pub topic: String,
}

/// Returns a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ReplayDeadLetter {
    /// The group.
    pub group: String,
    /// Its place in the log.
    pub lsn: u64,
    /// To the group alone, by its retry topic; else to the topic that it came from.
    pub to_group: bool,
    /// To this topic, whatever it came from.
    pub to_topic: Option<String>,
    /// Also when it was replayed before.
    pub force: bool,
}

/// Where a dead letter was returned to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplayedTo {
    /// The topic.
    pub topic: String,
    /// The queue's number in it.
    pub queue: u32,
}
