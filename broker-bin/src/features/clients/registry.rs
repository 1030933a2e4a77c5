//! Every client by its connection, and its groups.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::limits;
use crate::lock::lock;
use crate::net::ConnectionId;
use crate::wire::Language;
use crate::wire::body::{ConsumerData, Heartbeat, MessageModel};

/// A client, as its last heartbeat shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its connection.
    pub connection: ConnectionId,
    /// Where it dials from.
    pub address: SocketAddr,
    /// Its own id.
    pub id: Box<str>,
    /// What it is written in.
    pub language: Language,
    /// Its version, as an ordinal of releases.
    pub version: i32,
    /// When it was heard last, in milliseconds since 1970.
    pub heard_ms: u64,
}

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Who.
    pub client: Arc<Client>,
    /// What it says of the group.
    pub data: Arc<ConsumerData>,
}

/// A member of a producer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Which group.
    pub group: Box<str>,
    /// Who.
    pub client: Arc<Client>,
}

#[derive(Debug)]
struct Entry {
    client: Arc<Client>,
    consumes: BTreeMap<Box<str>, Arc<ConsumerData>>,
    produces: BTreeSet<Box<str>>,
}

#[derive(Debug, Default)]
struct Known {
    by_connection: BTreeMap<ConnectionId, Entry>,
    consumers: BTreeMap<Box<str>, BTreeSet<ConnectionId>>,
    producers: BTreeMap<Box<str>, BTreeSet<ConnectionId>>,
}

/// All clients. Shared by every network thread.
#[derive(Debug, Default)]
pub struct Clients(Mutex<Known>);

impl Clients {
    /// Takes a heartbeat's word.
    pub fn beat(&self, client: Client, heartbeat: &Heartbeat) {
        let mut known = lock(&self.0);
        let Known { by_connection, consumers, producers } = &mut *known;
        let connection = client.connection;
        let client = Arc::new(client);
        let entry = by_connection.entry(connection).or_insert_with(|| Entry {
            client: client.clone(),
            consumes: BTreeMap::new(),
            produces: BTreeSet::new(),
        });
        entry.client = client;
        for data in heartbeat.consumers.iter().take(limits::GROUPS_PER_CONNECTION_MAX) {
            let group: Box<str> = data.group.as_str().into();
            let data = match entry.consumes.get(&group) {
                // Left out because they are as before.
                Some(before) if heartbeat.without_subscriptions && data.subscriptions.is_empty() => {
                    ConsumerData { subscriptions: before.subscriptions.clone(), ..data.clone() }
                }
                None if entry.consumes.len() >= limits::GROUPS_PER_CONNECTION_MAX => continue,
                _ => data.clone(),
            };
            entry.consumes.insert(group.clone(), Arc::new(data));
            consumers.entry(group).or_default().insert(connection);
        }
        for group in heartbeat.producers.iter().take(limits::GROUPS_PER_CONNECTION_MAX) {
            let group: Box<str> = group.as_str().into();
            if entry.produces.len() < limits::GROUPS_PER_CONNECTION_MAX && entry.produces.insert(group.clone()) {
                producers.entry(group).or_default().insert(connection);
            }
        }
    }

    /// The client leaves a consumer group.
    pub fn leave_consumers(&self, connection: ConnectionId, group: &str) {
        let mut known = lock(&self.0);
        if let Some(entry) = known.by_connection.get_mut(&connection) {
            entry.consumes.remove(group);
        }
        remove(&mut known.consumers, connection, group);
    }

    /// The client leaves a producer group.
    pub fn leave_producers(&self, connection: ConnectionId, group: &str) {
        let mut known = lock(&self.0);
        if let Some(entry) = known.by_connection.get_mut(&connection) {
            entry.produces.remove(group);
        }
        remove(&mut known.producers, connection, group);
    }

    /// The connection is gone, or silent.
    pub fn gone(&self, connection: ConnectionId) {
        let mut known = lock(&self.0);
        let Some(entry) = known.by_connection.remove(&connection) else { return };
        for group in entry.consumes.keys() {
            remove(&mut known.consumers, connection, group);
        }
        for group in &entry.produces {
            remove(&mut known.producers, connection, group);
        }
    }

    /// Whose a connection is, as its heartbeats say.
    #[must_use]
    pub fn id_of(&self, connection: ConnectionId) -> Option<Box<str>> {
        Some(lock(&self.0).by_connection.get(&connection)?.client.id.clone())
    }

    /// The members of a consumer group, by client id.
    #[must_use]
    pub fn consumers(&self, group: &str) -> Vec<Consumer> {
        let known = lock(&self.0);
        let mut by_id: BTreeMap<&str, Consumer> = BTreeMap::new();
        for connection in known.consumers.get(group).into_iter().flatten() {
            let Some(entry) = known.by_connection.get(connection) else { continue };
            let Some(data) = entry.consumes.get(group) else { continue };
            let consumer = Consumer { client: entry.client.clone(), data: data.clone() };
            match by_id.get(&*entry.client.id) {
                Some(other) if other.client.heard_ms > consumer.client.heard_ms => {}
                _ => drop(by_id.insert(&entry.client.id, consumer)),
            }
        }
        by_id.into_values().collect()
    }

    /// The member of a consumer group that has this client id.
    #[must_use]
    pub fn consumer(&self, group: &str, client_id: &str) -> Option<Arc<Client>> {
        let found = self.consumers(group).into_iter().find(|consumer| *consumer.client.id == *client_id);
        found.map(|consumer| consumer.client)
    }

    /// Whether anybody consumes in the group now.
    #[must_use]
    pub fn is_consuming(&self, group: &str) -> bool {
        lock(&self.0).consumers.contains_key(group)
    }

    /// Whether this member of a consumer group takes every message for itself.
    #[must_use]
    pub fn broadcasts(&self, connection: ConnectionId, group: &str) -> bool {
        let known = lock(&self.0);
        let data = known.by_connection.get(&connection).and_then(|entry| entry.consumes.get(group));
        data.is_some_and(|data| data.message_model == MessageModel::Broadcasting)
    }

    /// The members of a producer group.
    #[must_use]
    pub fn producers(&self, group: &str) -> Vec<Arc<Client>> {
        let known = lock(&self.0);
        let members = known.producers.get(group).into_iter().flatten();
        members.filter_map(|connection| Some(known.by_connection.get(connection)?.client.clone())).collect()
    }

    /// Every member of every producer group, by group.
    #[must_use]
    pub fn all_producers(&self) -> Vec<Producer> {
        let known = lock(&self.0);
        let mut all = Vec::new();
        for (group, members) in &known.producers {
            let clients = members.iter().filter_map(|connection| known.by_connection.get(connection));
            all.extend(clients.map(|entry| Producer { group: group.clone(), client: entry.client.clone() }));
        }
        all
    }

    /// The topics that members of the group subscribe now, in order.
    #[must_use]
    pub fn topics_of(&self, group: &str) -> BTreeSet<Box<str>> {
        let known = lock(&self.0);
        let members = known.consumers.get(group).into_iter().flatten();
        let data = members.filter_map(|connection| known.by_connection.get(connection)?.consumes.get(group));
        data.flat_map(|data| &data.subscriptions).map(|subscription| subscription.topic.as_str().into()).collect()
    }

    /// The groups whose members subscribe the topic now, in order.
    #[must_use]
    pub fn groups_of(&self, topic: &str) -> BTreeSet<Box<str>> {
        let known = lock(&self.0);
        let all = known.by_connection.values().flat_map(|entry| &entry.consumes);
        let subscribe = |data: &ConsumerData| data.subscriptions.iter().any(|subscription| subscription.topic == topic);
        all.filter(|(_, data)| subscribe(data)).map(|(group, _)| group.clone()).collect()
    }
}

fn remove(groups: &mut BTreeMap<Box<str>, BTreeSet<ConnectionId>>, connection: ConnectionId, group: &str) {
    if let Some(members) = groups.get_mut(group) {
        members.remove(&connection);
        if members.is_empty() {
            groups.remove(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(slot: u32, id: &str, heard_ms: u64) -> Client {
        Client {
            connection: ConnectionId { worker: 0, slot, generation: 0 },
            address: "10.0.0.5:1".parse().expect("an address"),
            id: id.into(),
            language: Language::Java,
            version: 479,
            heard_ms,
        }
    }

    fn heartbeat(id: &str, topics: &[&str]) -> Heartbeat {
        let subscriptions: Vec<_> = topics.iter().map(|topic| serde_json::json!({"topic": topic})).collect();
        let body = serde_json::json!({
            "clientID": id, "producerDataSet": [{"groupName": "p"}],
            "consumerDataSet": [{"groupName": "g", "subscriptionDataSet": subscriptions}],
        });
        Heartbeat::decode(body.to_string().as_bytes()).expect("a heartbeat")
    }

    #[test]
    fn a_client_is_a_member_until_it_leaves_or_its_connection_does() {
        let clients = Clients::default();
        clients.beat(client(1, "one", 5), &heartbeat("one", &["T", "U"]));
        clients.beat(client(2, "two", 6), &heartbeat("two", &["T"]));
        let ids =
            |clients: &Clients| clients.consumers("g").iter().map(|one| one.client.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&clients), ["one".into(), "two".into()]);
        assert_eq!(clients.topics_of("g"), ["T".into(), "U".into()].into());
        assert_eq!(clients.groups_of("U"), ["g".into()].into());
        assert_eq!((clients.producers("p").len(), clients.all_producers().len()), (2, 2));
        clients.leave_consumers(client(1, "one", 0).connection, "g");
        assert_eq!(ids(&clients), ["two".into()]);
        assert!(clients.groups_of("U").is_empty());
        assert_eq!(clients.producers("p").len(), 2, "it produces still");
        clients.gone(client(2, "two", 0).connection);
        clients.leave_producers(client(1, "one", 0).connection, "p");
        assert!(!clients.is_consuming("g") && clients.all_producers().is_empty());
        clients.gone(client(1, "one", 0).connection);
        let known = lock(&clients.0);
        assert!(known.by_connection.is_empty() && known.consumers.is_empty() && known.producers.is_empty());
    }

    #[test]
    fn a_client_that_came_back_by_another_connection_is_there_once() {
        let clients = Clients::default();
        clients.beat(client(1, "one", 5), &heartbeat("one", &["T"]));
        clients.beat(client(2, "one", 9), &heartbeat("one", &["T"]));
        assert_eq!(clients.consumers("g").len(), 1);
        assert_eq!(clients.consumer("g", "one").expect("a member").connection.slot, 2);
        assert_eq!(clients.consumer("g", "two"), None);
    }

    #[test]
    fn subscriptions_that_a_heartbeat_leaves_out_are_as_before() {
        let clients = Clients::default();
        clients.beat(client(1, "one", 5), &heartbeat("one", &["T"]));
        clients.beat(client(1, "one", 6), &Heartbeat { without_subscriptions: true, ..heartbeat("one", &[]) });
        assert_eq!(clients.topics_of("g"), ["T".into()].into());
        clients.beat(client(1, "one", 7), &heartbeat("one", &[]));
        assert!(clients.topics_of("g").is_empty());
    }
}
