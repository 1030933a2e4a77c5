//! The messages of a topic.

use serde::{Deserialize, Serialize};

use super::message::ShownMessage;

/// Asks for the messages of a topic, queue by queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListMessages {
    /// The topic.
    pub topic: String,
    /// In this queue only.
    pub queue: Option<u32>,
    /// With this tag only.
    pub tag: Option<String>,
    /// Stored at this time or later.
    pub from_ms: Option<u64>,
    /// Stored before this time.
    pub to_ms: Option<u64>,
    /// With properties and bodies.
    pub whole: bool,
    /// Behind this place, as an earlier part said it.
    pub after: Option<String>,
    /// Most of them in one part.
    pub limit: Option<usize>,
}

/// Messages of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Messages {
    /// Queue by queue, each in its order.
    pub messages: Vec<ShownMessage>,
    /// How many lie between them that cannot be read.
    pub unreadable: u64,
    /// Where the following part begins.
    pub next: Option<String>,
}
