//! Questions that a network thread passes on to clients of any thread, and the answers that it waits for.
//!
//! 1. Each question is answered once, at the latest when its time is up.
//! 2. An answer counts only from the connection that was asked.
//!
//! ```text
//!  asker's thread: Waiting ── Mail::Question ──> client's thread: Pending ──> client
//!                      ^────── Mail::Said ────────────────┘  <── answer, or gone
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use crate::features::clients::Client;
use crate::features::relay::{Answer, Gather, Relay, Said};
use crate::features::{Reply, code};
use crate::limits;
use crate::net::connection::Connection;
use crate::net::mailbox::Mail;
use crate::net::{ConnectionId, ReplyTo};
use crate::wire::header::Head;
use crate::wire::{Encoding, Header};

/// Which question, of which thread, to whom of those who are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionId {
    worker: u16,
    number: u64,
    place: usize,
}

/// Somebody waits for clients.
#[derive(Debug)]
struct Waiting {
    to: ReplyTo,
    deadline: Duration,
    gather: Gather,
    said: Vec<(Arc<Client>, Option<Said>)>,
}

/// A client of this thread was asked.
#[derive(Debug)]
struct Pending {
    id: QuestionId,
    connection: ConnectionId,
    deadline: Duration,
}

/// What one network thread knows of questions.
#[derive(Debug, Default)]
pub(super) struct Relays {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// By the number under which the client answers.
    pending: BTreeMap<i32, Pending>,
}

impl Worker {
    /// Asks clients for somebody.
    pub(super) fn relay(&mut self, connection: &mut Connection, to: ReplyTo, relay: Relay) {
        if self.relays.waiting.len() >= limits::RELAYS_MAX {
            let reply = Reply::failure(code::SYSTEM_BUSY, "too many questions to clients are open; ask again");
            return self.answer(connection, to, &reply);
        }
        self.relays.next += 1;
        let number = self.relays.next;
        let relay = Arc::new(relay);
        let waiting = Waiting {
            to,
            deadline: self.now + limits::RELAY_WAIT,
            gather: relay.gather,
            said: relay.clients.iter().map(|client| (client.clone(), None)).collect(),
        };
        self.relays.waiting.insert(number, waiting);
        for (place, client) in relay.clients.iter().enumerate() {
            let id = QuestionId { worker: self.index, number, place };
            let asked = client.connection;
            if asked.worker != self.index {
                if let Some(mailbox) = self.mailboxes.get(usize::from(asked.worker)) {
                    mailbox.post(Mail::Question { connection: asked, id, relay: relay.clone() });
                }
            } else if asked == connection.id {
                self.question(connection, id, &relay);
            } else if let Some(mut other) = self.lend(asked) {
                self.question(&mut other, id, &relay);
                self.give_back(other);
            } else {
                self.note_said(id, Said::Gone);
            }
        }
        if let Some(reply) = self.take_complete(number) {
            self.answer(connection, to, &reply);
        }
    }

    /// A question of another thread.
    pub(super) fn question_by_mail(&mut self, connection: ConnectionId, id: QuestionId, relay: &Relay) {
        match self.lend(connection) {
            Some(mut connection) => {
                self.question(&mut connection, id, relay);
                self.give_back(connection);
            }
            None => self.tell_said(id, Said::Gone),
        }
    }

    fn question(&mut self, connection: &mut Connection, id: QuestionId, relay: &Relay) {
        self.next_opaque = self.next_opaque.wrapping_add(1) & i32::MAX;
        let opaque = self.next_opaque;
        let mut frame = Head::request(Encoding::Json, relay.code, opaque).encode(&mut connection.output);
        for (name, value) in &relay.fields {
            frame.field(name, value);
        }
        let finished = frame.finish(&relay.body);
        debug_assert!(finished.is_ok(), "a message fits a frame");
        let deadline = self.now + limits::RELAY_WAIT;
        self.relays.pending.insert(opaque, Pending { id, connection: connection.id, deadline });
        self.touched(connection);
    }

    /// A client answered something.
    pub(super) fn client_said(&mut self, from: &mut Connection, header: &Header<'_>, body: &[u8]) {
        // Whatever else comes as an answer was asked by nobody, or too long ago.
        if self.relays.pending.get(&header.opaque).is_none_or(|pending| pending.connection != from.id) {
            return;
        }
        let Some(pending) = self.relays.pending.remove(&header.opaque) else { return };
        let answer = Answer { code: header.code, remark: header.remark().map(str::to_owned), body: body.to_vec() };
        let said = Said::Answer(answer);
        if pending.id.worker != self.index {
            return self.tell_said(pending.id, said);
        }
        self.note_said(pending.id, said);
        self.finish_relay(Some(from), pending.id.number);
    }

    /// What became of a question, for the thread that asked it.
    fn tell_said(&mut self, id: QuestionId, said: Said) {
        if id.worker == self.index {
            self.note_said(id, said);
            self.finish_relay(None, id.number);
        } else if let Some(mailbox) = self.mailboxes.get(usize::from(id.worker)) {
            mailbox.post(Mail::Said { id, said });
        }
    }

    /// What became of a question that this thread asked, from another one.
    pub(super) fn said_by_mail(&mut self, id: QuestionId, said: Said) {
        self.note_said(id, said);
        self.finish_relay(None, id.number);
    }

    fn note_said(&mut self, id: QuestionId, said: Said) {
        let waiting = self.relays.waiting.get_mut(&id.number);
        if let Some((_, kept)) = waiting.and_then(|waiting| waiting.said.get_mut(id.place)) {
            *kept = Some(said);
        }
    }

    /// The answer, when everyone has said something; the question is closed then.
    fn take_complete(&mut self, number: u64) -> Option<Reply> {
        let waiting = self.relays.waiting.get(&number)?;
        if waiting.said.iter().any(|(_, said)| said.is_none()) {
            return None;
        }
        let waiting = self.relays.waiting.remove(&number)?;
        Some(waiting.reply())
    }

    /// Answers when everyone has said something. `lent`: a connection that is out of its slot.
    fn finish_relay(&mut self, lent: Option<&mut Connection>, number: u64) {
        let Some(to) = self.relays.waiting.get(&number).map(|waiting| waiting.to) else { return };
        let Some(reply) = self.take_complete(number) else { return };
        match lent {
            Some(connection) if connection.id == to.connection => self.answer(connection, to, &reply),
            _ => self.answer_to(to, &reply),
        }
    }

    /// Ends questions whose time is up by then.
    pub(super) fn end_relays(&mut self, now: Duration) {
        self.relays.pending.retain(|_, pending| pending.deadline > now);
        let over = |waiting: &Waiting| waiting.deadline <= now;
        while let Some((&number, _)) = self.relays.waiting.iter().find(|(_, waiting)| over(waiting)) {
            let Some(waiting) = self.relays.waiting.remove(&number) else { break };
            let to = waiting.to;
            let reply = waiting.reply();
            self.answer_to(to, &reply);
        }
    }

    /// A client that was asked is gone.
    pub(super) fn end_questions_to(&mut self, connection: ConnectionId) {
        let lost: Vec<_> = self
            .relays
            .pending
            .iter()
            .filter(|(_, one)| one.connection == connection)
            .map(|(opaque, _)| *opaque)
            .collect();
        for opaque in lost {
            if let Some(pending) = self.relays.pending.remove(&opaque) {
                self.tell_said(pending.id, Said::Gone);
            }
        }
    }

    /// Questions that somebody waits for.
    pub(super) fn relay_count(&self) -> usize {
        self.relays.waiting.len()
    }
}

impl Waiting {
    fn reply(self) -> Reply {
        let said = self.said.into_iter().map(|(client, said)| (client, said.unwrap_or(Said::Nothing)));
        self.gather.reply(said.collect())
    }
}
