//! 203, 204, 328, 345: who is connected.

use std::collections::BTreeMap;

use bytes::BytesMut;

use crate::features::clients::Client;
use crate::features::{Outcome, Reply, Request, code};
use crate::shared::Shared;
use crate::wire::admin::{
    Connected, put_consumer_connections, put_producer_connections, put_producer_table, put_subscription,
};
use crate::wire::body::SubscriptionData;

/// 203: the members of a consumer group, and what they subscribe.
pub fn consumer_connections(shared: &Shared, request: &Request<'_>) -> Outcome {
    let group = match request.required("consumerGroup") {
        Ok(group) => group,
        Err(error) => return Reply::from(error).into(),
    };
    let consumers = shared.clients.consumers(group);
    let Some(newest) = consumers.iter().max_by_key(|consumer| consumer.client.heard_ms) else {
        return Reply::failure(code::CONSUMER_NOT_ONLINE, format!("no consumer of group {group} is connected")).into();
    };
    let addresses: Vec<_> = consumers.iter().map(|consumer| consumer.client.address.to_string()).collect();
    let connections: Vec<_> =
        consumers.iter().zip(&addresses).map(|(consumer, address)| connected(&consumer.client, address)).collect();
    // The newest version of each, as groups take it.
    let mut subscriptions: BTreeMap<&str, &SubscriptionData> = BTreeMap::new();
    for subscription in consumers.iter().flat_map(|consumer| &consumer.data.subscriptions) {
        let kept = subscriptions.entry(&subscription.topic).or_insert(subscription);
        if kept.version < subscription.version {
            *kept = subscription;
        }
    }
    let mut body = BytesMut::new();
    let subscriptions: Vec<_> = subscriptions.into_values().collect();
    put_consumer_connections(&mut body, &connections, &newest.data, &subscriptions);
    Reply::body(body).into()
}

/// 204: the members of a producer group.
pub fn producer_connections(shared: &Shared, request: &Request<'_>) -> Outcome {
    let group = match request.required("producerGroup") {
        Ok(group) => group,
        Err(error) => return Reply::from(error).into(),
    };
    let clients = shared.clients.producers(group);
    if clients.is_empty() {
        return Reply::failure(code::SYSTEM_ERROR, format!("no producer of group {group} is connected")).into();
    }
    let addresses: Vec<_> = clients.iter().map(|client| client.address.to_string()).collect();
    let connections: Vec<_> =
        clients.iter().zip(&addresses).map(|(client, address)| connected(client, address)).collect();
    let mut body = BytesMut::new();
    put_producer_connections(&mut body, &connections);
    Reply::body(body).into()
}

/// 328: every producer.
pub fn producers(shared: &Shared) -> Outcome {
    let all = shared.clients.all_producers();
    let addresses: Vec<_> = all.iter().map(|producer| producer.client.address.to_string()).collect();
    let rows: Vec<_> = all
        .iter()
        .zip(&addresses)
        .map(|(producer, address)| (&*producer.group, connected(&producer.client, address), producer.client.heard_ms))
        .collect();
    let mut body = BytesMut::new();
    put_producer_table(&mut body, &rows);
    Reply::body(body).into()
}

/// 345: what a group subscribes of a topic.
pub fn subscription(shared: &Shared, request: &Request<'_>) -> Outcome {
    let (group, topic) = match (request.required("group"), request.required("topic")) {
        (Ok(group), Ok(topic)) => (group, topic),
        (Err(error), _) | (_, Err(error)) => return Reply::from(error).into(),
    };
    let consumers = shared.clients.consumers(group);
    let subscriptions = consumers.iter().flat_map(|consumer| &consumer.data.subscriptions);
    let newest = subscriptions.filter(|one| one.topic == topic).max_by_key(|one| one.version);
    let mut body = BytesMut::new();
    put_subscription(&mut body, group, topic, newest);
    Reply::body(body).into()
}

fn connected<'a>(client: &'a Client, address: &'a str) -> Connected<'a> {
    Connected { address, client_id: &client.id, language: client.language.name(), version: client.version }
}
