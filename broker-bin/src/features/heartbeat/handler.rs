//! 34 and 35.

use std::sync::Arc;

use crate::features::clients::Client;
use crate::features::groups::{self, Difference, Filter, Membership, Subscription, Variant};
use crate::features::offsets::{self, Begin};
use crate::features::{Kept, Outcome, Reply, Request, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::body::{Heartbeat, MessageModel, SubscriptionData};

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
    shared.requesters.note(request.connection, &heartbeat.client_id);
    let (mut changes, mut refused, mut fixed) = (Vec::new(), None, false);
    for consumer in heartbeat.consumers.into_iter().take(limits::GROUPS_PER_CONNECTION_MAX) {
        // A group that may not be made is not registered, and the heartbeat is a good one all the same.
        if !groups::ensure(shared, &consumer.group) {
            continue;
        }
        let left_out = heartbeat.without_subscriptions && consumer.subscriptions.is_empty();
        let topics: Vec<String> = consumer.subscriptions.iter().map(|held| held.topic.clone()).collect();
        let begin = Begin::read(&consumer.consume_from);
        let sql = shared.settings.property_filter;
        let subscriptions = consumer.subscriptions.into_iter().map(|data| subscription(data, sql));
        let member = Membership {
            group: &consumer.group,
            client_id: &heartbeat.client_id,
            address: request.peer,
            consume_type: consumer.consume_type,
            model: consumer.message_model,
            begin,
            subscriptions: (!left_out).then(|| subscriptions.collect()),
        };
        let joined_as = shared.state.groups.join(request.connection, member);
        say(shared, &consumer.group, &joined_as.differences);
        if let Some(reason) = joined_as.refused {
            shared.counters.members_refused.add(1);
            tracing::warn!(group = consumer.group, client = heartbeat.client_id, peer = %request.peer, "{reason}");
            refused = Some(reason);
            // So that it is forgotten with its connection.
            joined.push(consumer.group.into());
            continue;
        }
        if consumer.message_model == MessageModel::Clustering {
            fixed |= offsets::register(shared, &consumer.group, begin, topics.iter().map(String::as_str));
        }
        let group: Box<str> = consumer.group.into();
        let told = shared.state.groups.config(&group).is_none_or(|config| config.rules.tell_members);
        if told && !joined_as.change.notify.is_empty() {
            changes.push((group.clone(), joined_as.change));
        }
        joined.push(group);
    }
    let reply = refused.map_or_else(Reply::default, |reason| Reply::failure(code::SYSTEM_ERROR, String::from(reason)));
    // Where a group begins is fixed when its member hears that it is one, and not taken back by a crash.
    Outcome::Tell { reply, changes, kept: fixed.then_some(Kept::Offsets) }
}

fn subscription(data: SubscriptionData, sql: bool) -> (Box<str>, Arc<Subscription>) {
    let filter = Filter::subscribed(&data, sql);
    if let Filter::Unusable(why) = &filter {
        tracing::warn!(topic = data.topic, expression = data.expression, "a subscription chooses nothing: {why}");
    }
    let SubscriptionData { topic, expression, expression_type, version, .. } = data;
    (
        topic.into(),
        Arc::new(Subscription { kind: expression_type.into(), expression: expression.into(), filter, version }),
    )
}

/// Says who subscribes differently within a group: what one of them does not want, none of them gets (K-38).
fn say(shared: &Shared, group: &str, differences: &[Difference]) {
    if differences.is_empty() {
        return;
    }
    shared.counters.groups_differing.add(1);
    for difference in differences {
        let shown = |variant: &Variant| {
            let expression = variant.subscription.as_ref().map_or("not at all", |held| &*held.expression);
            (expression.to_owned(), variant.members.clone())
        };
        let variants: Vec<_> = difference.variants.iter().map(shown).collect();
        tracing::warn!(
            group,
            topic = &*difference.topic,
            ?variants,
            "members of a group subscribe differently: messages that one of them passes over are lost to the others"
        );
    }
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
    Outcome::Tell { reply: Reply::success(), changes, kept: None }
}
