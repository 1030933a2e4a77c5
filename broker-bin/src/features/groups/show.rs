//! What operators ask of a group: who is in it, who differs, who has which queue, and how strict it is.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Difference, Member, Subscription};
use crate::features::offsets::OffsetKey;
use crate::features::topics::RETRY_PREFIX;
use crate::features::{Kept, Outcome, Reply, Request, code};
use crate::shared::Shared;

/// Tells a group.
pub fn show(shared: &Shared, request: &Request<'_>) -> Outcome {
    match asked(shared, request) {
        Ok((group, _)) => told(shared, &group).into(),
        Err(reply) => reply.into(),
    }
}

/// Sets how strict a group is; answered when that is durable.
pub fn set(shared: &Shared, request: &Request<'_>) -> Outcome {
    match try_set(shared, request) {
        Ok(reply) => Outcome::Recorded(reply, Kept::Names),
        Err(reply) => reply.into(),
    }
}

fn try_set(shared: &Shared, request: &Request<'_>) -> Result<Reply, Reply> {
    let (group, body) = asked(shared, request)?;
    if !shared.standing.writes() || !shared.knows_all.load(Ordering::Acquire) {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, "this broker does not lead; ask its leader"));
    }
    let strict = body["strict"].as_bool();
    let strict = strict.ok_or_else(|| Reply::failure(code::SYSTEM_ERROR, "strict is to be true or false"))?;
    if let Some(config) = shared.state.groups.config(&group) {
        tracing::info!(group, strict, "an operator sets how strict the group is");
        shared.state.put_group(&group, super::GroupConfig { strict, ..config });
    }
    Ok(told(shared, &group))
}

fn asked(shared: &Shared, request: &Request<'_>) -> Result<(String, Value), Reply> {
    let unreadable =
        |what: String| Reply::failure(code::SYSTEM_ERROR, format!("the request's body is unreadable: {what}"));
    let body: Value = serde_json::from_slice(request.body).map_err(|error| unreadable(error.to_string()))?;
    let group = body["group"].as_str().ok_or_else(|| unreadable("it names no group".to_owned()))?.to_owned();
    if shared.state.groups.config(&group).is_none() {
        let remark = format!("there is no consumer group {group}");
        return Err(Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    Ok((group, body))
}

fn told(shared: &Shared, group: &str) -> Reply {
    let groups = &shared.state.groups;
    let config = groups.config(group).unwrap_or_default();
    let members = groups.members(group);
    let refused = groups.refusals(group).into_iter().map(|refusal| {
        json!({"clientId": *refusal.client_id, "address": refusal.address.to_string(), "reason": *refusal.reason})
    });
    let body = json!({
        "group": group,
        "settings": {
            "retryQueues": config.retry_queues, "retryMax": config.retry_max, "mayConsume": config.may_consume,
            "strict": config.strict,
        },
        "members": members.iter().map(tell_member).collect::<Vec<_>>(),
        "differences": groups.differences(group).iter().map(tell_difference).collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
        "queues": tell_queues(shared, group, &members),
    });
    Reply::body(body.to_string().as_bytes().into())
}

fn tell_subscription(topic: &str, subscription: &Subscription) -> Value {
    json!({"topic": topic, "type": *subscription.kind, "expression": *subscription.expression})
}

fn tell_member(member: &Member) -> Value {
    let subscriptions = member.subscriptions.iter().map(|(topic, held)| tell_subscription(topic, held));
    json!({
        "clientId": *member.client_id, "address": member.address.to_string(), "model": member.model.name(),
        "consumeType": member.consume_type.name(), "consumeFrom": member.begin.name(),
        "subscriptions": subscriptions.collect::<Vec<_>>(),
    })
}

fn tell_difference(difference: &Difference) -> Value {
    let variants = difference.variants.iter().map(|(subscription, members)| {
        let members: Vec<_> = members.iter().map(|member| &**member).collect();
        let (kind, expression) = match subscription {
            Some(held) => (Some(&*held.kind), Some(&*held.expression)),
            None => (None, None),
        };
        json!({"type": kind, "expression": expression, "members": members})
    });
    json!({"topic": *difference.topic, "variants": variants.collect::<Vec<_>>()})
}

/// Every queue of every topic that the group subscribes or has consumed.
fn tell_queues(shared: &Shared, group: &str, members: &[Member]) -> Vec<Value> {
    let mut topics: BTreeSet<Box<str>> =
        members.iter().flat_map(|member| member.subscriptions.keys().cloned()).collect();
    topics.extend(shared.state.offsets.topics_of(group));
    topics.insert([RETRY_PREFIX, group].concat().into());
    let now = shared.engine.clock().monotonic();
    let mut told = Vec::new();
    for topic in topics.iter().filter_map(|name| shared.state.topics.get(name)) {
        for queue in 0..topic.config.queues() {
            let Ok(Some(handle)) = topic.queue(&shared.engine, queue) else { continue };
            let key = OffsetKey { group: group.into(), topic: topic.name.clone(), queue };
            let (range, committed) = (shared.engine.range(handle), shared.state.offsets.get(&key));
            let locked_for = shared.state.locks.owner(&key, now).map(String::from);
            let by_lock = locked_for.is_some();
            let puller = || shared.state.groups.owner(group, &topic.name, queue).map(|owner| owner.to_string());
            let owner = locked_for.or_else(puller);
            let owned_by = owner.as_ref().map(|_| if by_lock { "lock" } else { "pull" });
            told.push(json!({
                "topic": *topic.name, "queue": queue, "committed": committed, "min": range.min.0, "max": range.max.0,
                "behind": range.max.0.saturating_sub(committed.unwrap_or(range.min.0)), "owner": owner, "ownedBy": owned_by,
            }));
        }
    }
    told
}
