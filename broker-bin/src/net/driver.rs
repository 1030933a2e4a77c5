//! What the drivers have in common: one network thread's tasks around a [`Worker`].
//!
//! ```text
//!   reader tasks ──bytes_in──┐
//!                            ├─> turn task: end_of_turn ──┐
//!   acked / written / watched eventfds, mailbox, ticks ───┴─> flush: one write per connection that has something
//! ```
//! 1. The turn task runs behind every reader that was ready together with the one that woke it, so that they share one append.
//! 2. Only `flush` and what it starts write, so answers never interleave within a connection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::Clock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::{AbortHandle, spawn_local};

use super::door::{Door, Refusal, SEALED_AT_ONCE, Session};
use super::mailbox::{Mailbox, Wake};
use super::readers::ColdReads;
use super::{ConnectionId, Worker};
use crate::limits;
use crate::shared::Shared;

/// A connection that was accepted and belongs to nobody yet.
pub(crate) type Accepted = (std::net::TcpStream, SocketAddr);

/// Everything that a network thread is given.
pub(crate) struct Post {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) index: u16,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    pub(crate) cold_reads: ColdReads,
    /// Notified for the mailbox, and when the broker stops.
    pub(crate) wake: Arc<Notify>,
    /// The first thread accepts for all.
    pub(crate) listener: Option<std::net::TcpListener>,
    pub(crate) incoming: UnboundedReceiver<Accepted>,
    /// The way to every thread's `incoming`.
    pub(crate) threads: Vec<UnboundedSender<Accepted>>,
}

/// Wakes a driver's mail task.
pub(crate) struct NotifyWake(pub(crate) Arc<Notify>);

impl Wake for NotifyWake {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// How a driver moves the bytes of one connection.
pub(super) trait Socket: Sized + 'static {
    /// Takes over an accepted connection.
    fn adopt(stream: std::net::TcpStream) -> std::io::Result<Self>;
    /// Reads until the connection ends; gives every piece to [`Driver::received`].
    fn read(driver: Rc<Driver<Self>>, io: Rc<Io<Self>>) -> impl Future<Output = ()> + 'static;
    /// Writes what the worker has for the connection, now or soon.
    fn write(driver: &Rc<Driver<Self>>, io: &Rc<Io<Self>>);
    /// Ends the connection, also for operations in flight.
    fn shut(&self);
}

/// One connection, as its driver sees it.
pub(super) struct Io<S> {
    pub(super) id: ConnectionId,
    pub(super) socket: S,
    /// What stands between its bytes and the worker.
    pub(super) door: RefCell<Door>,
    /// Notified when reading may go on.
    pub(super) resume: Notify,
    /// A task writes already.
    pub(super) writing: Cell<bool>,
    reader: RefCell<Option<AbortHandle>>,
    writer: RefCell<Option<AbortHandle>>,
}

impl<S: 'static> Io<S> {
    /// Lets `task` write until nothing is left. There is never more than one such task.
    pub(super) fn write_with(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.writing.set(true);
        let io = self.clone();
        let writer = spawn_local(async move {
            task.await;
            io.writing.set(false);
        });
        *self.writer.borrow_mut() = Some(writer.abort_handle());
    }
}

/// One network thread.
pub(super) struct Driver<S> {
    pub(super) worker: RefCell<Worker>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    turn: Notify,
    connections: RefCell<HashMap<ConnectionId, Rc<Io<S>>>>,
}

impl<S: Socket> Driver<S> {
    /// Gives bytes to the worker, through the connection's door. False when the other side has ended it.
    pub(super) fn received(self: &Rc<Self>, io: &Rc<Io<S>>, bytes: &[u8]) -> bool {
        let (goes_on, has_sealed) = {
            let mut door = io.door.borrow_mut();
            if matches!(&*door, Door::Shut)
                && let Some(first) = bytes.first()
                && let Err(refusal) = door.open(self.shared.tls.as_deref(), *first)
            {
                self.turn_away(io.id, refusal);
                return true;
            }
            match &mut *door {
                Door::Tls(session) => {
                    let outcome = session.unseal(bytes, |plain| self.give(io.id, plain));
                    let goes_on = outcome.unwrap_or_else(|refusal| {
                        self.turn_away(io.id, refusal);
                        true
                    });
                    (goes_on, !session.sealed().is_empty())
                }
                Door::Plain | Door::Shut => {
                    self.give(io.id, bytes);
                    (true, false)
                }
            }
        };
        if has_sealed {
            S::write(self, io);
        }
        goes_on
    }

    fn give(&self, id: ConnectionId, bytes: &[u8]) {
        let mut worker = self.worker.borrow_mut();
        worker.set_time(self.clock.monotonic());
        if worker.bytes_in(id, bytes) {
            self.turn.notify_one();
        }
    }

    fn turn_away(&self, id: ConnectionId, refusal: Refusal) {
        let mut worker = self.worker.borrow_mut();
        worker.set_time(self.clock.monotonic());
        worker.turn_away(id, refusal);
        self.turn.notify_one();
    }

    /// Bytes to write, for a driver that must own them until it calls [`Driver::wrote_owned`].
    #[cfg(feature = "net-uring")]
    pub(super) fn take_owned(&self, io: &Io<S>) -> Vec<u8> {
        let mut worker = self.worker.borrow_mut();
        match &mut *io.door.borrow_mut() {
            Door::Tls(session) => {
                if session.sealed().is_empty() {
                    refill(session, &mut worker, io.id);
                }
                let bytes = session.sealed().to_vec();
                session.wrote(bytes.len());
                bytes
            }
            Door::Plain | Door::Shut => Vec::from(worker.take_output(io.id)),
        }
    }

    /// What [`Driver::take_owned`] gave is written.
    #[cfg(feature = "net-uring")]
    pub(super) fn wrote_owned(&self, io: &Io<S>) {
        let mut worker = self.worker.borrow_mut();
        match &mut *io.door.borrow_mut() {
            Door::Tls(session) => {
                if session.sealed().is_empty() && std::mem::take(&mut session.taken) {
                    worker.wrote_taken(io.id);
                }
            }
            Door::Plain | Door::Shut => worker.wrote_taken(io.id),
        }
    }

    /// Whether there is something to write.
    #[cfg(feature = "net-uring")]
    pub(super) fn has_output(&self, io: &Io<S>) -> bool {
        let has_sealed = matches!(&*io.door.borrow(), Door::Tls(session) if !session.sealed().is_empty());
        has_sealed || !self.worker.borrow_mut().output(io.id).is_empty()
    }

    /// Waits until the connection may be read.
    pub(super) async fn may_read(&self, io: &Io<S>) {
        while !self.worker.borrow_mut().wants_input(io.id) {
            io.resume.notified().await;
        }
    }

    /// The other side is gone, or reading failed.
    pub(super) fn ended(&self, id: ConnectionId) {
        let io = self.connections.borrow_mut().remove(&id);
        {
            let mut worker = self.worker.borrow_mut();
            worker.set_time(self.clock.monotonic());
            worker.closed(id);
        }
        // Others may have been told.
        self.turn.notify_one();
        if let Some(io) = io {
            io.socket.shut();
            // Both hold the socket; a writer could wait for a peer that never reads.
            for task in [io.reader.take(), io.writer.take()].into_iter().flatten() {
                task.abort();
            }
        }
    }

    /// Some output was written: what waited for that may go on.
    pub(super) fn written(&self, io: &Io<S>) {
        let mut worker = self.worker.borrow_mut();
        if worker.resume(io.id) {
            self.turn.notify_one();
        }
        if worker.wants_input(io.id) {
            io.resume.notify_one();
        }
    }

    /// Writes, resumes and closes whatever the worker has touched.
    fn flush(self: &Rc<Self>) {
        loop {
            let Some(id) = self.worker.borrow_mut().next_dirty() else { return };
            let Some(io) = self.connections.borrow().get(&id).cloned() else { continue };
            S::write(self, &io);
            let closes = self.worker.borrow_mut().wants_close(id);
            if closes {
                let is_sealed = match &mut *io.door.borrow_mut() {
                    Door::Tls(session) => {
                        session.end();
                        true
                    }
                    Door::Plain | Door::Shut => false,
                };
                if is_sealed {
                    S::write(self, &io);
                }
                self.ended(id);
            } else {
                self.written(&io);
            }
        }
    }

    fn event(self: &Rc<Self>, tell: impl FnOnce(&mut Worker)) {
        {
            let mut worker = self.worker.borrow_mut();
            worker.set_time(self.clock.monotonic());
            tell(&mut worker);
        }
        self.flush();
    }

    fn open(self: &Rc<Self>, (stream, peer): Accepted) {
        let socket = match stream.set_nodelay(true).and_then(|()| S::adopt(stream)) {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%peer, %error, "an accepted connection cannot be used"),
        };
        let id = {
            let mut worker = self.worker.borrow_mut();
            worker.set_time(self.clock.monotonic());
            worker.accept(peer)
        };
        let Some(id) = id else {
            return socket.shut();
        };
        let io = Rc::new(Io {
            id,
            socket,
            door: RefCell::default(),
            resume: Notify::new(),
            writing: Cell::new(false),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
        });
        self.connections.borrow_mut().insert(id, io.clone());
        let (driver, reading) = (self.clone(), io.clone());
        let reader = spawn_local(async move {
            S::read(driver.clone(), reading).await;
            driver.ended(id);
        });
        *io.reader.borrow_mut() = Some(reader.abort_handle());
    }
}

/// Seals the next of what the worker has to say; false when there is nothing to write.
pub(super) fn refill(session: &mut Session, worker: &mut Worker, id: ConnectionId) -> bool {
    if std::mem::take(&mut session.taken) {
        worker.wrote_taken(id);
    }
    let plain = worker.take_output_up_to(id, SEALED_AT_ONCE);
    if !plain.is_empty() {
        session.taken = true;
        session.seal(&plain);
    }
    !session.sealed().is_empty()
}

/// A second descriptor for the same eventfd, for the runtime to watch.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that may close their descriptor early; an OwnedFd does not"
)]
fn watched(fd: BorrowedFd<'_>) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd.try_clone_to_owned()?)
}

fn on_event<S: Socket>(driver: &Rc<Driver<S>>, fd: AsyncFd<OwnedFd>, tell: fn(&mut Worker)) -> AbortHandle {
    let driver = driver.clone();
    let task = spawn_local(async move {
        while let Ok(mut ready) = fd.readable().await {
            // Cleared before the worker reads the eventfd: what comes in between is seen again.
            ready.clear_ready();
            driver.event(tell);
        }
    });
    task.abort_handle()
}

/// Runs one network thread until the broker stops. `ready` hears whether it came up.
pub(super) async fn serve<S: Socket>(mut post: Post, ready: impl FnOnce(std::io::Result<()>)) {
    let prepared = (|| {
        let worker = Worker::new(post.shared.clone(), post.index, post.mailboxes.clone(), post.cold_reads.clone())?;
        let fds = (watched(worker.acked_fd())?, watched(worker.written_fd())?, watched(worker.watched_fd())?);
        let listener = post.listener.take().map(Listener::watched).transpose()?;
        Ok((worker, fds, listener))
    })();
    let (worker, (acked, written, watched), listener) = match prepared {
        Ok(prepared) => {
            ready(Ok(()));
            prepared
        }
        Err(error) => return ready(Err(error)),
    };
    let driver = Rc::new(Driver {
        worker: RefCell::new(worker),
        shared: post.shared.clone(),
        clock: post.clock.clone(),
        turn: Notify::new(),
        connections: RefCell::new(HashMap::new()),
    });
    let mut tasks = vec![
        on_event::<S>(&driver, acked, Worker::acked),
        on_event::<S>(&driver, written, Worker::written),
        on_event::<S>(&driver, watched, Worker::watched),
    ];
    let turning = driver.clone();
    let turn = spawn_local(async move {
        loop {
            turning.turn.notified().await;
            turning.event(Worker::end_of_turn);
        }
    });
    tasks.push(turn.abort_handle());
    let ticking = driver.clone();
    let tick = spawn_local(async move {
        let mut interval = tokio::time::interval(limits::TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            ticking.event(Worker::tick);
        }
    });
    tasks.push(tick.abort_handle());
    let opening = driver.clone();
    let mut incoming = post.incoming;
    let arrivals = spawn_local(async move {
        while let Some(accepted) = incoming.recv().await {
            opening.open(accepted);
        }
    });
    let mut accepting = vec![arrivals.abort_handle()];
    if let Some(listener) = listener {
        accepting.push(spawn_local(accept(listener, post.threads)).abort_handle());
    }
    while !driver.shared.is_closing() {
        post.wake.notified().await;
        driver.event(Worker::mail);
    }
    accepting.iter().for_each(AbortHandle::abort);
    settle(&driver, &post.wake).await;
    tasks.iter().for_each(AbortHandle::abort);
    let left: Vec<ConnectionId> = driver.connections.borrow().keys().copied().collect();
    for id in left {
        driver.ended(id);
    }
}

/// Where connections come from. They are the runtime's only when the thread that gets them has them: a stranger's goes soon, and what is
/// done for it twice costs those who work.
struct Listener(AsyncFd<std::net::TcpListener>);

impl Listener {
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types that may close their descriptor early; a listener does not"
    )]
    fn watched(listener: std::net::TcpListener) -> std::io::Result<Listener> {
        listener.set_nonblocking(true)?;
        AsyncFd::new(listener).map(Listener)
    }

    async fn accept(&self) -> std::io::Result<Accepted> {
        self.0.async_io(Interest::READABLE, std::net::TcpListener::accept).await
    }
}

/// Gives every connection that is accepted to the next thread.
async fn accept(listener: Listener, threads: Vec<UnboundedSender<Accepted>>) {
    for thread in threads.iter().cycle() {
        let accepted = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                Err(error) => {
                    // Out of descriptors, most likely: some will be free again.
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        // A thread that is gone has stopped, and so does the broker.
        drop(thread.send(accepted));
    }
}

/// Reads no more, and waits until everything taken is answered, as long as a client would wait for it.
async fn settle<S: Socket>(driver: &Rc<Driver<S>>, wake: &Notify) {
    for io in driver.connections.borrow().values() {
        if let Some(reader) = io.reader.take() {
            reader.abort();
        }
    }
    driver.event(Worker::stop);
    let patience = driver.shared.live.ack_timeout() + Duration::from_millis(500);
    let settled = async {
        while !driver.worker.borrow().is_settled() {
            // Bounded, because not everything that settles a worker comes with a wake-up.
            drop(tokio::time::timeout(Duration::from_millis(5), wake.notified()).await);
            driver.event(Worker::mail);
        }
    };
    if tokio::time::timeout(patience, settled).await.is_err() {
        tracing::warn!(
            thread = driver.worker.borrow().index(),
            "stopped with answers that could not be written in time"
        );
    }
}
