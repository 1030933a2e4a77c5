//! 38: who is in a group. 46: can this filter be had?

use bytes::BytesMut;
use serde_json::Value;

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

/// 46: whether a subscription's filter is offered.
pub fn check_config(request: &Request<'_>) -> Outcome {
    let body: Value = serde_json::from_slice(request.body).unwrap_or_default();
    match body["subscriptionData"].as_object().and_then(SubscriptionData::read) {
        Some(subscription) if !subscription.is_by_tag() => {
            let SubscriptionData { topic, expression_type, .. } = subscription;
            let remark = format!("topic {topic}: this broker filters by tag only; {expression_type} is not offered");
            Reply::failure(code::SYSTEM_ERROR, remark).into()
        }
        _ => Reply::default().into(),
    }
}
