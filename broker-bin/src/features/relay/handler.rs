//! 307, 309, 223.

use std::sync::Arc;

use anchorlog_engine::Lsn;
use bytes::BytesMut;

use super::gather::{Gather, Relay, gone};
use crate::features::clients::Client;
use crate::features::pull::encode_message;
use crate::features::{Outcome, Reply, Request, Task, code};
use crate::shared::Shared;
use crate::wire::codes::request as ask;
use crate::wire::message::MessageId;

/// The first client version that answers such questions.
const VERSION_ANSWERS: i32 = 62;

/// 307: what a consumer is doing.
pub fn running_info(shared: &Shared, request: &Request<'_>) -> Outcome {
    let asked = asked_client(shared, request).map(|(group, client)| {
        let fields = vec![
            ("consumerGroup", group.to_owned()),
            ("clientId", client.id.to_string()),
            ("jstackEnable", request.switch("jstackEnable").to_string()),
        ];
        let code = ask::GET_CONSUMER_RUNNING_INFO;
        Relay { clients: vec![client], code, fields, body: BytesMut::new(), gather: Gather::AsItIs }
    });
    asked.map_or_else(Outcome::Reply, |relay| Outcome::Relay(Box::new(relay)))
}

/// 309: lets one consumer handle one message.
pub fn consume_directly(shared: &Shared, request: &Request<'_>) -> Outcome {
    match direct(shared, request) {
        // The message may lie on the disk.
        Ok((lsn, relay)) => {
            Outcome::Read(Task::new(move |shared, _| with_message(shared, lsn, relay).unwrap_or_else(Outcome::Reply)))
        }
        Err(reply) => reply.into(),
    }
}

fn direct(shared: &Shared, request: &Request<'_>) -> Result<(Lsn, Relay), Reply> {
    let (group, client) = asked_client(shared, request)?;
    let id = request.required("msgId")?;
    let unreadable = |_| Reply::failure(code::SYSTEM_ERROR, format!("msgId {id} is not the id of a stored message"));
    let place: MessageId = id.parse().map_err(unreadable)?;
    let lsn = Lsn(u64::try_from(place.offset).unwrap_or(u64::MAX));
    let mut fields = vec![
        ("consumerGroup", group.to_owned()),
        ("clientId", client.id.to_string()),
        ("msgId", id.to_owned()),
        ("brokerName", shared.settings.broker.clone()),
    ];
    for name in ["topic", "topicSysFlag", "groupSysFlag"] {
        fields.extend(request.field(name).map(|value| (name, value.to_owned())));
    }
    let code = ask::CONSUME_MESSAGE_DIRECTLY;
    Ok((lsn, Relay { clients: vec![client], code, fields, body: BytesMut::new(), gather: Gather::AsItIs }))
}

fn with_message(shared: &Shared, lsn: Lsn, relay: Relay) -> Result<Outcome, Reply> {
    let missing = |error| Reply::failure(code::SYSTEM_ERROR, format!("there is no message at {lsn}: {error}"));
    let message = shared.engine.read(lsn).map_err(missing)?;
    let mut body = BytesMut::new();
    if !encode_message(&mut body, &message, &shared.settings) {
        return Err(Reply::failure(code::SYSTEM_ERROR, format!("what is at {lsn} is no message that can be consumed")));
    }
    Ok(Outcome::Relay(Box::new(Relay { body, ..relay })))
}

fn asked_client<'a>(shared: &Shared, request: &Request<'a>) -> Result<(&'a str, Arc<Client>), Reply> {
    let group = request.required("consumerGroup")?;
    let id = request.required("clientId")?;
    let client = shared.clients.consumer(group, id).ok_or_else(|| gone(id))?;
    if client.version < VERSION_ANSWERS {
        let remark = format!("client {id} has version {}, which does not answer such questions", client.version);
        return Err(Reply::failure(code::SYSTEM_ERROR, remark));
    }
    Ok((group, client))
}

/// 223: where the members of a group are in the queues of a topic, or one of them.
pub fn consumer_status(shared: &Shared, request: &Request<'_>) -> Outcome {
    let (group, topic) = match (request.required("group"), request.required("topic")) {
        (Ok(group), Ok(topic)) => (group, topic),
        (Err(error), _) | (_, Err(error)) => return Reply::from(error).into(),
    };
    // Tools give the client's id under this name.
    let wanted = request.field("clientAddr").filter(|id| !id.is_empty());
    let is_meant = |client: &Client| wanted.is_none_or(|id| *client.id == *id || client.address.to_string() == id);
    let clients = shared.clients.consumers(group).into_iter().map(|consumer| consumer.client);
    let clients: Vec<_> = clients.filter(|client| client.version >= VERSION_ANSWERS && is_meant(client)).collect();
    if clients.is_empty() {
        return Reply::failure(code::CONSUMER_NOT_ONLINE, format!("no such consumer of group {group} is connected"))
            .into();
    }
    let fields = vec![("topic", topic.to_owned()), ("group", group.to_owned())];
    let code = ask::GET_CONSUMER_STATUS_FROM_CLIENT;
    Outcome::Relay(Box::new(Relay { clients, code, fields, body: BytesMut::new(), gather: Gather::Places }))
}
