//! 100, 101, 102, 105, 106, 205, 206, 219, 224, 304, 305, 327: what is asked of a name server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;

use crate::features::topics::{OWN_TOPICS, PERM_WRITE, TEMPLATE, Topic, TopicConfig};
use crate::features::{Outcome, Reply, Request, code, reply};
use crate::shared::Shared;
use crate::wire::admin::put_topics_of_broker;
use crate::wire::body::{IdStyle, Route, RouteBroker, RouteQueues, put_cluster_info, put_topic_list};
use crate::wire::neighbour::Neighbour;

/// What clients report what they do to.
const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// Its queues: as many as clients ask for that make it by sending.
const TRACE_QUEUES: u32 = 4;

/// 105: where a topic is.
pub fn route(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = match request.required("topic") {
        Ok(name) => name,
        Err(error) => return Reply::from(error).into(),
    };
    let own = shared.state.topics.get(name).or_else(|| made_for_asking(shared, name));
    let known = shared.neighbours.shown();
    let others = known.get(name).map_or(&[][..], Vec::as_slice);
    if own.is_none() && others.is_empty() {
        return Reply::failure(code::TOPIC_NOT_EXIST, format!("there is no route for topic {name}: it does not exist"))
            .into();
    }
    let wiped = if shared.writes_wiped.load(Ordering::Relaxed) { PERM_WRITE } else { 0 };
    let own_queues = own.as_ref().map(|topic| RouteQueues {
        broker_name: &shared.settings.broker,
        read_queues: topic.config.read_queues,
        write_queues: topic.config.write_queues,
        permissions: (topic.config.perm & !wiped).into(),
        sys_flag: topic.config.sys_flag.cast_unsigned(),
    });
    let queues: Vec<_> = own_queues.into_iter().chain(others.iter().map(Neighbour::queues)).collect();
    // Quoted ids for everyone: every client family in use reads them, and some read nothing else.
    let mut body = BytesMut::new();
    with_brokers(shared, own.is_some(), others.iter(), |brokers| {
        Route { queues: &queues, brokers }.encode(&mut body, IdStyle::Quoted);
    });
    Reply::body(body).into()
}

/// Topics of the broker's own that are made when their route is asked for.
///
/// Clients trace into one topic, and not every family makes it by sending: some ask for its route, and trace nothing without. Whoever
/// replies to a request asks for the topic of replies.
fn made_for_asking(shared: &Shared, name: &str) -> Option<Arc<Topic>> {
    if !shared.standing.writes() {
        return None;
    }
    if name == reply::topic(&shared.settings.cluster) {
        return shared.state.get_or_make_topic(name, TopicConfig::open(1));
    }
    if name != TRACE_TOPIC || !shared.settings.auto_create_topics {
        return None;
    }
    shared.state.get_or_make_topic(name, TopicConfig::open(shared.settings.template_queues.min(TRACE_QUEUES)))
}

/// This broker, if it is `in_it`, and others after it.
fn with_brokers<'a>(
    shared: &Shared,
    in_it: bool,
    others: impl Iterator<Item = &'a Neighbour> + Clone,
    write: impl FnOnce(&[RouteBroker<'_>]),
) {
    let settings = &shared.settings;
    let own = shared.standing.addresses(settings.advertise);
    let own: Vec<_> = own.iter().map(|(id, address)| (*id, address.as_str())).collect();
    let own = in_it.then_some(RouteBroker { cluster: &settings.cluster, name: &settings.broker, addresses: &own });
    let addresses: Vec<_> = others.clone().map(Neighbour::addresses).collect();
    let others = others.zip(&addresses).map(|(other, addresses)| other.with_addresses(addresses));
    write(&own.into_iter().chain(others).collect::<Vec<_>>());
}

/// 106: the cluster.
pub fn cluster(shared: &Shared) -> Outcome {
    let known = shared.neighbours.shown();
    let others: BTreeMap<&str, &Neighbour> =
        known.values().flatten().map(|neighbour| (neighbour.broker.as_str(), neighbour)).collect();
    let mut body = BytesMut::new();
    with_brokers(shared, true, others.values().copied(), |brokers| put_cluster_info(&mut body, brokers));
    Reply::body(body).into()
}

/// 206: every topic's name.
pub fn topic_list(shared: &Shared) -> Outcome {
    listed(&names(shared, |_| true, true))
}

/// Names of topics: this broker's if they are `wanted`, and those of others that are.
fn names(shared: &Shared, wanted: impl Fn(&Neighbour) -> bool, own: bool) -> BTreeSet<Box<str>> {
    let mut names = BTreeSet::new();
    if own {
        names.extend(shared.state.topics.names());
    }
    let known = shared.neighbours.shown();
    names.extend(known.iter().filter(|(_, others)| others.iter().any(&wanted)).map(|(name, _)| name.clone()));
    names
}

fn listed(names: &BTreeSet<Box<str>>) -> Outcome {
    let mut body = BytesMut::new();
    put_topic_list(&mut body, &names.iter().collect::<Vec<_>>());
    Reply::body(body).into()
}

/// 224: the topics of a cluster.
pub fn topics_of_cluster(shared: &Shared, request: &Request<'_>) -> Outcome {
    let cluster = match request.required("cluster") {
        Ok(cluster) => cluster,
        Err(error) => return Reply::from(error).into(),
    };
    let is_own = *cluster == *shared.settings.cluster;
    let names = names(shared, |neighbour| neighbour.cluster == cluster, is_own);
    if !is_own && names.is_empty() {
        let remark = format!("there is no cluster {cluster}; this one is {}", shared.settings.cluster);
        return Reply::failure(code::SYSTEM_ERROR, remark).into();
    }
    listed(&names)
}

/// 304, 305: the topics that are the broker's own, whether there is anything in them or not.
pub fn own_topics(shared: &Shared) -> Outcome {
    let names: Vec<_> = OWN_TOPICS.into_iter().chain([TEMPLATE]).collect();
    let mut body = BytesMut::new();
    put_topics_of_broker(&mut body, &shared.settings.advertise.to_string(), &names);
    Reply::body(body).into()
}

/// 205: producers are shown no queues to write from now on, until 327 or the next start. What they send all the same is stored.
pub fn wipe_writes(shared: &Shared, request: &Request<'_>) -> Outcome {
    set_wiped(shared, request, true, "wipeTopicCount")
}

/// 327: the reverse.
pub fn add_writes(shared: &Shared, request: &Request<'_>) -> Outcome {
    set_wiped(shared, request, false, "addTopicCount")
}

fn set_wiped(shared: &Shared, request: &Request<'_>, wiped: bool, count: &'static str) -> Outcome {
    match request.required("brokerName") {
        Ok(name) if *name == *shared.settings.broker => {
            shared.writes_wiped.store(wiped, Ordering::Relaxed);
            tracing::info!(wiped, asker = %request.peer, "an operator changed what producers are shown");
            Reply::success().with(count, shared.state.topics.count()).into()
        }
        Ok(_) => Reply::success().with(count, 0).into(),
        Err(error) => Reply::from(error).into(),
    }
}

/// 101, 219: no values are kept.
pub fn value(request: &Request<'_>) -> Outcome {
    let namespace = request.field("namespace").unwrap_or_default();
    let key = request.field("key").map(|key| format!(" {key}")).unwrap_or_default();
    Reply::failure(
        code::QUERY_NOT_FOUND,
        format!("there is no value{key} in {namespace:?}: this name server keeps none"),
    )
    .into()
}

/// 102: what is not there is gone.
pub fn delete_value() -> Outcome {
    Reply::default().into()
}

/// 100: none is taken.
pub fn put_value(request: &Request<'_>) -> Outcome {
    let remark = if request.field("namespace") == Some("ORDER_TOPIC_CONFIG") {
        "ordered topics need no list of queues here: consumers lock queues, and a topic's queues are in its route"
    } else {
        "this name server keeps no values"
    };
    Reply::failure(code::REQUEST_CODE_NOT_SUPPORTED, remark).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scene::Scene;

    #[test]
    fn the_trace_topic_is_there_for_who_asks_for_its_route_and_no_other_is() {
        let mut scene = Scene::new();
        let id = scene.connect();
        assert_eq!(scene.ask(id, 105, &json!({"topic": "T1"}), &[]).code(), 17);
        assert_eq!(scene.ask(id, 105, &json!({"topic": TRACE_TOPIC}), &[]).code(), 0);
        assert_eq!(scene.send(id, TRACE_TOPIC, 3, "", b"Pub").code(), 0);
        let mut scene = scene.crash();
        assert_eq!(scene.read_all(TRACE_TOPIC, 3).len(), 1);
    }
}
