//! 105, 106, 206.

use bytes::BytesMut;

use crate::features::topics::TopicConfig;
use crate::features::{Outcome, Reply, Request, code, reply};
use crate::shared::Shared;
use crate::wire::body::{IdStyle, Route, RouteBroker, RouteQueues, put_cluster_info, put_topic_list};

/// 105: where a topic is.
pub fn route(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = match request.required("topic") {
        Ok(name) => name,
        Err(error) => return Reply::from(error).into(),
    };
    // Whoever replies asks for it first; it is made when it is wanted.
    if name == reply::topic(&shared.settings.cluster) && shared.admission().is_ok() {
        drop(shared.state.get_or_make_topic(name, TopicConfig::open(1)));
    }
    let Some(topic) = shared.state.topics.get(name) else {
        return Reply::failure(code::TOPIC_NOT_EXIST, format!("there is no route for topic {name}: it does not exist"))
            .into();
    };
    let config = topic.config;
    let broker = &shared.settings.broker;
    let queues = RouteQueues {
        broker_name: broker,
        read_queues: config.read_queues,
        write_queues: config.write_queues,
        permissions: config.perm.into(),
        sys_flag: config.sys_flag.cast_unsigned(),
    };
    // Quoted ids for everyone: every client family in use reads them, and some read nothing else.
    let mut body = BytesMut::new();
    with_broker(shared, |broker| Route { queues: &[queues], brokers: &[broker] }.encode(&mut body, IdStyle::Quoted));
    Reply::body(body).into()
}

fn with_broker(shared: &Shared, write: impl FnOnce(RouteBroker<'_>)) {
    let settings = &shared.settings;
    let addresses = shared.standing.addresses(settings.advertise);
    let addresses: Vec<_> = addresses.iter().map(|(id, address)| (*id, address.as_str())).collect();
    write(RouteBroker { cluster: &settings.cluster, name: &settings.broker, addresses: &addresses });
}

/// 106: the cluster.
pub fn cluster(shared: &Shared) -> Outcome {
    let mut body = BytesMut::new();
    with_broker(shared, |broker| put_cluster_info(&mut body, &[broker]));
    Reply::body(body).into()
}

/// 206: every topic's name.
pub fn topic_list(shared: &Shared) -> Outcome {
    let mut body = BytesMut::new();
    put_topic_list(&mut body, &shared.state.topics.names());
    Reply::body(body).into()
}
