//! Consumer groups: who is in them, who differs, and who has which queue.

use serde::{Deserialize, Serialize};

/// Asks for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ShowGroup {
    /// Which.
    pub group: String,
}

/// Sets what the broker's own tools alone can set of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SetGroup {
    /// Which.
    pub group: String,
    /// Whether a consumer whose subscriptions are not those of the members is kept out.
    pub strict: Option<bool>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupTold {
    /// Its name.
    pub group: String,
    /// Its settings.
    pub settings: GroupSettings,
    /// Who is connected.
    pub members: Vec<MemberTold>,
    /// What they subscribe differently: what one of them passes over is lost to the others.
    pub differences: Vec<DifferenceTold>,
    /// Who is kept out because the group is strict.
    pub refused: Vec<RefusedTold>,
    /// Its queues.
    pub queues: Vec<GroupQueue>,
}

/// What is set of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupSettings {
    /// Queues of its retry topic.
    pub retry_queues: u32,
    /// Deliveries after the first before a message is a dead letter.
    pub retry_max: u32,
    /// Whether it may consume.
    pub may_consume: bool,
    /// Whether a consumer whose subscriptions are not those of the members is kept out.
    pub strict: bool,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberTold {
    /// The client's own id.
    pub client_id: String,
    /// Where it dials from.
    pub address: String,
    /// `CLUSTERING` or `BROADCASTING`.
    pub model: String,
    /// How it takes messages.
    pub consume_type: String,
    /// Where it begins a queue of which nothing is committed.
    pub consume_from: String,
    /// What it subscribes.
    pub subscriptions: Vec<SubscriptionTold>,
}

/// A subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionTold {
    /// The topic.
    pub topic: String,
    /// `TAG` or `SQL92`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The expression.
    pub expression: String,
}

/// A topic that members subscribe differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DifferenceTold {
    /// The topic.
    pub topic: String,
    /// Each subscription of it.
    pub variants: Vec<VariantTold>,
}

/// One of several subscriptions of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VariantTold {
    /// `TAG` or `SQL92`; nothing where the topic is not subscribed.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The expression; nothing where the topic is not subscribed.
    pub expression: Option<String>,
    /// Who has it.
    pub members: Vec<String>,
}

/// A consumer that a strict group keeps out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RefusedTold {
    /// The client's own id.
    pub client_id: String,
    /// Where it dials from.
    pub address: String,
    /// Why.
    pub reason: String,
}

/// A queue as a group has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupQueue {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub queue: u32,
    /// The offset of the next message that the group is to consume.
    pub committed: Option<u64>,
    /// The offset of the first message there is.
    pub min: u64,
    /// The offset of the next message to come.
    pub max: u64,
    /// Messages that the group has before it.
    pub behind: u64,
    /// When the first of them was stored.
    pub oldest_ms: Option<u64>,
    /// The member that has it.
    pub owner: Option<String>,
    /// How it came to have it: `lock` or `pull`.
    pub owned_by: Option<String>,
}
