//! What network threads and readers tell each other.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anchorlog_engine::WriteBatch;

use super::worker::QuestionId;
use super::{ConnectionId, ReplyTo};
use crate::features::relay::{Relay, Said};
use crate::features::reply::{Push, Pushed};
use crate::features::transactions::Question;
use crate::features::{Outcome, Reply};
use crate::lock::lock;

/// Something for a connection of another thread.
#[derive(Debug)]
pub enum Mail {
    /// The members of a group changed.
    Notice {
        /// Whom to tell.
        connection: ConnectionId,
        /// Which group.
        group: Box<str>,
    },
    /// A producer is asked what became of a transaction.
    Ask {
        /// Whom to ask.
        connection: ConnectionId,
        /// What.
        question: Arc<Question>,
    },
    /// A reply is to be given to whoever asked.
    Push {
        /// Whose connection it is.
        connection: ConnectionId,
        /// The reply.
        push: Box<Push>,
        /// Who replied.
        pushed: Pushed,
    },
    /// What became of that.
    Pushed {
        /// Who replied.
        pushed: Pushed,
        /// What did not work, if something did not.
        outcome: Result<(), Cow<'static, str>>,
    },
    /// A client is asked something for somebody else.
    Question {
        /// Whom to ask.
        connection: ConnectionId,
        /// Which question it is.
        id: QuestionId,
        /// What.
        relay: Arc<Relay>,
    },
    /// What became of such a question.
    Said {
        /// Which question it is.
        id: QuestionId,
        /// What the client said, if it did.
        said: Said,
    },
    /// A read from the disk is done.
    Read {
        /// Who asked.
        to: ReplyTo,
        /// The answer.
        reply: Reply,
        /// Messages in it.
        messages: usize,
    },
    /// The part of a handler that could read from the disk is done.
    Done {
        /// Who asked.
        to: ReplyTo,
        /// When.
        since: Duration,
        /// What is to be done now.
        outcome: Box<Outcome>,
        /// The batch, where it says so.
        batch: Box<WriteBatch>,
    },
}

/// Wakes the thread that a mailbox belongs to.
pub trait Wake: Send + Sync {
    /// Makes it look into its mailbox soon. Callable from any thread.
    fn wake(&self);
}

/// One thread's mailbox.
pub struct Mailbox {
    mail: Mutex<Vec<Mail>>,
    wake: Box<dyn Wake>,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl Mailbox {
    /// An empty mailbox.
    #[must_use]
    pub fn new(wake: Box<dyn Wake>) -> Mailbox {
        Mailbox { mail: Mutex::default(), wake }
    }

    /// Puts something in, and wakes the owner when it was empty.
    pub fn post(&self, mail: Mail) {
        let was_empty = {
            let mut all = lock(&self.mail);
            all.push(mail);
            all.len() == 1
        };
        if was_empty {
            self.wake.wake();
        }
    }

    /// Takes everything out.
    #[must_use]
    pub fn take(&self) -> Vec<Mail> {
        std::mem::take(&mut *lock(&self.mail))
    }
}
