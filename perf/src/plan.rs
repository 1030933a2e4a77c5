//! Which rows a run has, in which order, and where between them the disk is probed.
//!
//! The disk is probed three times: directly before the first row, between the sync and the async rows of the engine, and before the last
//! group of the broker's. A host that slows down for a while slows a probe and the rows beside it.

use anchorlog_engine::BackendChoice;

use crate::error::PerfError;
use crate::open_loop::Load;
use crate::row::{Producers, RowSpec, Scale, backend_suffix};

/// One step of a run.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A round of the disk probe.
    Probe,
    /// A row of the engine.
    Engine(RowSpec),
    /// A row of our broker.
    Broker(RowSpec),
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// Bytes of a message.
    pub(crate) size: usize,
    /// Seconds of a row.
    pub(crate) seconds: f64,
    /// Backend of the rows that do not name one.
    pub(crate) backend: BackendChoice,
    /// Closed or open loop.
    pub(crate) load: Load,
    /// Seconds of `engine/async/sustained`, if wanted.
    pub(crate) sustained: Option<f64>,
    /// Parts of names; only rows that have one of them run. None: all do.
    pub(crate) only: &'a [String],
    /// Whether the kernel lets us use io_uring.
    pub(crate) has_uring: bool,
    /// How large the stores are.
    pub(crate) scale: &'static Scale,
}

/// The steps of a run.
pub(crate) fn steps(wish: &Wish<'_>) -> Vec<Step> {
    let mut sync = Vec::new();
    for producers in
        [Producers::Blocking(1), Producers::Blocking(8), Producers::Blocking(64), Producers::InFlight(1024)]
    {
        let mut backends = vec![wish.backend];
        if matches!(producers, Producers::Blocking(1) | Producers::InFlight(_)) {
            backends.extend(
                [BackendChoice::Uring, BackendChoice::Threads].into_iter().filter(|real| *real != wish.backend),
            );
        }
        sync.extend(backends.into_iter().map(|backend| Step::Engine(engine_row(wish, true, producers, backend))));
    }
    let mut async_rows: Vec<Step> =
        [Producers::Blocking(1), Producers::Blocking(8), Producers::Blocking(64), Producers::InFlight(1024)]
            .map(|producers| Step::Engine(engine_row(wish, false, producers, wish.backend)))
            .into();
    if let Some(seconds) = wish.sustained {
        let row = engine_row(wish, false, Producers::InFlight(1024), wish.backend);
        let name = format!("engine/async/sustained{}", backend_suffix(wish.backend));
        async_rows.push(Step::Engine(RowSpec { name, seconds, follow: true, ..row }));
    }
    let broker = |durable| {
        [(1, 1), (64, 1), (8, 64)].map(|(count, each)| {
            let mode = if durable { "sync" } else { "async" };
            let name = format!("broker/{mode}/{}{}", count * each, backend_suffix(wish.backend));
            Step::Broker(spec(wish, name, durable, Producers::Connections { count, each }, wish.backend))
        })
    };
    let mut steps = vec![Step::Probe];
    steps.extend(wanted(wish, sync));
    steps.push(Step::Probe);
    steps.extend(wanted(wish, async_rows));
    steps.extend(wanted(wish, broker(true)));
    steps.push(Step::Probe);
    steps.extend(wanted(wish, broker(false)));
    steps
}

/// Names of the rows among these steps.
pub(crate) fn row_names(steps: &[Step]) -> Vec<String> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Probe => None,
            Step::Engine(row) | Step::Broker(row) => Some(row.name.clone()),
        })
        .collect()
}

/// Refuses parts of names that no row has. `rows`: names of the rows that some parts pick.
///
/// # Errors
/// Names the part, and all rows.
pub(crate) fn check_parts(parts: &[String], rows: impl Fn(&[String]) -> Vec<String>) -> Result<(), PerfError> {
    match parts.iter().find(|part| rows(std::slice::from_ref(*part)).is_empty()) {
        None => Ok(()),
        Some(part) => {
            let all = rows(&[]).join(", ");
            Err(PerfError::Usage(format!("--rows {part}: no row has this in its name; there are: {all}")))
        }
    }
}

fn wanted(wish: &Wish<'_>, steps: impl IntoIterator<Item = Step>) -> impl Iterator<Item = Step> {
    steps.into_iter().filter(|step| match step {
        Step::Probe => true,
        Step::Engine(row) | Step::Broker(row) => {
            let named = wish.only.is_empty() || wish.only.iter().any(|part| row.name.contains(part.as_str()));
            named && (wish.has_uring || row.backend != BackendChoice::Uring)
        }
    })
}

fn engine_row(wish: &Wish<'_>, durable: bool, producers: Producers, backend: BackendChoice) -> RowSpec {
    let mode = if durable { "sync" } else { "async" };
    let who = match producers {
        Producers::InFlight(count) => format!("inflight-{count}"),
        other => other.outstanding().to_string(),
    };
    spec(wish, format!("engine/{mode}/{who}{}", backend_suffix(backend)), durable, producers, backend)
}

fn spec(wish: &Wish<'_>, name: String, durable: bool, producers: Producers, backend: BackendChoice) -> RowSpec {
    RowSpec {
        name,
        durable,
        producers,
        backend,
        seconds: wish.seconds,
        size: wish.size,
        load: wish.load,
        follow: false,
        scale: wish.scale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wish: &Wish<'_>) -> Vec<String> {
        steps(wish)
            .into_iter()
            .map(|step| match step {
                Step::Probe => "probe".to_owned(),
                Step::Engine(row) | Step::Broker(row) => row.name,
            })
            .collect()
    }

    const WISH: Wish<'_> = Wish {
        size: 1024,
        seconds: 2.0,
        backend: BackendChoice::Auto,
        load: Load::Closed,
        sustained: None,
        only: &[],
        has_uring: true,
        scale: &crate::row::FULL,
    };

    #[test]
    fn the_first_row_follows_a_probe_and_both_backends_are_always_there() {
        let names = names(&WISH);
        assert_eq!(names[..2], ["probe", "engine/sync/1"]);
        for row in [
            "engine/sync/1@uring",
            "engine/sync/1@threads",
            "engine/sync/inflight-1024@uring",
            "engine/sync/inflight-1024@threads",
        ] {
            assert!(names.iter().any(|name| name == row), "{row}");
        }
        assert_eq!(names.iter().filter(|name| *name == "probe").count(), 3);
        assert_eq!(names.len(), 3 + 8 + 4 + 6);
    }

    #[test]
    fn a_forced_backend_stands_behind_every_name() {
        let names = names(&Wish { backend: BackendChoice::Threads, sustained: Some(20.0), ..WISH });
        assert!(names.iter().filter(|name| *name != "probe").all(|name| name.contains('@')));
        assert!(names.iter().any(|name| name == "engine/async/sustained@threads"));
        assert_eq!(names.iter().filter(|name| *name == "engine/sync/1@threads").count(), 1);
    }

    #[test]
    fn without_io_uring_its_rows_are_left_out() {
        assert!(!names(&Wish { has_uring: false, ..WISH }).iter().any(|name| name.contains("uring")));
    }

    #[test]
    fn a_part_that_no_row_has_is_refused_with_those_that_there_are() {
        let check = |parts: &[&str]| {
            let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            check_parts(&parts, |only| row_names(&steps(&Wish { only, ..WISH }))).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["engine/sync", "broker"]), Ok(()));
        let refused = check(&["broker", "engine/snyc"]).expect_err("no such row");
        assert!(refused.starts_with("--rows engine/snyc") && refused.contains("engine/sync/64"), "{refused}");
    }

    #[test]
    fn rows_can_be_picked() {
        let only = ["engine/sync/1".to_owned(), "broker/async/512".to_owned()];
        let names = names(&Wish { only: &only, ..WISH });
        assert_eq!(
            names.iter().filter(|name| *name != "probe").collect::<Vec<_>>(),
            ["engine/sync/1", "engine/sync/1@uring", "engine/sync/1@threads", "broker/async/512"]
        );
    }
}
