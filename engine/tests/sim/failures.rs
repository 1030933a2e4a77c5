//! One trouble at a time, over a run without any other: each I/O fails, the disk stalls or is full, the clock jumps.

use std::time::Duration;

use anchorlog_engine::io::sim::{IoClass, Survival, Times};
use anchorlog_engine::{AppendError, EngineOptions, Flush, Lsn, QueueOffset, Watermark, WriteBatch};

use super::checkers;
use super::model::{Content, Op, Outcome, Spec, demand};
use super::plan::{Plan, Troubles};
use super::world::{EIO, End, World};
use super::{batches, workload};

const ASYNC: Flush = Flush::Async { interval: Duration::from_millis(20), bytes: 16 << 10 };

/// A small log without troubles.
fn quiet(seed: u64, flush: Flush) -> World {
    let segment_bytes = 64 << 10;
    let options = EngineOptions::default()
        .with_segment_bytes(segment_bytes)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_flush(flush)
        .with_manual_drive();
    let plan = Plan {
        options,
        flush,
        buffer_bytes: 64 << 10,
        segment_bytes,
        retain_bytes: None,
        spare_count: 1,
        runs_inline: false,
        punches_holes: true,
        steps: 0,
        refers: true,
        consumes: false,
        retain_age: None,
        free_bytes_min: None,
        queue_count: 3,
        key_count: 8,
        troubles: Troubles::NONE,
    };
    World::with_plan(seed, plan)
}

fn message(queue: usize, number: u64, len: usize) -> Spec {
    Spec { ops: vec![Op::Append { queue, content: Content { number, len } }], requires: Vec::new() }
}

/// Appends, reads, releases and lets time pass; the same every time.
fn work(world: &mut World, rounds: u64) -> Outcome {
    for round in 0..rounds {
        let spec = batches::random(world);
        workload::send(world, spec)?;
        workload::send(world, message(0, 1_000_000 + round, 3000))?;
        for _ in 0..round % 4 {
            world.step()?;
        }
        if round % 5 == 0 {
            world.advance(Duration::from_millis(12));
        }
        if round % 9 == 8 {
            let lsn = Lsn(world.engine().watermarks().acked.0 / 2);
            if world.engine().release(lsn).is_ok() {
                world.released = world.released.max(lsn);
            }
            checkers::everything(world)?;
        }
    }
    for _ in 0..40 {
        world.advance(Duration::from_millis(3));
        world.step()?;
    }
    Ok(())
}

/// Whether a write or flush of the log itself failed, as the disk remembers it.
fn log_write_failed(world: &World) -> bool {
    world.disk.trace().iter().any(|line| {
        let write = [" write ", " write durable ", " sync "].iter().any(|verb| line.contains(verb));
        write && line.contains(".seg ") && line.contains("(faulty)")
            || line.contains(".seg (faulty)") && line.contains(" sync ")
    })
}

/// Fails the n-th I/O of a run, once or from then on; what was acknowledged is there when it is over. Returns whether the run got that far.
fn fail_at(nth: u64, times: Times, flush: Flush) -> Outcome<(bool, bool)> {
    let mut world = quiet(7, flush);
    world.disk.fail(IoClass::Any, nth, EIO, times);
    let opened = world.open()?;
    if opened {
        work(&mut world, 24)?;
        if log_write_failed(&world) {
            let fenced = world.engine().fenced().ok_or("a failed write of the log did not fence it")?;
            let acked = world.engine().watermarks().acked;
            let wait = world.engine().wait(Watermark::Acked, acked.plus(1), None);
            demand!(wait.is_err(), "who waits on a fenced log is not told: {fenced}");
            let taken = workload::send(&mut world, message(0, 1, 10))?;
            demand!(!taken, "a fenced log takes a batch");
        }
    }
    let reached = world.disk.fault_count() > 0;
    let fenced = opened && world.engine().fenced().is_some();
    world.disk.heal();
    if opened {
        world.restart(if nth.is_multiple_of(2) { End::Crash(Survival::Nothing) } else { End::Kill })?;
    } else {
        demand!(world.open()?, "it does not open although nothing is wrong any more");
    }
    super::settle(&mut world)?;
    Ok((reached, fenced))
}

/// Closes K-3 (a failed fsync is answered with success), K-4 (it is tried again and believed) and K-5 (the flushed position moves).
#[test]
fn the_first_failed_write_or_flush_fences_at_every_io_of_a_run_once_and_for_ever() {
    for flush in [Flush::Sync, ASYNC] {
        for times in [Times::Once, Times::Forever] {
            let (mut nth, mut fences) = (0, 0);
            loop {
                nth += 1;
                let (reached, fenced) = fail_at(nth, times, flush)
                    .unwrap_or_else(|what| panic!("I/O {nth} fails {times:?}, {flush:?}: {what}"));
                fences += u64::from(fenced);
                if !reached {
                    break;
                }
            }
            assert!(nth > 60 && fences > 10, "{fences} fences in {nth} runs, {flush:?}, {times:?}");
        }
    }
}

#[test]
fn a_stalled_disk_acknowledges_nothing_fills_no_more_than_the_buffer_and_then_goes_on() {
    for flush in [Flush::Sync, ASYNC] {
        let mut world = quiet(3, flush);
        assert_eq!(world.open(), Ok(true));
        work(&mut world, 10).expect("nothing is wrong");
        world.disk.hold(true);
        let durable = world.engine().watermarks().durable;
        let mut refused = 0;
        for number in 0..200 {
            // The model knows exactly when the buffer is full; the bound on what waits is checked at every step.
            refused += u64::from(!workload::send(&mut world, message(1, number, 2000)).expect("nothing is wrong"));
            world.step().expect("nothing is wrong");
        }
        let marks = world.engine().watermarks();
        assert!(refused > 100 && marks.durable == durable && world.engine().fenced().is_none(), "{marks:?}");
        assert!(marks.assigned.since(marks.written) <= world.plan.waiting_bytes_max());
        world.disk.hold(false);
        super::settle(&mut world).expect("it goes on");
    }
}

/// Closes K-24 (files are chosen and deleted by a clock that jumps): nothing goes, no order changes, store time never runs back.
#[test]
fn a_clock_that_jumps_a_day_either_way_deletes_nothing_and_changes_no_order() {
    const DAY_MS: i64 = 86_400_000;
    for (running, restarting) in [(1, -1), (-1, 1), (-1, -1), (1, 1), (-30, 30)] {
        let mut world = quiet(5, Flush::Sync);
        assert_eq!(world.open(), Ok(true));
        for number in 0..60 {
            workload::send(&mut world, message(0, number, 3000)).expect("nothing is wrong");
            world.step().expect("nothing is wrong");
            if number == 30 {
                world.clock.jump(running * DAY_MS);
            }
            world.look().expect("store time and watermarks only grow");
        }
        let start = world.engine().watermarks().start;
        let before = world.model.store_time_ms;
        world.restart(End::Close).expect("nothing is wrong");
        world.clock.jump(restarting * DAY_MS);
        world.look().expect("nothing is wrong");
        assert!(workload::send(&mut world, message(0, 100, 10)).expect("nothing is wrong"));
        assert!(world.model.store_time_ms >= before, "store time goes on from where the log ended");
        for _ in 0..100 {
            world.advance(Duration::from_secs(3600));
            world.step().expect("nothing is wrong");
        }
        assert_eq!(world.engine().watermarks().start, start, "nobody asked for anything to go");
        checkers::everything(&mut world).expect("all of it is there, in its order, and by its time");
        super::settle(&mut world).expect("nothing is wrong");
    }
}

/// Closes the deletions in K-24 and K-61 (what nobody has consumed is deleted for its age, by a clock that may be wrong): what is old goes,
/// what a consumer has not had stays, also when the process that jumped is followed by another.
#[test]
fn a_clock_that_jumps_past_the_age_of_everything_deletes_nothing_that_is_not_consumed() {
    const HOUR: Duration = Duration::from_secs(3600);
    for days in [1, -1, 30] {
        let mut world = quiet(6, Flush::Sync);
        world.plan.consumes = true;
        world.plan.retain_age = Some(HOUR);
        world.plan.options = world.plan.options.clone().with_retain_age(Some(HOUR)).with_retention_held(true);
        assert_eq!(world.open(), Ok(true));
        for number in 0..80 {
            let queue = usize::try_from(number % 2).expect("it is small");
            workload::send(&mut world, message(queue, number, 3000)).expect("nothing is wrong");
            world.step().expect("nothing is wrong");
        }
        // The consumer of one queue is through, that of the other has had ten.
        for (queue, consumed) in [(0, 10), (1, 40)] {
            let handle = world.handle(queue).expect("it is short");
            world.consumed.insert((queue, 0), consumed);
            world.engine().pin_queue("consumer", &handle, Some(QueueOffset(consumed)));
        }
        for end in [End::Close, End::Kill] {
            world.clock.jump(days * 86_400_000);
            for _ in 0..400 {
                world.advance(Duration::from_millis(50));
                world.step().expect("nothing that is needed goes");
            }
            checkers::everything(&mut world).expect("what is not consumed is readable through its queue");
            world.restart(end).expect("nothing is wrong");
        }
        let released = world.engine().watermarks().start > Lsn::ZERO;
        assert_eq!(released, days > 0, "what is old goes, unless the clock was set back");
        super::settle(&mut world).expect("nothing is wrong");
    }
}

/// Closes K-14 (a full disk kills the process) and the loss in K-63: what does not fit is refused before anything is at risk.
#[test]
fn a_full_disk_refuses_before_anything_is_at_risk_and_heals_by_itself() {
    type Limit = fn(&World);
    let limits: [Limit; 3] = [
        |world| world.disk.set_capacity(Some(world.disk.used_bytes() + 8192)),
        |world| world.disk.set_file_bytes_max(Some(4096)),
        |world| world.disk.set_capacity(Some(world.disk.used_bytes())),
    ];
    for flush in [Flush::Sync, ASYNC] {
        for limit in limits {
            let mut world = quiet(9, flush);
            assert_eq!(world.open(), Ok(true));
            work(&mut world, 6).expect("nothing is wrong");
            limit(&world);
            world.had_no_room = true;
            let mut refused = 0;
            for number in 0..150 {
                refused += u64::from(!workload::send(&mut world, message(2, number, 3000)).expect("refused or taken"));
                world.advance(Duration::from_millis(5));
                world.step().expect("what is acknowledged is durable");
            }
            assert!(
                refused > 50 && world.engine().fenced().is_none(),
                "{refused} refused, {:?}",
                world.engine().fenced()
            );
            checkers::everything(&mut world).expect("reading goes on");
            let release = world.engine().release(world.engine().watermarks().acked);
            assert!(release.is_ok(), "what frees space is heard");
            world.released = world.engine().watermarks().acked;
            world.lift_limits();
            checkers::liveness(&mut world).expect("it heals by itself");
            checkers::takes_again(&mut world).expect("and takes more");
            assert!(workload::send(&mut world, message(2, 150, 3000)).expect("there is room"));
            super::settle(&mut world).expect("and nothing acknowledged is lost");
        }
    }
}

/// What is refused while the buffer is full is not stored, and the same batch may be tried again.
#[test]
fn a_batch_that_was_refused_as_full_is_taken_later_and_stored_once() {
    let mut world = quiet(11, Flush::Sync);
    assert_eq!(world.open(), Ok(true));
    world.disk.hold(true);
    let handle = world.handle(0).expect("it is short");
    let mut batch = WriteBatch::new();
    batches::push_append(&mut batch, &handle, Content { number: 77, len: 5000 }).expect("it is small");
    let mut number = 0;
    while workload::send(&mut world, message(0, number, 5000)).expect("refused or taken") {
        number += 1;
        world.step().expect("nothing is wrong");
    }
    let answer = world.engine().try_append(&mut batch);
    assert!(matches!(answer, Err(AppendError::Full { .. })), "{answer:?}");
    world.disk.hold(false);
    checkers::liveness(&mut world).expect("it goes on");
    let ticket = world.engine().try_append(&mut batch).expect("there is room");
    let spec = message(0, 77, 5000);
    world.model.accept(spec, ticket.outcome()).expect("it has the next place");
    super::settle(&mut world).expect("it is there once");
}
