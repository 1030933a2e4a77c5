//! The rate at which checkpoints write while the log is busy.
//!
//! 1. While appends come, a checkpoint writes no more than its rate: their flushes find little of it in their way.
//! 2. Nobody waits for a checkpoint because of that: when much waits for it in memory, when the log is about as long as it may be, when
//!    the log rests, and at the end, it writes as fast as the disk takes it.
//! 3. Without threads, or before they are there, it does not sleep.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::checkpoint::backlog::Backlog;
use crate::clock::Clock;
use crate::commit::room::Room;
use crate::commit::watermark::Marks;
use crate::limits;
use crate::store::Pace;
use crate::units::{Lsn, to_u64};

/// What it looks at, and how it sleeps.
pub(crate) struct PaceParts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) room: Arc<Room>,
    /// Sleeps for so long, or until there is something else to do.
    pub(crate) sleep: Box<dyn Fn(Duration) + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    /// The assigned end when it last changed, and when that was seen.
    seen: Lsn,
    seen_at: Duration,
    /// When what was written so far is paid for.
    due: Duration,
}

/// Asked before each write of a checkpoint.
#[derive(Default)]
pub(crate) struct CheckpointPace {
    parts: OnceLock<PaceParts>,
    state: Mutex<State>,
}

impl CheckpointPace {
    /// From now on it sleeps.
    pub(crate) fn start(&self, parts: PaceParts) {
        drop(self.parts.set(parts));
    }

    /// What the store asks.
    pub(crate) fn of(this: &Arc<CheckpointPace>) -> Pace {
        let this = Arc::clone(this);
        Arc::new(move |bytes| this.take(bytes))
    }

    fn take(&self, bytes: usize) {
        let Some(parts) = self.parts.get() else { return };
        let wait = self.wait(parts, to_u64(bytes));
        if !wait.is_zero() {
            (parts.sleep)(wait);
        }
    }

    /// How long to wait before so many bytes are written.
    fn wait(&self, parts: &PaceParts, bytes: u64) -> Duration {
        let (now, assigned) = (parts.clock.monotonic(), parts.marks.assigned());
        let mut state = self.state.lock().expect("no holder of this lock panics");
        if assigned != state.seen {
            (state.seen, state.seen_at) = (assigned, now);
        }
        let rests = now.saturating_sub(state.seen_at) >= limits::BUSY_FOR;
        if rests || parts.marks.is_closing() || parts.backlog.is_pressing() || parts.room.is_near_bound(assigned) {
            state.due = now;
            return Duration::ZERO;
        }
        let begin = state.due.max(now);
        state.due = begin + Duration::from_micros(bytes * 1_000_000 / limits::CHECKPOINT_RATE);
        begin - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::commitlog::segment::Geometry;
    use crate::options::Tail;

    struct Scene {
        pace: CheckpointPace,
        clock: Arc<SimClock>,
        marks: Arc<Marks>,
        backlog: Arc<Backlog>,
        room: Arc<Room>,
    }

    impl Scene {
        fn new() -> Scene {
            let geometry = Geometry { segment_bytes: 64 << 10, tail: Tail::Rewrite };
            Scene {
                pace: CheckpointPace::default(),
                clock: Arc::default(),
                marks: Arc::new(Marks::new(false, Lsn::ZERO, Lsn::ZERO)),
                backlog: Arc::new(Backlog::new(Some(1000))),
                room: Arc::new(Room::new(geometry, None)),
            }
        }

        fn start(&self, slept: Arc<Mutex<Duration>>) {
            let clock = Arc::clone(&self.clock);
            self.pace.start(PaceParts {
                clock: Arc::<SimClock>::clone(&self.clock),
                marks: Arc::clone(&self.marks),
                backlog: Arc::clone(&self.backlog),
                room: Arc::clone(&self.room),
                sleep: Box::new(move |wait| {
                    *slept.lock().expect("it is intact") += wait;
                    clock.advance(wait);
                }),
            });
        }

        /// Writes for a second's worth while the log grows, and says how long that slept.
        fn write(&self, slept: &Mutex<Duration>, grows: bool) -> Duration {
            *slept.lock().expect("it is intact") = Duration::ZERO;
            let piece = 256 << 10;
            for _ in 0..limits::CHECKPOINT_RATE / piece {
                if grows {
                    self.marks.set_assigned(self.marks.assigned().plus(8));
                }
                self.pace.take(usize::try_from(piece).expect("small"));
            }
            *slept.lock().expect("it is intact")
        }
    }

    #[test]
    fn a_checkpoint_keeps_to_its_rate_only_beside_appends_that_need_not_wait_for_it() {
        let (scene, slept) = (Scene::new(), Arc::<Mutex<Duration>>::default());
        assert_eq!(scene.write(&slept, true), Duration::ZERO, "it sleeps where there are threads only");
        scene.start(Arc::clone(&slept));
        let took = scene.write(&slept, true);
        assert!(took > Duration::from_millis(900) && took <= Duration::from_secs(1), "{took:?}");
        scene.clock.advance(limits::BUSY_FOR);
        assert_eq!(scene.write(&slept, false), Duration::ZERO, "the log rests");
        scene.backlog.set(500);
        assert_eq!(scene.write(&slept, true), Duration::ZERO, "much waits");
        scene.backlog.set(499);
        assert!(!scene.write(&slept, true).is_zero());
        scene.room.set_bound(Lsn(1000));
        assert_eq!(scene.write(&slept, true), Duration::ZERO, "a release waits");
        scene.room.set_bound(Lsn::MAX);
        scene.marks.set_closing();
        assert_eq!(scene.write(&slept, true), Duration::ZERO, "at the end");
    }
}
