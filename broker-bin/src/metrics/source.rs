//! What a monitor's questions are answered from, whatever part of its life the broker is in.
//!
//! 1. What serves clients is looked at under a lock that stopping takes: nobody holds the log when it is closed. What takes long to count
//!    ends early then.
//! 2. Two monitors that ask at once share what takes long to count.

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anchorlog_engine::Clock;

use super::backlog::{self, Backlog};
use super::judgement::{self, Judgement};
use super::lag::{self, Lags};
use super::{gather, page::Page};
use crate::counters::Counters;
use crate::lock::{lock, read, write};
use crate::shared::Shared;

/// So many times as long as it took to count something, it is not counted again.
const REST: u32 = 9;

enum Phase {
    /// The log is being opened, or there is none yet.
    Opening,
    Serving(Arc<Shared>),
    /// The broker changes its part among its replicas, or stops.
    Between,
    Failed(String),
}

/// Something that takes its time to count.
struct Counted<T>(Mutex<Option<Count<T>>>);

struct Count<T> {
    value: Arc<T>,
    /// Counted again from then on.
    next: Duration,
}

impl<T> Default for Counted<T> {
    fn default() -> Counted<T> {
        Counted(Mutex::default())
    }
}

impl<T> Counted<T> {
    /// As counted lately, or counted now; what cannot be counted now is as it was.
    fn get(&self, clock: &dyn Clock, count: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        let mut known = lock(&self.0);
        let began = clock.monotonic();
        if known.as_ref().is_none_or(|known| known.next <= began)
            && let Some(value) = count()
        {
            let ended = clock.monotonic();
            let next = ended + ended.saturating_sub(began) * REST;
            *known = Some(Count { value: Arc::new(value), next });
        }
        known.as_ref().map(|known| Arc::clone(&known.value))
    }

    fn forget(&self) {
        *lock(&self.0) = None;
    }
}

/// See the module.
pub(crate) struct Source {
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    cluster: String,
    broker: String,
    started_ms: u64,
    phase: RwLock<Phase>,
    lags: Counted<Lags>,
    backlog: Counted<Backlog>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl Source {
    /// A source that has no log yet. `clock`: the one that network threads are driven by.
    pub(crate) fn new(clock: Arc<dyn Clock>, counters: Arc<Counters>, cluster: &str, broker: &str) -> Source {
        Source {
            started_ms: clock.wall_ms(),
            clock,
            counters,
            cluster: cluster.to_owned(),
            broker: broker.to_owned(),
            phase: RwLock::new(Phase::Opening),
            lags: Counted::default(),
            backlog: Counted::default(),
        }
    }

    /// Clients are served.
    pub(crate) fn begin(&self, shared: &Arc<Shared>) {
        *write(&self.phase) = Phase::Serving(Arc::clone(shared));
    }

    /// They are not any more. When this returns, nobody looks at what they were served from.
    pub(crate) fn end(&self) {
        *write(&self.phase) = Phase::Between;
        self.lags.forget();
        self.backlog.forget();
    }

    /// They cannot be.
    pub(crate) fn fail(&self, why: &str) {
        *write(&self.phase) = Phase::Failed(why.to_owned());
    }

    /// Whether the process works.
    pub(crate) fn health(&self) -> Judgement {
        match &*read(&self.phase) {
            Phase::Opening => Judgement::holds("the log is not open yet"),
            Phase::Serving(shared) => judgement::health(shared, self.clock.monotonic()),
            Phase::Between => Judgement::holds("clients are not served at the moment"),
            Phase::Failed(why) => Judgement::fails(format!("clients are not served: {why}")),
        }
    }

    /// Whether it would take a send.
    pub(crate) fn readiness(&self) -> Judgement {
        match &*read(&self.phase) {
            Phase::Opening => Judgement::fails("the log is not open yet"),
            Phase::Serving(shared) => judgement::readiness(shared, self.clock.monotonic()),
            Phase::Between => {
                Judgement::fails("clients are not served at the moment: the broker changes its part, or stops")
            }
            Phase::Failed(why) => Judgement::fails(format!("clients are not served: {why}")),
        }
    }

    /// All numbers.
    pub(crate) fn page(&self) -> String {
        let began = self.clock.monotonic();
        let mut page = Page::default();
        gather::process(&mut page, &self.counters.read(), self.started_ms);
        {
            let phase = read(&self.phase);
            let serving = match &*phase {
                Phase::Serving(shared) => Some((&**shared, began)),
                _ => None,
            };
            let names = [self.cluster.as_str(), self.broker.as_str()];
            gather::standing(&mut page, names, serving, matches!(*phase, Phase::Failed(_)));
            if let Some((shared, _)) = serving {
                self.served(&mut page, shared);
            }
        }
        let took = self.clock.monotonic().saturating_sub(began);
        page.gauge("anchorlog_scrape_seconds", "What it took to gather this page.", took.as_secs_f64());
        page.text()
    }

    fn served(&self, page: &mut Page, shared: &Shared) {
        gather::threads(page, shared, self.clock.monotonic());
        gather::log(page, &shared.engine);
        gather::replicas(page, &shared.standing);
        gather::backlog(page, shared, self.backlog.get(&*self.clock, || backlog::count(shared)));
        let lags = self.lags.get(&*self.clock, || Some(lag::look(shared)));
        gather::lags(page, shared, &lags.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use anchorlog_engine::clock::SimClock;

    use super::*;

    #[test]
    fn what_took_long_to_count_is_counted_less_often() {
        let (clock, counted) = (SimClock::default(), Counted::<u32>::default());
        let slow = |value, millis| {
            let clock = &clock;
            move || {
                clock.advance(Duration::from_millis(millis));
                Some(value)
            }
        };
        let get = |count: &dyn Fn() -> Option<u32>| counted.get(&clock, count).map(|value| *value);
        assert_eq!(get(&|| None), None, "nothing is known");
        assert_eq!(get(&slow(1, 100)), Some(1));
        clock.advance(Duration::from_millis(899));
        assert_eq!(get(&slow(2, 100)), Some(1));
        clock.advance(Duration::from_millis(1));
        assert_eq!(get(&|| None), Some(1), "what cannot be counted is as it was");
        assert_eq!(get(&slow(2, 0)), Some(2));
        assert_eq!(get(&slow(3, 0)), Some(3), "what takes no time is counted each time");
        counted.forget();
        assert_eq!(get(&|| None), None);
    }
}
