//! What a handler wants done.

use std::borrow::Cow;

use anchorlog_engine::{Lsn, Rejection, WriteBatch};
use bytes::BytesMut;

use crate::counters::Counters;
use crate::features::delay::DueKey;
use crate::features::groups::Change;
use crate::features::pull::Pull;
use crate::features::relay::Relay;
use crate::features::repeats::Back;
use crate::features::retry::Letter;
use crate::features::send::Sending;
use crate::shared::Shared;

/// An answer, still without its addressee.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The response code.
    pub code: i32,
    /// Text for people.
    pub remark: Option<Cow<'static, str>>,
    /// Named fields; `None` leaves them out.
    pub fields: Option<Vec<(&'static str, String)>>,
    /// The body.
    pub body: BytesMut,
}

impl Reply {
    /// Success, with empty fields.
    #[must_use]
    pub fn success() -> Reply {
        Reply { fields: Some(Vec::new()), ..Reply::default() }
    }

    /// Success with a body and no fields.
    #[must_use]
    pub fn body(body: BytesMut) -> Reply {
        Reply { body, ..Reply::default() }
    }

    /// A failure.
    #[must_use]
    pub fn failure(code: i32, remark: impl Into<Cow<'static, str>>) -> Reply {
        Reply { code, remark: Some(remark.into()), ..Reply::default() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.fields.get_or_insert_default().push((name, value.to_string()));
        self
    }
}

/// What of the state an answer rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Topics and groups.
    Names,
    /// Committed offsets and locks: what consumers go on by.
    Offsets,
}

/// Whether a rejection is of the kind after which the task is worth it, and the task.
pub type Again = (fn(&Rejection) -> bool, Task);

/// A batch that is no send.
#[derive(Debug)]
pub struct Writing {
    /// The answer, once the batch is acknowledged.
    pub reply: Reply,
    /// An entry for a later time that stands in the batch.
    pub due: Option<DueKey>,
    /// A transaction that nobody needs be asked about any more.
    pub ends: Option<DueKey>,
    /// A dead letter that stands in the batch, as its first operation.
    pub letter: Option<Box<Letter>>,
    /// The answer when what the batch requires does not hold; it leaves when that is sure.
    pub rejected: fn(&Shared, &Rejection) -> Reply,
    /// What is tried instead once that is sure, where the rejection says that what was read was only not the newest.
    pub again: Option<Again>,
    /// Counts it, when it has its place in the log.
    pub counted: fn(&Counters),
    /// What is claimed for it until it is appended.
    pub back: Option<Box<Back>>,
}

type TaskBody = dyn FnOnce(&Shared, &mut WriteBatch) -> Outcome + Send;

/// A part of a handler that may read from the disk. It runs on a thread where nobody else waits.
pub struct Task(Box<TaskBody>);

impl Task {
    /// A part that may fill a batch. Its outcome may be a part that waits, but none that is to be done at once.
    pub fn new(body: impl FnOnce(&Shared, &mut WriteBatch) -> Outcome + Send + 'static) -> Task {
        Task(Box::new(body))
    }

    /// Does it.
    pub fn run(self, shared: &Shared, batch: &mut WriteBatch) -> Outcome {
        self.0(shared, batch)
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

/// What a part of a handler waits for.
#[derive(Debug)]
pub enum Awaited {
    /// That the log is acknowledged up to here and this, too.
    Acked {
        /// Where.
        lsn: Lsn,
        /// What is answered when that is not in time, once the places of these messages in their queues are known: that they are stored
        /// and not confirmed. Without it: that nothing was done.
        overdue: Option<Box<Sending>>,
    },
    /// That what was parsed before has its place in the log.
    Places,
    /// That connections which are about to close are gone.
    Closing,
}

/// A part of a handler that waits.
#[derive(Debug)]
pub struct After {
    /// For what.
    pub awaited: Awaited,
    /// Goes on where the disk may be read.
    pub task: Task,
}

/// What a handler wants done. The network thread does it, and gives the answer to whoever asked.
#[derive(Debug)]
pub enum Outcome {
    /// Answer now.
    Reply(Reply),
    /// Answer when all changes of the state of this kind up to now are acknowledged.
    Recorded(Reply, Kept),
    /// Append the batch that was filled; answer when it is acknowledged.
    Append(Sending),
    /// The same for a batch that is no send.
    Write(Writing),
    /// Go on where the disk may be read.
    Read(Task),
    /// The same, later.
    After(After),
    /// Answer a send that was stored before as it was answered then.
    Repeat(Sending),
    /// Read, or hold until there is something to read.
    Pull(Box<Pull>),
    /// Ask clients, and answer what they say.
    Relay(Box<Relay>),
    /// Answer, and tell the members of a group that it changed.
    Tell {
        /// The answer.
        reply: Reply,
        /// Groups and whom to tell.
        changes: Vec<(Box<str>, Change)>,
        /// What of the state the answer waits for, if it waits.
        kept: Option<Kept>,
    },
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Outcome {
        Outcome::Reply(reply)
    }
}
