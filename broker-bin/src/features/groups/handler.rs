//! 38: who is in a group. 46: can this filter be had?

use bytes::BytesMut;
use serde_json::Value;

use super::Filter;
use crate::features::{Outcome, Reply, Request, code};
use crate::shared::Shared;
use crate::wire::body::{SubscriptionData, put_consumer_ids};

/// 38: the client ids of a group.
pub fn list(shared: &Shared, request: &Request<'_>) -> Outcome {
    let group = match request.required("consumerGroup") {
        Ok(group) => group,
        Err(error) => return Reply::from(error).into(),
    };
    let ids = shared.state.groups.client_ids(group);
    if ids.is_empty() {
        // An empty list would make some clients give up their queues.
        return Reply::failure(code::SYSTEM_ERROR, format!("no consumer of group {group} is connected")).into();
    }
    let mut body = BytesMut::new();
    put_consumer_ids(&mut body, &ids);
    Reply::body(body).into()
}

/// 46: whether a subscription's filter is offered, and can be read.
pub fn check_config(shared: &Shared, request: &Request<'_>) -> Outcome {
    let body: Value = serde_json::from_slice(request.body).unwrap_or_default();
    let Some(subscription) = body["subscriptionData"].as_object().and_then(SubscriptionData::read) else {
        return Reply::default().into();
    };
    match Filter::subscribed(&subscription, shared.settings.property_filter) {
        Filter::Unusable(why) => Reply::failure(why.code(), format!("topic {}: {why}", subscription.topic)).into(),
        Filter::Tags(_) | Filter::Sql(_) => Reply::default().into(),
    }
}
