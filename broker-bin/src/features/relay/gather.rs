//! A question to clients, and what becomes of their answers.

use std::sync::Arc;

use bytes::BytesMut;

use crate::features::clients::Client;
use crate::features::{Reply, code};
use crate::wire::admin::{put_consumer_status, queue_table};

/// A question to some clients.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Who is asked.
    pub clients: Vec<Arc<Client>>,
    /// Which request it is.
    pub code: i32,
    /// Its fields.
    pub fields: Vec<(&'static str, String)>,
    /// Its body.
    pub body: BytesMut,
    /// What becomes of the answers.
    pub gather: Gather,
}

/// What becomes of the answers of those who were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// The one answer is passed on.
    AsItIs,
    /// Each one's place in its queues is put together.
    Places,
}

/// What a client said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub code: i32,
    /// Text for people.
    pub remark: Option<String>,
    /// The rest.
    pub body: Vec<u8>,
}

/// What became of asking one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It answered.
    Answer(Answer),
    /// Its connection is gone.
    Gone,
    /// Nothing in time.
    Nothing,
}

impl Gather {
    /// The answer to whoever asked.
    #[must_use]
    pub fn reply(self, said: Vec<(Arc<Client>, Said)>) -> Reply {
        match self {
            Gather::AsItIs => match said.into_iter().next() {
                Some((_, Said::Answer(answer))) => Reply {
                    code: answer.code,
                    remark: answer.remark.map(Into::into),
                    body: answer.body.as_slice().into(),
                    ..Reply::default()
                },
                Some((client, Said::Nothing)) => {
                    Reply::failure(code::CONSUME_MSG_TIMEOUT, format!("client {} did not answer in time", client.id))
                }
                Some((client, Said::Gone)) => gone(&client.id),
                None => Reply::failure(code::CONSUMER_NOT_ONLINE, "nobody was asked"),
            },
            Gather::Places => {
                let tables = said.iter().filter_map(|(client, said)| match said {
                    Said::Answer(answer) if answer.code == code::SUCCESS => {
                        Some((&*client.id, queue_table(&answer.body)?))
                    }
                    _ => None,
                });
                let mut body = BytesMut::new();
                put_consumer_status(&mut body, &tables.collect::<Vec<_>>());
                Reply::body(body)
            }
        }
    }
}

/// The answer when a client is not there.
pub(super) fn gone(client_id: &str) -> Reply {
    Reply::failure(code::SYSTEM_ERROR, format!("client {client_id} is not connected"))
}
