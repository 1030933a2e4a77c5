//! What operators ask of a group: who is in it, who differs, who has which queue, and how strict it is.

use std::collections::BTreeSet;

use anchorlog_engine::{QueueOffset, ReadError};

use super::{Difference, GroupConfig, GroupRules, Member, Variant};
use crate::features::offsets::OffsetKey;
use crate::features::operate::{answer, missing, refused, told};
use crate::features::topics::{RETRY_PREFIX, Topic};
use crate::features::{Kept, Outcome, Reply, Request};
use crate::shared::Shared;
use crate::wire::operate::{
    DifferenceTold, GroupQueue, GroupSettings, GroupTold, MemberTold, RefusedTold, SetGroup, ShowGroup,
    SubscriptionTold, VariantTold,
};

/// Tells a group.
pub fn show(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &ShowGroup, _| Ok(tell(shared, &ask.group)?.into()))
}

/// Sets how strict a group is; answered when that is durable.
pub fn set(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &SetGroup, _| {
        let config = shared.state.groups.config(&ask.group).ok_or_else(|| nobody(&ask.group))?;
        let strict = ask.strict.ok_or_else(|| refused("nothing is to be set: strict is to be true or false"))?;
        tracing::info!(group = ask.group, strict, "an operator sets how strict the group is");
        let rules = GroupRules { strict, ..config.rules };
        shared.state.put_group(&ask.group, GroupConfig { rules, ..config });
        Ok(Outcome::Recorded(tell(shared, &ask.group)?, Kept::Names))
    })
}

fn nobody(group: &str) -> Reply {
    missing(format!("there is no consumer group {group}"))
}

fn tell(shared: &Shared, group: &str) -> Result<Reply, Reply> {
    let groups = &shared.state.groups;
    let config = groups.config(group).ok_or_else(|| nobody(group))?;
    let members = groups.members(group);
    let kept_out = groups.refusals(group).into_iter().map(|refusal| RefusedTold {
        client_id: refusal.client_id.into(),
        address: refusal.address.to_string(),
        reason: refusal.reason.into(),
    });
    Ok(told(&GroupTold {
        group: group.to_owned(),
        settings: GroupSettings {
            retry_queues: config.retry_queues,
            retry_max: config.retry_max,
            may_consume: config.may_consume,
            strict: config.rules.strict,
        },
        differences: groups.differences(group).iter().map(tell_difference).collect(),
        refused: kept_out.collect(),
        queues: tell_queues(shared, group, &members).map_err(refused)?,
        members: members.iter().map(tell_member).collect(),
    }))
}

fn tell_member(member: &Member) -> MemberTold {
    let subscriptions = member.subscriptions.iter().map(|(topic, held)| SubscriptionTold {
        topic: topic.to_string(),
        kind: held.kind.to_string(),
        expression: held.expression.to_string(),
    });
    MemberTold {
        client_id: member.client_id.to_string(),
        address: member.address.to_string(),
        model: member.model.name().to_owned(),
        consume_type: member.consume_type.name().to_owned(),
        consume_from: member.begin.name().to_owned(),
        subscriptions: subscriptions.collect(),
    }
}

fn tell_difference(difference: &Difference) -> DifferenceTold {
    let variants = difference.variants.iter().map(|Variant { subscription, members }| VariantTold {
        kind: subscription.as_ref().map(|held| held.kind.to_string()),
        expression: subscription.as_ref().map(|held| held.expression.to_string()),
        members: members.iter().map(ToString::to_string).collect(),
    });
    DifferenceTold { topic: difference.topic.to_string(), variants: variants.collect() }
}

/// Every queue of every topic that the group subscribes or has consumed.
fn tell_queues(shared: &Shared, group: &str, members: &[Member]) -> Result<Vec<GroupQueue>, ReadError> {
    let subscribed = members.iter().flat_map(|member| member.subscriptions.keys().cloned());
    let mut topics: BTreeSet<Box<str>> = subscribed.collect();
    topics.extend(shared.state.offsets.topics_of(group));
    topics.insert([RETRY_PREFIX, group].concat().into());
    let mut told = Vec::new();
    for topic in topics.iter().filter_map(|name| shared.state.topics.get(name)) {
        for queue in 0..topic.config.queues() {
            told.extend(tell_queue(shared, group, &topic, queue)?);
        }
    }
    Ok(told)
}

fn tell_queue(shared: &Shared, group: &str, topic: &Topic, queue: u32) -> Result<Option<GroupQueue>, ReadError> {
    let Ok(Some(handle)) = topic.queue(&shared.engine, queue) else { return Ok(None) };
    let key = OffsetKey { group: group.into(), topic: topic.name.clone(), queue };
    let (range, committed) = (shared.engine.range(handle), shared.state.offsets.get(&key));
    let next = QueueOffset(committed.unwrap_or(range.min.0)).max(range.min);
    let behind = range.max.0.saturating_sub(next.0);
    let locked_for =
        shared.state.locks.owner(&key, shared.engine.clock().monotonic()).map(|owner| String::from(owner.client_id));
    let by = if locked_for.is_some() { "lock" } else { "pull" };
    let puller = || shared.state.groups.owner(group, &topic.name, queue).map(|owner| owner.to_string());
    let owner = locked_for.or_else(puller);
    Ok(Some(GroupQueue {
        topic: topic.name.to_string(),
        queue,
        committed,
        min: range.min.0,
        max: range.max.0,
        behind,
        oldest_ms: if behind > 0 { shared.engine.store_time(handle, next)? } else { None },
        owned_by: owner.as_ref().map(|_| by.to_owned()),
        owner,
    }))
}
