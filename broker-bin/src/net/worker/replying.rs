//! Replies: they are given to whoever asked, and whoever replied hears how that went.
//!
//! 1. A reply is given when it is acknowledged, by the thread that has the asker's connection; its outcome goes back to the thread that
//!    has the replier's.
//! 2. Each has one outcome: taken, refused, not taken in time, or the asker is gone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Ack, Answer, Worker};
use crate::features::code;
use crate::features::reply::{Push, Pushed, Pushes};
use crate::features::send::Sending;
use crate::limits;
use crate::net::mailbox::Mail;
use crate::net::{ConnectionId, ReplyTo};
use crate::wire::codes::request as ask;
use crate::wire::header::Head;
use crate::wire::{Encoding, Header};

/// A reply that is acknowledged, and not answered yet.
#[derive(Debug)]
struct Waiting {
    to: ReplyTo,
    sending: Sending,
    code: i32,
    remark: Option<&'static str>,
    client_id: Box<str>,
}

/// What one network thread has to do with replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// Of its own connections.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// Given to its own connections.
    given: Pushes,
    /// Outcomes that came while a connection was out of its place.
    outcomes: Vec<(Pushed, Result<(), Cow<'static, str>>)>,
}

impl Replies {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.given.is_empty() && self.outcomes.is_empty()
    }
}

impl Worker {
    /// A reply is acknowledged, or it is not known in time whether it is.
    pub(super) fn begin_push(&mut self, ack: Ack, push: Push, code: i32, remark: Option<&'static str>) {
        let Answer::Sent(sending) = ack.answer else { return };
        self.replies.next += 1;
        let pushed = Pushed { to: ack.to, number: self.replies.next, deadline: ack.deadline };
        let client_id = push.client_id.clone();
        self.replies.waiting.insert(pushed.number, Waiting { to: ack.to, sending, code, remark, client_id });
        match self.shared.requesters.find(&push.client_id) {
            None => self.end_push(&pushed, Err("not found".into())),
            Some(asker) if asker.worker == self.index => self.push(asker, &push, pushed),
            Some(asker) => match self.mailboxes.get(usize::from(asker.worker)) {
                Some(mailbox) => mailbox.post(Mail::Push { connection: asker, push: Box::new(push), pushed }),
                None => self.end_push(&pushed, Err("not found".into())),
            },
        }
    }

    /// Gives a reply to the one who asked.
    pub(super) fn push(&mut self, asker: ConnectionId, push: &Push, pushed: Pushed) {
        let Some(mut connection) = self.lend(asker) else {
            return self.tell_outcome(pushed, Err("gone".into()));
        };
        self.next_opaque = self.next_opaque.wrapping_add(1) & i32::MAX;
        let head = Head::request(Encoding::Json, ask::PUSH_REPLY_MESSAGE_TO_CLIENT, self.next_opaque);
        let mut frame = head.encode(&mut connection.output);
        for (name, value) in &push.fields {
            frame.field(name, value);
        }
        let finished = frame.finish(&push.body);
        debug_assert!(finished.is_ok(), "a message fits a frame");
        // The replier waits no longer than for any other send, and the one who asked gets a moment in any case.
        let deadline = pushed.deadline.max(self.now + limits::PUSH_TIMEOUT_MIN);
        self.replies.given.given(asker, self.next_opaque, pushed, deadline);
        self.touched(&mut connection);
        self.give_back(connection);
    }

    /// A client answers something that it was asked; true when that was a reply. Its connection is out of its place.
    pub(super) fn took_reply(&mut self, connection: ConnectionId, header: &Header<'_>) -> bool {
        let Some(pushed) = self.replies.given.taken(connection, header.opaque) else { return false };
        let outcome = match header.code {
            code::SUCCESS => Ok(()),
            other => Err(format!("has refused it with code {other}").into()),
        };
        self.replies.outcomes.push((pushed, outcome));
        true
    }

    /// Tells the outcomes that came since.
    pub(super) fn settle_replies(&mut self) {
        for (pushed, outcome) in std::mem::take(&mut self.replies.outcomes) {
            self.tell_outcome(pushed, outcome);
        }
    }

    pub(super) fn end_late_pushes(&mut self) {
        for pushed in self.replies.given.overdue(self.now) {
            self.tell_outcome(pushed, Err("has not taken it in time".into()));
        }
    }

    pub(super) fn end_pushes_to(&mut self, connection: ConnectionId) {
        for pushed in self.replies.given.gone(connection) {
            self.tell_outcome(pushed, Err("is gone".into()));
        }
    }

    fn tell_outcome(&mut self, pushed: Pushed, outcome: Result<(), Cow<'static, str>>) {
        let replier = pushed.to.connection.worker;
        if replier == self.index {
            self.end_push(&pushed, outcome);
        } else if let Some(mailbox) = self.mailboxes.get(usize::from(replier)) {
            mailbox.post(Mail::Pushed { pushed, outcome });
        }
    }

    /// Answers the replier.
    pub(super) fn end_push(&mut self, pushed: &Pushed, outcome: Result<(), Cow<'static, str>>) {
        let Some(waiting) = self.replies.waiting.remove(&pushed.number) else { return };
        let Waiting { to, sending, code, remark, client_id } = waiting;
        let (code, remark): (i32, Option<Cow<'static, str>>) = match outcome {
            Ok(()) => {
                self.shared.counters.replies_pushed.add(1);
                (code, remark.map(Cow::Borrowed))
            }
            Err(what) => {
                self.shared.counters.replies_failed.add(1);
                let remark = format!("push reply message fail, channel of <{client_id}> {what}.");
                (code::SYSTEM_ERROR, Some(remark.into()))
            }
        };
        if to.oneway {
            return;
        }
        let Some(mut connection) = self.lend(to.connection) else { return };
        let head = Head::response(to.encoding, code, to.opaque).with_remark(remark.as_deref());
        sending.write(head.encode(&mut connection.output), self.shared.settings.advertise);
        self.touched(&mut connection);
        self.give_back(connection);
    }
}
