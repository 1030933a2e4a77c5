//! 34 and 35.

use crate::features::clients::Client;
use crate::features::groups::{self, Membership, Subscription, TagFilter};
use crate::features::{Outcome, Reply, Request, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::body::{Heartbeat, SubscriptionData};

/// 34: a client is there. Also says which groups this connection is in from now on.
pub fn beat(shared: &Shared, request: &Request<'_>, joined: &mut Vec<Box<str>>) -> Outcome {
    let heartbeat = match Heartbeat::decode(request.body) {
        Ok(heartbeat) => heartbeat,
        Err(error) => return Reply::failure(code::SYSTEM_ERROR, format!("the heartbeat's {error}")).into(),
    };
    let client = Client {
        connection: request.connection,
        address: request.peer,
        id: heartbeat.client_id.as_str().into(),
        language: request.header.language,
        version: request.header.version,
        heard_ms: shared.engine.clock().wall_ms(),
    };
    shared.clients.beat(client, &heartbeat);
    for group in heartbeat.producers.iter().take(limits::GROUPS_PER_CONNECTION_MAX) {
        shared.halves.producers.beat(request.connection, group);
    }
    let mut changes = Vec::new();
    for consumer in heartbeat.consumers.into_iter().take(limits::GROUPS_PER_CONNECTION_MAX) {
        // A group that may not be made is not registered, and the heartbeat is a good one all the same.
        if !groups::ensure(shared, &consumer.group) {
            continue;
        }
        let left_out = heartbeat.without_subscriptions && consumer.subscriptions.is_empty();
        let member = Membership {
            group: &consumer.group,
            client_id: &heartbeat.client_id,
            subscriptions: (!left_out).then(|| consumer.subscriptions.into_iter().map(subscription).collect()),
        };
        let change = shared.state.groups.join(request.connection, member);
        let group: Box<str> = consumer.group.into();
        let told = shared.state.groups.config(&group).is_none_or(|config| config.rules.tell_members);
        if told && !change.notify.is_empty() {
            changes.push((group.clone(), change));
        }
        joined.push(group);
    }
    Outcome::Tell { reply: Reply::default(), changes }
}

fn subscription(data: SubscriptionData) -> (String, Subscription) {
    let filter = data.is_by_tag().then(|| {
        let mut filter = TagFilter::parse(Some(&data.expression)).unwrap_or_default();
        // Clients hash their tags themselves: whatever they mean by an expression, they get what they ask for.
        filter.widen(data.tag_hashes.iter().map(|hash| hash.cast_unsigned()));
        filter
    });
    (data.topic, Subscription { filter, version: data.version })
}

/// 35: a client leaves a group.
pub fn farewell(shared: &Shared, request: &Request<'_>) -> Outcome {
    let mut changes = Vec::new();
    if let Some(group) = request.field("producerGroup") {
        shared.halves.producers.leave(request.connection, group);
        shared.clients.leave_producers(request.connection, group);
    }
    if let Some(group) = request.field("consumerGroup").filter(|group| !group.is_empty()) {
        shared.clients.leave_consumers(request.connection, group);
        if !shared.clients.is_consuming(group) {
            shared.resets.forget(group);
        }
        let change = shared.state.leave_group(request.connection, group);
        changes.push((group.into(), change));
    }
    Outcome::Tell { reply: Reply::success(), changes }
}
