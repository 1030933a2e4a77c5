//! A message as operators see it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShownMessage {
    /// Its id by its place, as the broker gives it to producers.
    pub id: String,
    /// Its producer's id.
    pub unique_key: Option<String>,
    /// The topic that it lies in.
    pub topic: String,
    /// The queue's number in it.
    pub queue: u32,
    /// Its place in the queue.
    pub queue_offset: u64,
    /// Its place in the log.
    pub lsn: u64,
    /// When it was put there.
    pub stored_ms: u64,
    /// When its producer made it.
    pub born_ms: i64,
    /// Where its producer was.
    pub born_host: String,
    /// Its tag.
    pub tag: Option<String>,
    /// Keys that its producer gave it.
    pub keys: Vec<String>,
    /// Deliveries that failed.
    pub attempts: i32,
    /// Length of its body.
    pub body_bytes: u64,
    /// Its producer's flags.
    pub flag: i32,
    /// What the protocol's flags say.
    pub sys_flag: i32,
    /// All its properties, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
    /// Its body in base64, if it was asked for; compressed if the flags say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}
