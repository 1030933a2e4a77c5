//! Consumer groups: which exist, who is a member now, and what each group subscribes.
//!
//! 1. A group that exists has its table entry in the log, or noted to be written.
//! 2. A client id is in a group once: a later connection with the same id takes its place.
//! 3. Members live as long as their connection; nothing of them survives a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use crate::features::groups::filter::TagFilter;
use crate::features::topics::TopicConfig;
use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;

/// What an operator can set of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Queues of the group's retry topic.
    pub retry_queues: u32,
    /// Deliveries after the first before a message is a dead letter.
    pub retry_max: u32,
    /// Whether the group may consume.
    pub may_consume: bool,
    /// What else operators can say of it.
    pub rules: GroupRules,
}

/// What operators say of a group beside that. Tools write all of it with every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRules {
    /// Whether its members may each take every message.
    pub may_broadcast: bool,
    /// Shown to tools; means nothing here.
    pub from_min: bool,
    /// Shown to tools; means nothing here: consumers ask for order themselves.
    pub ordered: bool,
    /// Whether its members are told when others come and go.
    pub tell_members: bool,
}

impl GroupRules {
    /// Those of a group of which nobody said anything.
    pub const USUAL: GroupRules =
        GroupRules { may_broadcast: true, from_min: true, ordered: false, tell_members: true };
}

impl Default for GroupRules {
    fn default() -> Self {
        GroupRules::USUAL
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig { retry_queues: 1, retry_max: 16, may_consume: true, rules: GroupRules::USUAL }
    }
}

impl GroupConfig {
    /// The group's retry topic. It has a queue in any case: a group without one would lose what it sends back.
    #[must_use]
    pub fn retry_topic(&self) -> TopicConfig {
        TopicConfig::open(self.retry_queues.clamp(1, limits::TOPIC_QUEUES_MAX))
    }
}

/// What a group subscribes of one topic.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Which messages it wants; `None` for an expression of a kind that is not offered.
    pub filter: Option<TagFilter>,
    /// The client's version of it: a newer one replaces it. Only comparable within one group.
    pub version: i64,
}

/// What a client's heartbeat says of one group.
#[derive(Debug)]
pub struct Membership<'a> {
    /// The group.
    pub group: &'a str,
    /// The client.
    pub client_id: &'a str,
    /// Its subscriptions; `None` when the heartbeat leaves them out.
    pub subscriptions: Option<Vec<(String, Subscription)>>,
}

/// What became of a heartbeat or a farewell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Connections that must be told of it.
    pub notify: Vec<ConnectionId>,
}

#[derive(Debug, Default)]
struct Group {
    config: Option<GroupConfig>,
    members: BTreeMap<ConnectionId, Box<str>>,
    subscriptions: HashMap<Box<str>, Arc<Subscription>>,
}

impl Group {
    fn everyone(&self) -> Change {
        Change { notify: self.members.keys().copied().collect() }
    }
}

/// All groups. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Groups {
    by_name: Mutex<BTreeMap<Box<str>, Group>>,
}

impl Groups {
    fn with<T>(&self, group: &str, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        lock(&self.by_name).get_mut(group).map(change)
    }

    /// The group's settings, when it exists.
    #[must_use]
    pub fn config(&self, group: &str) -> Option<GroupConfig> {
        self.with(group, |group| group.config).flatten()
    }

    /// Sets a group; true when that changed something.
    pub fn put(&self, group: &str, config: GroupConfig) -> bool {
        let mut by_name = lock(&self.by_name);
        if let Some(found) = by_name.get_mut(group) {
            let changed = found.config != Some(config);
            found.config = Some(config);
            return changed;
        }
        if by_name.len() >= limits::GROUP_COUNT_MAX {
            return false;
        }
        by_name.insert(group.into(), Group { config: Some(config), ..Group::default() });
        true
    }

    /// Forgets a group's settings; true when there were some. Its members stay, and may make it again.
    pub fn remove(&self, group: &str) -> bool {
        let mut by_name = lock(&self.by_name);
        let Some(found) = by_name.get_mut(group) else { return false };
        let existed = found.config.take().is_some();
        if found.members.is_empty() {
            by_name.remove(group);
        }
        existed
    }

    /// Forgets the settings of groups that are not wanted.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        lock(&self.by_name).retain(|name, group| !group.members.is_empty() || wanted(name));
    }

    /// Every group that exists, with its settings, in order.
    #[must_use]
    pub fn all(&self) -> Vec<(Box<str>, GroupConfig)> {
        let by_name = lock(&self.by_name);
        by_name.iter().filter_map(|(name, group)| Some((name.clone(), group.config?))).collect()
    }

    /// How many are known, members without settings included.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.by_name).len()
    }

    /// Takes a heartbeat's word. Does nothing for a group that does not exist.
    pub fn join(&self, connection: ConnectionId, member: Membership<'_>) -> Change {
        self.with(member.group, |group| {
            let mut changed = false;
            let older: Vec<_> = group
                .members
                .iter()
                .filter(|(other, id)| ***id == *member.client_id && **other != connection)
                .map(|(other, _)| *other)
                .collect();
            for other in older {
                group.members.remove(&other);
                changed = true;
            }
            if group.members.get(&connection).is_none_or(|id| **id != *member.client_id) {
                group.members.insert(connection, member.client_id.into());
                changed = true;
            }
            if let Some(subscriptions) = member.subscriptions {
                changed |= replace(&mut group.subscriptions, subscriptions);
            }
            if changed { group.everyone() } else { Change::default() }
        })
        .unwrap_or_default()
    }

    /// Removes a connection from a group; says which client left, unless it is there by another connection or never was.
    pub fn leave(&self, connection: ConnectionId, group: &str) -> Option<(Box<str>, Change)> {
        self.with(group, |group| Some((group.members.remove(&connection)?, group.everyone()))).flatten()
    }

    /// Which member of a group a connection is.
    #[must_use]
    pub fn client_id(&self, connection: ConnectionId, group: &str) -> Option<Box<str>> {
        self.with(group, |group| group.members.get(&connection).cloned()).flatten()
    }

    /// Every member's client id once, in order.
    #[must_use]
    pub fn client_ids(&self, group: &str) -> Vec<Box<str>> {
        self.with(group, |group| group.members.values().cloned().collect::<BTreeSet<_>>().into_iter().collect())
            .unwrap_or_default()
    }

    /// What the group subscribes of a topic.
    #[must_use]
    pub fn subscription(&self, group: &str, topic: &str) -> Option<Arc<Subscription>> {
        self.with(group, |group| group.subscriptions.get(topic).cloned()).flatten()
    }
}

/// Takes newer subscriptions and drops the topics that are no longer named. True when anything changed.
fn replace(held: &mut HashMap<Box<str>, Arc<Subscription>>, named: Vec<(String, Subscription)>) -> bool {
    let mut changed = false;
    let names: BTreeSet<&str> = named.iter().map(|(topic, _)| topic.as_str()).collect();
    held.retain(|topic, _| {
        let keep = names.contains(&**topic);
        changed |= !keep;
        keep
    });
    for (topic, subscription) in named.into_iter().take(limits::SUBSCRIPTIONS_PER_GROUP_MAX) {
        match held.get(topic.as_str()) {
            Some(found) if found.version >= subscription.version => {}
            Some(found) if found.filter == subscription.filter => {
                // The version moves with every rebalance of the client; the group's meaning did not change.
                held.insert(topic.into(), Arc::new(subscription));
            }
            _ => {
                held.insert(topic.into(), Arc::new(subscription));
                changed = true;
            }
        }
    }
    changed
}
