//! Consumer groups: which exist, who is a member now, what each member subscribes, and who has which queue.
//!
//! 1. A group that exists has its table entry in the log, or noted to be written.
//! 2. A client id is in a group once: a later connection with the same id takes its place.
//! 3. Members live as long as their connection; nothing of them survives a restart.
//! 4. Who pulled a queue last has it, as long as it is a member; who leaves has nothing any more.
//! 5. A group that is strict has members of one and the same subscription only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::features::groups::filter::Filter;
use crate::features::groups::pulling::Pulling;
use crate::features::offsets::Begin;
use crate::features::topics::TopicConfig;
use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;
use crate::wire::body::{ConsumeType, MessageModel};

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
    /// Whether a consumer whose subscriptions are not those of the members is kept out.
    pub strict: bool,
}

impl GroupRules {
    /// Those of a group of which nobody said anything.
    pub const USUAL: GroupRules =
        GroupRules { may_broadcast: true, from_min: true, ordered: false, tell_members: true, strict: false };
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

/// What is subscribed of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// `TAG` or `SQL92`, or whatever the client says.
    pub kind: Box<str>,
    /// The expression as the client wrote it.
    pub expression: Box<str>,
    /// Which messages it wants.
    pub filter: Filter,
    /// The client's version of it: a newer one replaces it. Only comparable within one group.
    pub version: i64,
}

impl Subscription {
    /// Whether both want the same messages, however they are written.
    #[must_use]
    pub fn means_the_same(&self, other: &Subscription) -> bool {
        self.filter == other.filter
    }
}

/// Subscriptions by topic.
pub type Subscriptions = BTreeMap<Box<str>, Arc<Subscription>>;

/// What a client's heartbeat says of one group.
#[derive(Debug)]
pub struct Membership<'a> {
    /// The group.
    pub group: &'a str,
    /// The client.
    pub client_id: &'a str,
    /// Where it dials from.
    pub address: SocketAddr,
    /// How it takes messages.
    pub consume_type: ConsumeType,
    /// Whether it shares them with the others.
    pub model: MessageModel,
    /// Where it begins a queue of which nothing is committed.
    pub begin: Begin,
    /// Its subscriptions; `None` when the heartbeat leaves them out.
    pub subscriptions: Option<Subscriptions>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The client.
    pub client_id: Arc<str>,
    /// Where it dials from.
    pub address: SocketAddr,
    /// How it takes messages.
    pub consume_type: ConsumeType,
    /// Whether it shares them with the others.
    pub model: MessageModel,
    /// Where it begins a queue of which nothing is committed.
    pub begin: Begin,
    /// What it subscribes.
    pub subscriptions: Arc<Subscriptions>,
}

/// A client that a strict group keeps out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The client.
    pub client_id: Box<str>,
    /// Where it dials from.
    pub address: SocketAddr,
    /// Why.
    pub reason: Box<str>,
}

/// A topic that members subscribe differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: Box<str>,
    /// Its subscriptions.
    pub variants: Vec<Variant>,
}

/// One of several subscriptions of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The subscription; `None`: the topic is not subscribed.
    pub subscription: Option<Arc<Subscription>>,
    /// Who has it.
    pub members: Vec<Arc<str>>,
}

/// What became of a heartbeat or a farewell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Connections that must be told of it.
    pub notify: Vec<ConnectionId>,
}

/// What became of a heartbeat.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Who must be told.
    pub change: Change,
    /// Why it is kept out, if it is.
    pub refused: Option<Box<str>>,
    /// What members subscribe differently, where that is news.
    pub differences: Vec<Difference>,
}

/// Whose word a commit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committer {
    /// No member, and no member has the queue; or somebody with a tool.
    Stranger,
    /// No member, and the member named has the queue. `consumes`: it has consumed for the group, and is no tool.
    Outsider {
        /// Whose the queue is.
        owner: Arc<str>,
        /// Whether it was a member, or pulled as consumers do.
        consumes: bool,
    },
    /// The member that has the queue, or a member of a queue that nobody has.
    Owner(Arc<str>),
    /// A member, and another one has the queue.
    Other(Arc<str>),
}

#[derive(Debug, Default)]
struct Group {
    config: Option<GroupConfig>,
    members: BTreeMap<ConnectionId, Member>,
    /// The newest of each topic, whoever has it.
    subscriptions: HashMap<Box<str>, Arc<Subscription>>,
    /// Who pulled last, by topic and queue.
    pulled: HashMap<Box<str>, Vec<Option<Arc<str>>>>,
    /// How far and how fast, by topic.
    pulling: HashMap<Box<str>, Pulling>,
    refused: BTreeMap<ConnectionId, Refusal>,
    /// What was said of it already.
    differences: Vec<Difference>,
}

impl Group {
    fn everyone(&self) -> Change {
        Change { notify: self.members.keys().copied().collect() }
    }

    /// A member other than this client that subscribes differently, and which topic.
    fn contrary(&self, client_id: &str, wanted: &Subscriptions) -> Option<(Arc<str>, Box<str>)> {
        let others = self.members.values().filter(|member| *member.client_id != *client_id);
        others.filter(|member| !member.subscriptions.is_empty() && !wanted.is_empty()).find_map(|member| {
            let mut topics = member.subscriptions.keys().chain(wanted.keys());
            let topic = topics.find(|topic| {
                let (held, wanted) = (member.subscriptions.get(*topic), wanted.get(*topic));
                !alike(held, wanted)
            });
            Some((member.client_id.clone(), topic?.clone()))
        })
    }

    fn find_differences(&self) -> Vec<Difference> {
        // One that subscribes nothing pulls by its own rules.
        let members: Vec<_> = self.members.values().filter(|member| !member.subscriptions.is_empty()).collect();
        let topics: BTreeSet<_> = members.iter().flat_map(|member| member.subscriptions.keys()).collect();
        let mut differences = Vec::new();
        for topic in topics {
            let mut variants: Vec<Variant> = Vec::new();
            for member in &members {
                let own = member.subscriptions.get(topic);
                match variants.iter_mut().find(|variant| alike(variant.subscription.as_ref(), own)) {
                    Some(variant) => variant.members.push(member.client_id.clone()),
                    None => {
                        variants.push(Variant { subscription: own.cloned(), members: vec![member.client_id.clone()] })
                    }
                }
            }
            if variants.len() > 1 {
                differences.push(Difference { topic: topic.clone(), variants });
            }
        }
        differences
    }

    /// What members subscribe differently, if that is not what they did before.
    fn news(&mut self) -> Vec<Difference> {
        let found = self.find_differences();
        if found == self.differences {
            return Vec::new();
        }
        self.differences.clone_from(&found);
        found
    }

    /// Forgets what a client has.
    fn disown(&mut self, client_id: &str) {
        if self.members.values().any(|member| *member.client_id == *client_id) {
            return;
        }
        for queue in self.pulled.values_mut().flatten() {
            if queue.as_deref() == Some(client_id) {
                *queue = None;
            }
        }
    }

    fn owner(&self, topic: &str, queue: u32) -> Option<&Arc<str>> {
        self.pulled.get(topic)?.get(queue as usize)?.as_ref()
    }
}

/// All groups. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Groups {
    by_name: Mutex<BTreeMap<Box<str>, Group>>,
    /// Connections that are no members and consume all the same: before their heartbeat, or after the broker heard none for long. Locked
    /// with `by_name` held, or alone.
    outsiders: Mutex<BTreeMap<ConnectionId, BTreeSet<Box<str>>>>,
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
    pub fn join(&self, connection: ConnectionId, member: Membership<'_>) -> Joined {
        self.with(member.group, |group| {
            let strict = group.config.is_some_and(|config| config.rules.strict);
            if strict
                && let Some(wanted) = &member.subscriptions
                && let Some((other, topic)) = group.contrary(member.client_id, wanted)
            {
                return group.keep_out(connection, &member, &other, &topic);
            }
            group.refused.remove(&connection);
            let mut changed = false;
            let mut before = None;
            let older: Vec<_> = group
                .members
                .iter()
                .filter(|(other, held)| *held.client_id == *member.client_id && **other != connection)
                .map(|(other, _)| *other)
                .collect();
            for other in older {
                before = group.members.remove(&other);
                self.note_outsider(other, member.group);
                changed = true;
            }
            if let Some(found) = group.members.remove(&connection) {
                changed |= *found.client_id != *member.client_id;
                before = Some(found);
            } else {
                changed = true;
            }
            let same = before.filter(|before| *before.client_id == *member.client_id);
            let subscriptions = match (member.subscriptions, &same) {
                (Some(named), _) => {
                    let held = same.as_ref().map(|before| &*before.subscriptions);
                    let named = newest(named, held);
                    changed |= replace(&mut group.subscriptions, &named);
                    Arc::new(named)
                }
                (None, Some(before)) => before.subscriptions.clone(),
                (None, None) => Arc::default(),
            };
            let as_before = same.as_ref().is_some_and(|before| mean_the_same(&before.subscriptions, &subscriptions));
            let client_id = same.map_or_else(|| member.client_id.into(), |before| before.client_id);
            let Membership { address, consume_type, model, begin, .. } = member;
            let now = Member { client_id, address, consume_type, model, begin, subscriptions };
            group.members.insert(connection, now);
            let differences = if as_before { Vec::new() } else { group.news() };
            Joined { change: if changed { group.everyone() } else { Change::default() }, refused: None, differences }
        })
        .unwrap_or_default()
    }

    /// Removes a connection from a group; says which client left, unless it is there by another connection or never was.
    pub fn leave(&self, connection: ConnectionId, name: &str) -> Option<(Arc<str>, Change)> {
        self.with(name, |group| {
            group.refused.remove(&connection);
            let left = group.members.remove(&connection)?;
            self.note_outsider(connection, name);
            group.disown(&left.client_id);
            group.differences = group.find_differences();
            Some((left.client_id, group.everyone()))
        })
        .flatten()
    }

    /// Which member of a group a connection is.
    #[must_use]
    pub fn client_id(&self, connection: ConnectionId, group: &str) -> Option<Arc<str>> {
        self.with(group, |group| Some(group.members.get(&connection)?.client_id.clone())).flatten()
    }

    /// Every member's client id once, in order.
    #[must_use]
    pub fn client_ids(&self, group: &str) -> Vec<Arc<str>> {
        let ids = |group: &mut Group| -> BTreeSet<Arc<str>> {
            group.members.values().map(|member| member.client_id.clone()).collect()
        };
        self.with(group, ids).unwrap_or_default().into_iter().collect()
    }

    /// Every member, to be told of something.
    #[must_use]
    pub fn everyone(&self, group: &str) -> Change {
        self.with(group, |group| group.everyone()).unwrap_or_default()
    }

    /// Every member.
    #[must_use]
    pub fn members(&self, group: &str) -> Vec<Member> {
        self.with(group, |group| group.members.values().cloned().collect()).unwrap_or_default()
    }

    /// Who is kept out because the group is strict.
    #[must_use]
    pub fn refusals(&self, group: &str) -> Vec<Refusal> {
        self.with(group, |group| group.refused.values().cloned().collect()).unwrap_or_default()
    }

    /// What its members subscribe differently.
    #[must_use]
    pub fn differences(&self, group: &str) -> Vec<Difference> {
        self.with(group, |group| group.differences.clone()).unwrap_or_default()
    }

    /// What somebody who pulls by this connection wants of a topic: a member what it subscribes itself, anybody else what the group does.
    #[must_use]
    pub fn subscription(&self, connection: ConnectionId, group: &str, topic: &str) -> Option<Arc<Subscription>> {
        self.with(group, |group| {
            let own = group.members.get(&connection).and_then(|member| member.subscriptions.get(topic));
            own.or_else(|| group.subscriptions.get(topic)).cloned()
        })
        .flatten()
    }

    /// Where the member that came by this connection begins a queue of which nothing is committed; `None` for who is no member, and for who
    /// keeps its offsets itself.
    #[must_use]
    pub fn begin(&self, connection: ConnectionId, group: &str) -> Option<Begin> {
        let of = |group: &mut Group| {
            let member = group.members.get(&connection)?;
            (member.model == MessageModel::Clustering).then_some(member.begin)
        };
        self.with(group, of).flatten()
    }

    /// The groups that have a member which subscribes the topic and shares its messages with the others.
    #[must_use]
    pub fn subscribing(&self, topic: &str) -> Vec<Box<str>> {
        let subscribes = |group: &Group| {
            let mut members = group.members.values().filter(|member| member.model == MessageModel::Clustering);
            members.any(|member| member.subscriptions.contains_key(topic))
        };
        let by_name = lock(&self.by_name);
        by_name.iter().filter(|(_, group)| subscribes(group)).map(|(name, _)| name.clone()).collect()
    }

    /// A queue is pulled from `offset` on by this connection: it is its member's from now on, where that is one. `consumes`: as consumers
    /// do and tools do not.
    pub fn pulls(&self, connection: ConnectionId, name: &str, topic: &str, queue: u32, offset: u64, consumes: bool) {
        let noted = |group: &mut Group| {
            let Some(member) = group.members.get(&connection) else {
                if consumes {
                    self.note_outsider(connection, name);
                }
                return;
            };
            if member.model == MessageModel::Broadcasting {
                return;
            }
            match group.pulling.get_mut(topic) {
                Some(pulling) => pulling.asks(queue, offset),
                None => group.pulling.entry(topic.into()).or_default().asks(queue, offset),
            }
            let slot = queue as usize;
            if let Some(Some(owner)) = group.pulled.get(topic).and_then(|queues| queues.get(slot))
                && *owner == member.client_id
            {
                return;
            }
            let queues = group.pulled.entry(topic.into()).or_default();
            if queues.len() <= slot {
                queues.resize(slot + 1, None);
            }
            queues[slot] = Some(member.client_id.clone());
        };
        self.with(name, noted);
    }

    /// This connection consumes for a group without being a member of it now.
    fn note_outsider(&self, connection: ConnectionId, group: &str) {
        let mut outsiders = lock(&self.outsiders);
        let groups = outsiders.entry(connection).or_default();
        if groups.len() < limits::GROUPS_PER_CONNECTION_MAX && !groups.contains(group) {
            groups.insert(group.into());
        }
    }

    /// The connection is gone.
    pub fn gone(&self, connection: ConnectionId) {
        lock(&self.outsiders).remove(&connection);
    }

    /// Who pulled a queue last, as long as that is a member.
    #[must_use]
    pub fn owner(&self, group: &str, topic: &str, queue: u32) -> Option<Arc<str>> {
        self.with(group, |group| group.owner(topic, queue).cloned()).flatten()
    }

    /// Whose word a commit by this connection is. `locked_for`: whose lock the queue has.
    #[must_use]
    pub fn committer(
        &self,
        connection: ConnectionId,
        name: &str,
        topic: &str,
        queue: u32,
        locked_for: Option<&str>,
    ) -> Committer {
        let judge = |group: &mut Group| {
            let owner = locked_for.or_else(|| group.owner(topic, queue).map(|owner| &**owner));
            let Some(member) = group.members.get(&connection) else {
                // An owner that is no member now is most likely this one, come back by another connection.
                let owner = group.members.values().find(|member| owner == Some(&*member.client_id))?;
                let outsiders = lock(&self.outsiders);
                let consumes = outsiders.get(&connection).is_some_and(|groups| groups.contains(name));
                return Some(Committer::Outsider { owner: owner.client_id.clone(), consumes });
            };
            let client_id = &member.client_id;
            let owns = owner.is_none_or(|owner| *owner == **client_id);
            Some(if owns { Committer::Owner(client_id.clone()) } else { Committer::Other(client_id.clone()) })
        };
        self.with(name, judge).flatten().unwrap_or(Committer::Stranger)
    }

    /// Nobody has a queue of this topic any more.
    pub fn forget_topic(&self, topic: &str) {
        for group in lock(&self.by_name).values_mut() {
            group.pulled.remove(topic);
            group.pulling.remove(topic);
        }
    }

    /// What a group's members asked for last of a queue: everything before was given to them.
    #[must_use]
    pub fn pulled_up_to(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        self.with(group, |group| group.pulling.get(topic)?.asked(queue)).flatten()
    }

    /// Messages of a topic that a group's members pull in a second.
    #[must_use]
    pub fn pulls_per_second(&self, group: &str, topic: &str, now: Duration) -> f64 {
        let rate = |group: &mut Group| group.pulling.get(topic).map(|pulling| pulling.per_second(now));
        self.with(group, rate).flatten().unwrap_or(0.0)
    }

    /// Looks how far everybody is, for rates.
    pub fn note_pulls(&self, now: Duration) {
        for group in lock(&self.by_name).values_mut() {
            group.pulling.values_mut().for_each(|pulling| pulling.note(now));
        }
    }
}

impl Group {
    /// Keeps a client out, or goes on with what it subscribed as a member.
    fn keep_out(&mut self, connection: ConnectionId, member: &Membership<'_>, other: &str, topic: &str) -> Joined {
        let reason = format!(
            "group {} is strict: {} subscribes topic {topic} differently from its member {other}, and is kept out while that one is there",
            member.group, member.client_id
        );
        let reason: Box<str> = reason.into();
        let known = self.refused.contains_key(&connection);
        if known || self.refused.len() < limits::REFUSALS_PER_GROUP_MAX {
            let client_id = member.client_id.into();
            self.refused.insert(connection, Refusal { client_id, address: member.address, reason: reason.clone() });
        }
        Joined { refused: Some(reason), ..Joined::default() }
    }
}

/// What a member subscribes by its newest word on each topic it names.
fn newest(named: Subscriptions, held: Option<&Subscriptions>) -> Subscriptions {
    let newer = |(topic, subscription): (Box<str>, Arc<Subscription>)| {
        let held = held.and_then(|held| held.get(&topic)).filter(|held| held.version > subscription.version);
        let subscription = held.cloned().unwrap_or(subscription);
        (topic, subscription)
    };
    named.into_iter().take(limits::SUBSCRIPTIONS_PER_GROUP_MAX).map(newer).collect()
}

/// Whether two members want the same of a topic.
fn alike(one: Option<&Arc<Subscription>>, other: Option<&Arc<Subscription>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.means_the_same(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn mean_the_same(one: &Subscriptions, other: &Subscriptions) -> bool {
    let pairs = || one.iter().zip(other);
    one.len() == other.len() && pairs().all(|((topic, a), (same, b))| topic == same && a.means_the_same(b))
}

/// Takes newer subscriptions and drops the topics that are no longer named. True when anything changed.
fn replace(held: &mut HashMap<Box<str>, Arc<Subscription>>, named: &Subscriptions) -> bool {
    let mut changed = false;
    held.retain(|topic, _| {
        let keep = named.contains_key(topic);
        changed |= !keep;
        keep
    });
    for (topic, subscription) in named {
        match held.get(topic) {
            Some(found) if found.version >= subscription.version => {}
            // The version moves with every rebalance of the client; the group's meaning did not change.
            found => {
                changed |= found.is_none_or(|found| !found.means_the_same(subscription));
                held.insert(topic.clone(), subscription.clone());
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::groups::TagFilter;

    fn by(slot: u32) -> ConnectionId {
        ConnectionId { worker: 0, slot, generation: 0 }
    }

    fn tags(expression: &str, version: i64) -> Arc<Subscription> {
        let filter = Filter::Tags(TagFilter::parse(Some(expression)).expect("tags"));
        Arc::new(Subscription { kind: "TAG".into(), expression: expression.into(), filter, version })
    }

    fn membership<'a>(client_id: &'a str, topics: &[(&str, &str)]) -> Membership<'a> {
        let subscriptions = topics.iter().map(|(topic, expression)| ((*topic).into(), tags(expression, 1))).collect();
        Membership {
            group: "g",
            client_id,
            address: "10.0.0.5:1".parse().expect("an address"),
            consume_type: ConsumeType::Passively,
            model: MessageModel::Clustering,
            begin: Begin::Last,
            subscriptions: Some(subscriptions),
        }
    }

    fn groups(strict: bool) -> Groups {
        let groups = Groups::default();
        let rules = GroupRules { strict, ..GroupRules::USUAL };
        groups.put("g", GroupConfig { rules, ..GroupConfig::default() });
        groups
    }

    #[test]
    fn k69_who_pulled_a_queue_last_has_it_until_it_leaves() {
        let groups = groups(false);
        for (slot, id) in [(1, "a"), (2, "b")] {
            groups.join(by(slot), membership(id, &[("T", "*")]));
        }
        let judge = |slot, locked_for| groups.committer(by(slot), "g", "T", 0, locked_for);
        assert_eq!(judge(1, None), Committer::Owner("a".into()), "nobody has it");
        groups.pulls(by(1), "g", "T", 0, 0, true);
        groups.pulls(by(8), "g", "T", 0, 0, false);
        groups.pulls(by(9), "g", "T", 0, 0, true);
        assert_eq!(groups.owner("g", "T", 0).as_deref(), Some("a"), "a stranger has nothing");
        assert_eq!(judge(2, None), Committer::Other("b".into()));
        let outside = |owner: &str, consumes| Committer::Outsider { owner: owner.into(), consumes };
        assert_eq!([7, 8, 9].map(|slot| judge(slot, None)), [false, false, true].map(|it| outside("a", it)));
        assert_eq!(judge(9, Some("b")), outside("b", true), "a lock counts more");
        assert_eq!(judge(9, Some("c")), Committer::Stranger, "the owner is no member, and may be this one");
        assert_eq!(groups.committer(by(2), "g", "T", 1, None), Committer::Owner("b".into()), "another queue");
        groups.pulls(by(2), "g", "T", 0, 0, true);
        assert_eq!((judge(1, None), judge(2, None)), (Committer::Other("a".into()), Committer::Owner("b".into())));
        // A lock counts more.
        assert_eq!(judge(1, Some("a")), Committer::Owner("a".into()));
        assert_eq!(judge(2, Some("a")), Committer::Other("b".into()));
        // One that is there by another connection still has it; one that is gone does not.
        groups.join(by(3), membership("b", &[("T", "*")]));
        assert_eq!(groups.leave(by(2), "g"), None, "its place was taken");
        assert_eq!(judge(1, None), Committer::Other("a".into()));
        // Who was a member is no tool, until its connection is gone.
        assert_eq!(judge(2, None), outside("b", true));
        groups.gone(by(2));
        assert_eq!(judge(2, None), outside("b", false));
        groups.leave(by(1), "g");
        assert_eq!(judge(1, None), outside("b", true));
        groups.join(by(1), membership("a", &[("T", "*")]));
        groups.leave(by(3), "g");
        assert_eq!((judge(1, None), judge(9, None)), (Committer::Owner("a".into()), Committer::Stranger));
    }

    #[test]
    fn one_that_gets_every_message_itself_has_no_queue() {
        let groups = groups(false);
        groups.join(by(1), Membership { model: MessageModel::Broadcasting, ..membership("a", &[("T", "*")]) });
        groups.pulls(by(1), "g", "T", 0, 0, true);
        assert_eq!((groups.owner("g", "T", 0), groups.begin(by(1), "g")), (None, None));
        assert!(groups.subscribing("T").is_empty());
    }

    #[test]
    fn k38_who_differs_is_said_once_and_by_name() {
        let groups = groups(false);
        assert!(groups.join(by(1), membership("a", &[("T", "A || B"), ("U", "*")])).differences.is_empty());
        let same = groups.join(by(2), membership("b", &[("T", "B||A"), ("U", "*")]));
        assert!(same.differences.is_empty(), "it means the same");
        let odd = groups.join(by(3), membership("c", &[("T", "B")])).differences;
        assert_eq!(odd.iter().map(|one| &*one.topic).collect::<Vec<_>>(), ["T", "U"]);
        let who = |variant: &Variant| {
            (variant.subscription.as_ref().map(|held| held.expression.clone()), variant.members.clone())
        };
        let of_t: Vec<_> = odd[0].variants.iter().map(who).collect();
        assert_eq!(of_t, [(Some("A || B".into()), vec!["a".into(), "b".into()]), (Some("B".into()), vec!["c".into()])]);
        assert_eq!(who(&odd[1].variants[1]), (None, vec!["c".into()]));
        assert!(groups.join(by(3), membership("c", &[("T", "B")])).differences.is_empty(), "that is no news");
        assert_eq!(groups.differences("g").len(), 2);
        groups.leave(by(3), "g");
        assert!(groups.differences("g").is_empty());
        // One that subscribes nothing pulls by its own rules.
        assert!(groups.join(by(4), membership("d", &[])).differences.is_empty());
    }

    #[test]
    fn k38_a_strict_group_keeps_out_who_differs_until_the_others_are_gone() {
        let groups = groups(true);
        assert_eq!(groups.join(by(1), membership("a", &[("T", "A")])).refused, None);
        let refused = groups.join(by(2), membership("b", &[("T", "B")]));
        let reason = refused.refused.expect("kept out");
        assert!(reason.contains("topic T") && reason.contains("member a") && refused.change.notify.is_empty());
        assert_eq!(groups.client_ids("g"), ["a".into()]);
        assert_eq!(groups.refusals("g")[0].client_id, "b".into());
        // A member alone may change its mind; beside others it goes on with what it had.
        assert_eq!(groups.join(by(1), membership("a", &[("T", "C")])).refused, None);
        assert_eq!(groups.join(by(3), membership("c", &[("T", "C")])).refused, None);
        assert!(groups.join(by(3), membership("c", &[("T", "D")])).refused.is_some());
        let held = groups.subscription(by(3), "g", "T").expect("subscribed");
        assert_eq!((&*held.expression, groups.client_ids("g").len()), ("C", 2));
        groups.leave(by(1), "g");
        groups.leave(by(3), "g");
        assert_eq!(groups.join(by(2), membership("b", &[("T", "B")])).refused, None);
        assert!(groups.refusals("g").iter().all(|refusal| &*refusal.client_id != "b"));
    }

    #[test]
    fn a_member_gets_what_it_subscribes_itself_and_anybody_else_what_came_last() {
        let groups = groups(false);
        groups.join(by(1), membership("a", &[("T", "A")]));
        let newer = Some([("T".into(), tags("B", 2))].into());
        groups.join(by(2), Membership { subscriptions: newer, ..membership("b", &[]) });
        let of = |slot| groups.subscription(by(slot), "g", "T").expect("subscribed").expression.clone();
        assert_eq!([of(1), of(2), of(3)], ["A".into(), "B".into(), "B".into()]);
        // Left out because they are as before.
        groups.join(by(1), Membership { subscriptions: None, ..membership("a", &[]) });
        assert_eq!(of(1), "A".into());
    }
}
