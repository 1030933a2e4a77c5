//! Threads that read from the disk for pulls, so that no network thread ever waits for it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::ReplyTo;
use super::mailbox::{Mail, Mailbox};
use crate::features::pull::{Evaluation, Pull, evaluate};
use crate::features::{Reply, code};
use crate::limits;
use crate::lock::lock;
use crate::shared::Shared;

/// A pull whose messages lie on the disk.
#[derive(Debug)]
pub(super) struct ColdPull {
    pub(super) pull: Box<Pull>,
    pub(super) to: ReplyTo,
}

/// Where network threads hand such pulls in. What is waiting is bounded by `limits::COLD_PER_CONNECTION_MAX`.
#[derive(Clone, Debug)]
pub struct ColdReads(Sender<ColdPull>);

impl ColdReads {
    /// Hands one in; it comes back when there is nobody to read it.
    pub(super) fn submit(&self, pull: ColdPull) -> Result<(), ColdPull> {
        self.0.send(pull).map_err(|error| error.0)
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

fn serve(shared: &Shared, mailboxes: &[Mailbox], receiver: &Mutex<Receiver<ColdPull>>) {
    loop {
        let next = lock(receiver).recv();
        let Ok(ColdPull { pull, to }) = next else { return };
        let (reply, messages) = match evaluate(shared, &pull, false, true) {
            Evaluation::Answer(reply, messages) => (reply, messages),
            // Asking again costs the client one round trip; holding it here would cost a reader.
            Evaluation::Nothing(_) => (pull.nothing(shared), 0),
            Evaluation::NeedsDisk => (Reply::failure(code::SYSTEM_ERROR, "the disk was not read"), 0),
        };
        mailboxes[usize::from(to.connection.worker)].post(Mail::Read { to, reply, messages });
    }
}
