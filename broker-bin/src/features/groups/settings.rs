//! 200, 201, 207, 225, 352: groups as operators see and set them.

use bytes::BytesMut;

use super::{GroupConfig, GroupRules, ensure};
use crate::features::{Kept, Outcome, Reply, Request, code};
use crate::limits;
use crate::shared::Shared;
use crate::wire::admin::{DataVersion, GroupSettings, put_group_table};

/// 200: makes or changes a group; answered when that is durable.
pub fn put(shared: &Shared, request: &Request<'_>) -> Outcome {
    let unreadable = |error| Reply::failure(code::SYSTEM_ERROR, format!("the request's {error}"));
    match GroupSettings::decode(request.body).map_err(unreadable).and_then(|one| put_all(shared, request, &[one])) {
        Ok(()) => Outcome::Recorded(Reply::default(), Kept::Names),
        Err(reply) => reply.into(),
    }
}

/// 225: the same for several, all of them or none.
pub fn put_list(shared: &Shared, request: &Request<'_>) -> Outcome {
    let unreadable = |error| Reply::failure(code::SYSTEM_ERROR, format!("the request's {error}"));
    match GroupSettings::decode_list(request.body).map_err(unreadable).and_then(|all| put_all(shared, request, &all)) {
        Ok(()) => Outcome::Recorded(Reply::default(), Kept::Names),
        Err(reply) => reply.into(),
    }
}

fn put_all(shared: &Shared, request: &Request<'_>, wanted: &[GroupSettings]) -> Result<(), Reply> {
    if let Err(reason) = shared.admission() {
        return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, reason));
    }
    let groups = &shared.state.groups;
    let new = wanted.iter().filter(|wanted| groups.config(&wanted.name).is_none()).count();
    if groups.count() + new > limits::GROUP_COUNT_MAX {
        return Err(request.invalid_parameter(format!("a broker has at most {} groups", limits::GROUP_COUNT_MAX)));
    }
    let configs: Vec<_> = wanted.iter().map(|wanted| config(shared, request, wanted)).collect::<Result<_, _>>()?;
    for (wanted, config) in wanted.iter().zip(configs) {
        shared.state.put_group(&wanted.name, config);
    }
    Ok(())
}

fn config(shared: &Shared, request: &Request<'_>, wanted: &GroupSettings) -> Result<GroupConfig, Reply> {
    let name = &wanted.name;
    let named = !name.is_empty() && name.len() <= limits::GROUP_BYTES_MAX;
    if !named || name.contains(['\0', '\u{1}', '\u{2}']) || name.chars().any(char::is_whitespace) {
        let remark = format!("a group's name has 1 to {} bytes without blanks", limits::GROUP_BYTES_MAX);
        return Err(request.invalid_parameter(remark));
    }
    let Some(retry_queues) =
        u32::try_from(wanted.retry_queues).ok().filter(|count| (1..=limits::TOPIC_QUEUES_MAX).contains(count))
    else {
        // Without one, what is sent back would be lost (K-76).
        let remark = format!("retryQueueNums: a retry topic has 1 to {} queues", limits::TOPIC_QUEUES_MAX);
        return Err(request.invalid_parameter(remark));
    };
    let Ok(retry_max) = u32::try_from(wanted.retry_max) else {
        let remark = "retryMaxTimes: a number of deliveries after the first is wanted, 0 for none";
        return Err(request.invalid_parameter(remark));
    };
    let rules = GroupRules {
        may_broadcast: wanted.may_broadcast,
        from_min: wanted.from_min,
        ordered: wanted.ordered,
        tell_members: wanted.tell_members,
        // Not theirs to say: it stays as it is.
        strict: shared.state.groups.config(name).is_some_and(|config| config.rules.strict),
    };
    Ok(GroupConfig { retry_queues, retry_max, may_consume: wanted.may_consume, rules })
}

/// 352: a group's settings. One that may be made on demand is made.
pub fn settings(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = match request.required("group") {
        Ok(name) => name,
        Err(error) => return Reply::from(error).into(),
    };
    let known = ensure(shared, name);
    let Some(config) = shared.state.groups.config(name).filter(|_| known) else {
        let remark = format!("there is no consumer group {name}");
        return Reply::failure(code::SUBSCRIPTION_GROUP_NOT_EXIST, remark).into();
    };
    let mut body = BytesMut::new();
    shown(name, &config).encode(&mut body);
    Reply::body(body).into()
}

/// 201: every group's settings.
pub fn all_settings(shared: &Shared) -> Outcome {
    let groups: Vec<_> = shared.state.groups.all().iter().map(|(name, config)| shown(name, config)).collect();
    let version = DataVersion { counter: 0, time_ms: shared.engine.clock().wall_ms() };
    let mut body = BytesMut::new();
    put_group_table(&mut body, version, &groups);
    Reply::body(body).into()
}

fn shown(name: &str, config: &GroupConfig) -> GroupSettings {
    GroupSettings {
        name: name.to_owned(),
        may_consume: config.may_consume,
        may_broadcast: config.rules.may_broadcast,
        from_min: config.rules.from_min,
        ordered: config.rules.ordered,
        tell_members: config.rules.tell_members,
        retry_queues: config.retry_queues.into(),
        retry_max: config.retry_max.into(),
    }
}

/// 207: deletes a group, and what it has committed if that is asked for. Members that are connected make it again where that is allowed.
pub fn delete(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = match request.required("groupName") {
        Ok(name) => name,
        Err(error) => return Reply::from(error).into(),
    };
    if let Err(reason) = shared.admission() {
        return Reply::failure(code::SERVICE_NOT_AVAILABLE, reason).into();
    }
    // Older tools know it by another name.
    let with_offsets = request.switch("cleanOffset") || request.switch("removeOffset");
    let offsets = shared.state.remove_group(&shared.engine, name, with_offsets);
    tracing::info!(group = name, offsets, with_offsets, "deleted a consumer group");
    Outcome::Recorded(Reply::default(), Kept::Names)
}
