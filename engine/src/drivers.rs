//! The threads that drive the machines. They hold no state of their own: what they do is call `step()` and sleep.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::checkpoint::Checkpointer;
use crate::clock::Clock;
use crate::commit::signal::Signal;
use crate::commit::watermark::{Marks, Watermark};
use crate::commit::writer::{LogWriter, Step};
use crate::dispatch::Dispatcher;
use crate::error::Fenced;
use crate::housekeeping::Housekeeper;
use crate::io::{IoQueue, Wait};
use crate::limits;
use crate::units::Lsn;

/// A writer with the queue that it submits to.
pub(crate) struct Committer {
    pub(crate) writer: LogWriter,
    pub(crate) io: Box<dyn IoQueue>,
}

impl Committer {
    /// One step; may sleep for a completion.
    pub(crate) fn step(&mut self, clock: &dyn Clock, wait: Wait) -> Step {
        self.writer.step(&mut *self.io, clock, wait)
    }

    /// Waits for something that is in flight; true while there is more.
    fn drain(&mut self) -> bool {
        self.io.reap(Wait::One, &mut Vec::new());
        self.io.in_flight() > 0
    }
}

/// How long a driver looks for more to submit before it looks for completions again.
const IN_FLIGHT_NAP: Duration = Duration::from_micros(100);

/// The commit thread: everything that has arrived, written; then everything that has arrived meanwhile.
pub(crate) fn commit_loop(
    committer: &Mutex<Committer>,
    signals: &Signals,
    marks: &Marks,
    clock: &dyn Clock,
    stop: &Stop,
) {
    let mut wait = Wait::No;
    loop {
        let stopping = stop.is_set();
        let (step, at_rest) = {
            let mut committer = committer.lock().expect("the writer is intact");
            let step = committer.step(clock, wait);
            (step, committer.writer.is_at_rest())
        };
        signals.dispatch.reached(marks.acked());
        wait = Wait::No;
        match step {
            Step::Fenced => {
                // A write that is still on its way must not land behind the back of whoever opens the log next.
                while committer.lock().expect("the writer is intact").drain() {}
                return;
            }
            _ if stopping && at_rest => return,
            Step::Again => {}
            Step::InFlight { wake_at: None } => wait = Wait::One,
            Step::InFlight { wake_at: Some(wake_at) } => {
                signals.commit.sleep(wake_at, || marks.assigned(), Some(IN_FLIGHT_NAP));
            }
            Step::Idle { wake_at, after } => signals.commit.sleep(wake_at, || marks.assigned(), after),
        }
    }
}

/// The dispatch thread: at once while a queue is watched, else in larger pieces; a reader does not wait for it.
pub(crate) fn dispatch_loop(dispatcher: &Mutex<Dispatcher>, signal: &Signal, marks: &Marks, stop: &Stop) {
    while !stop.is_set() {
        let acked = marks.acked();
        let (more, watched) = {
            let mut dispatcher = dispatcher.lock().expect("the dispatcher is intact");
            let more = dispatcher.step();
            (more, dispatcher.is_watched())
        };
        if more {
            continue;
        }
        // What was acked when it looked took it no further, so only more than that will.
        let ahead = if watched { 1 } else { limits::DISPATCH_BYTES };
        signal.sleep(acked.plus(ahead), || marks.acked(), None);
    }
}

/// The housekeeping thread.
pub(crate) fn housekeeping_loop(housekeeper: &Mutex<Housekeeper>, signal: &Signal, marks: &Marks, stop: &Stop) {
    while !stop.is_set() {
        let due = housekeeper.lock().expect("the housekeeper is intact").step();
        if due.is_zero() {
            continue;
        }
        // With nothing in hand it sleeps until the log grows, but looks now and then whether space has become free.
        let rest = due >= limits::HOUSEKEEPING_INTERVAL;
        let (wake_at, nap) = if rest { (marks.assigned().plus(1), limits::HOUSEKEEPING_NAP) } else { (Lsn::MAX, due) };
        signal.sleep(wake_at, || marks.assigned(), Some(nap));
    }
}

/// Steps the checkpointer until told to stop.
pub(crate) fn checkpoint_loop(checkpointer: &Mutex<Checkpointer>, signal: &Signal, marks: &Marks, stop: &Stop) {
    while !stop.is_set() {
        let (due, due_at) = {
            let mut checkpointer = checkpointer.lock().expect("the checkpointer is intact");
            (checkpointer.step(), checkpointer.due_at())
        };
        if !due.is_zero() && !stop.is_set() {
            // With one under way, or put off, there is no more to do when the log grows.
            let wake_at = if due_at > marks.assigned() { due_at } else { Lsn::MAX };
            signal.sleep(wake_at, || marks.assigned(), Some(due));
        }
    }
}

/// Tells a driver to end.
#[derive(Debug, Default)]
pub(crate) struct Stop(std::sync::atomic::AtomicBool);

impl Stop {
    pub(crate) fn set(&self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Starts a named thread. Should it panic, the log is fenced: nobody waits for what a dead thread would have done.
pub(crate) fn spawn(
    name: &'static str,
    marks: &Arc<Marks>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    struct Guard(&'static str, Arc<Marks>);
    impl Drop for Guard {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let lsn = self.1.load(Watermark::Durable);
                let source = Arc::new(io::Error::other("a bug; its message was printed by the thread"));
                self.1.set_fenced(Fenced { lsn, what: format!("the {} thread panicked and", self.0), source });
            }
        }
    }
    let guard = Guard(name, Arc::clone(marks));
    std::thread::Builder::new().name(format!("anchorlog-{name}")).spawn(move || {
        let _guard = guard;
        body();
    })
}

/// What the drivers of one engine are woken by.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) commit: Signal,
    pub(crate) dispatch: Signal,
    pub(crate) housekeeping: Signal,
    pub(crate) checkpoint: Signal,
}

impl Signals {
    pub(crate) fn new() -> Arc<Signals> {
        Arc::new(Signals {
            commit: Signal::new(),
            dispatch: Signal::new(),
            housekeeping: Signal::new(),
            checkpoint: Signal::new(),
        })
    }
}
