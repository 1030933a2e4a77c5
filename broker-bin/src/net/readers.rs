//! Threads that read from the disk, for pulls and for what else needs a message, so that no network thread ever waits for it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anchorlog_engine::WriteBatch;

use super::ReplyTo;
use super::mailbox::{Mail, Mailbox};
use crate::features::pull::{Evaluation, Pull, evaluate};
use crate::features::{Reply, Task, code};
use crate::limits;
use crate::lock::lock;
use crate::shared::Shared;

/// A pull whose messages lie on the disk.
#[derive(Debug)]
pub(super) struct ColdPull {
    pub(super) pull: Box<Pull>,
    pub(super) to: ReplyTo,
}

/// What reads from the disk.
#[derive(Debug)]
pub(super) enum Cold {
    Pull(ColdPull),
    Task { task: Task, to: ReplyTo, since: Duration },
}

/// Where network threads hand such work in. What is waiting is bounded by `limits::COLD_PER_CONNECTION_MAX`.
#[derive(Clone, Debug)]
pub struct ColdReads(Sender<Cold>);

impl ColdReads {
    /// Hands some in; it comes back when there is nobody to do it.
    pub(super) fn submit(&self, work: Cold) -> Result<(), Cold> {
        self.0.send(work).map_err(|error| error.0)
    }
}

/// Starts the readers. They end when every [`ColdReads`] is gone.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(shared: &Arc<Shared>, mailboxes: &Arc<[Mailbox]>) -> std::io::Result<(ColdReads, Vec<JoinHandle<()>>)> {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let threads = (0..limits::COLD_READERS)
        .map(|number| {
            let (shared, mailboxes, receiver) = (shared.clone(), mailboxes.clone(), receiver.clone());
            std::thread::Builder::new()
                .name(format!("cold-read-{number}"))
                .spawn(move || serve(&shared, &mailboxes, &receiver))
        })
        .collect::<Result<_, _>>()?;
    Ok((ColdReads(sender), threads))
}

fn serve(shared: &Shared, mailboxes: &[Mailbox], receiver: &Mutex<Receiver<Cold>>) {
    loop {
        let next = lock(receiver).recv();
        let ColdPull { pull, to } = match next {
            Err(_) => return,
            Ok(Cold::Pull(pull)) => pull,
            Ok(Cold::Task { task, to, since }) => {
                let mut batch = WriteBatch::new();
                let outcome = Box::new(task.run(shared, &mut batch));
                let batch = Box::new(batch);
                mailboxes[usize::from(to.connection.worker)].post(Mail::Done { to, since, outcome, batch });
                continue;
            }
        };
        let (reply, messages) = match evaluate(shared, &pull, false, true) {
            Evaluation::Answer(reply, messages) => (reply, messages),
            // Asking again costs the client one round trip; holding it here would cost a reader.
            Evaluation::Nothing(_) => (pull.nothing(shared), 0),
            Evaluation::NeedsDisk => (Reply::failure(code::SYSTEM_ERROR, "the disk was not read"), 0),
        };
        mailboxes[usize::from(to.connection.worker)].post(Mail::Read { to, reply, messages });
    }
}
