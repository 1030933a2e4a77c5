//! What must hold: at every step, at every read, and after every opening.

use std::task::{Context, Poll, Waker};

use anchorlog_engine::{
    Fetch, FetchStatus, Lsn, Message, Queue, QueueOffset, ReadError, TableEntry, WaitError, limits,
};

use super::damage;
use super::model::{Entry, Msg, Outcome, demand};
use super::world::World;

/// Watermarks, acknowledgements, retention and memory, as they are now.
pub(crate) fn look(world: &mut World) -> Outcome {
    let engine = world.engine();
    let marks = engine.watermarks();
    let fenced = engine.fenced();
    let ordered = marks.start <= marks.dispatched
        && marks.dispatched <= marks.acked
        && marks.durable <= marks.written
        && marks.written <= marks.assigned
        && marks.acked <= if world.plan.is_sync() { marks.durable } else { marks.assigned };
    demand!(ordered, "watermarks out of order: {marks:?}");
    if let Some(before) = world.marks {
        let grown = marks.start >= before.start
            && marks.dispatched >= before.dispatched
            && marks.acked >= before.acked
            && marks.durable >= before.durable
            && marks.written >= before.written
            && marks.assigned >= before.assigned;
        demand!(grown, "watermarks went back from {before:?} to {marks:?}");
    }
    let waiting = marks.assigned.since(marks.written);
    let bound = world.plan.waiting_bytes_max();
    demand!(waiting <= bound, "{waiting} bytes wait to be written, {bound} may");
    if let Some(fenced) = &fenced {
        demand!(world.is_troubled(), "fenced for no reason: {fenced}");
        match world.fenced_at {
            None => {
                world.tally.fences += 1;
                world.fenced_at = Some(marks.acked);
                world.history.note(format!("fenced: {fenced}"));
            }
            Some(end) => demand!(marks.acked == end, "acknowledged to {} after the fence at {end}", marks.acked),
        }
    }
    world.model.acknowledge(marks.acked);
    retained(world, marks.start, marks.assigned)?;
    world.marks = Some(marks);
    world.model.promised = world.model.promised.max(marks.durable);
    tickets(world, marks.acked, fenced.is_some())?;
    watches(world, marks.dispatched == marks.acked)
}

/// A watch fires when its queue has what it waits for in sight, and not before; `caught_up`: all that is in sight was dispatched.
fn watches(world: &mut World, caught_up: bool) -> Outcome {
    let mut fired = Vec::new();
    world.watcher.drain(&mut fired);
    let in_sight = |world: &World, queue: usize, handle: &Queue, from: u64| {
        let queue = &world.model.visible.queues[queue];
        queue.incarnation == handle.incarnation() && queue.messages.len() as u64 > from
    };
    for token in fired {
        let Some((queue, handle, from)) = world.watches.remove(&token) else { continue };
        // A queue that was dropped since may have had it.
        let dropped = world.model.visible.queues[queue].incarnation != handle.incarnation();
        demand!(dropped || in_sight(world, queue, &handle, from), "a watch of {from} in queue {queue} fired too early");
    }
    if caught_up {
        for (queue, handle, from) in world.watches.values() {
            let missed = in_sight(world, *queue, handle, *from);
            demand!(!missed, "a watch of {from} in queue {queue} has not fired");
        }
    }
    Ok(())
}

/// The log's start moves only as far as somebody asked, and below every pin.
fn retained(world: &mut World, start: Lsn, assigned: Lsn) -> Outcome {
    let asked = world.released.max(asked_by_rules(world, assigned));
    world.asked = world.asked.max(asked);
    if start == world.start {
        return Ok(());
    }
    demand!(start > world.start, "the log began at {}, and now at {start}", world.start);
    // What the process before had begun may be through when the next one opens.
    let asked = if world.marks.is_none() { world.asked } else { asked.max(world.leaving) };
    demand!(start <= asked, "released to {start}, asked was {asked}");
    for (name, pin) in &world.pins {
        demand!(start <= *pin, "released to {start} over the pin {name} at {pin}");
    }
    world.tally.released += 1;
    world.start = start;
    survivors(world)
}

/// How long the log may be before ordinary batches wait for a release.
pub(crate) fn length_max(world: &World) -> Option<u64> {
    let segments = limits::OVERSHOOT_SEGMENTS + world.plan.spare_count as u64;
    world.plan.retain_bytes.map(|bytes| bytes + segments * world.geometry().data_bytes())
}

/// Whether nothing holds back what is to be released, or did a moment ago, and nothing that is in memory only is longer than that.
pub(crate) fn is_bounded(world: &World) -> bool {
    let troubles = &world.plan.troubles;
    let hinders = troubles.no_room || troubles.io_errors || troubles.stalls || troubles.damage;
    let fits = world.plan.retain_bytes.is_some_and(|bytes| world.plan.buffer_bytes <= bytes);
    fits && !hinders && !world.plan.consumes && world.pins.is_empty() && !world.is_unpinned
}

/// How far size, age and free space let the log go.
pub(crate) fn asked_by_rules(world: &World, assigned: Lsn) -> Lsn {
    let by_size = world.plan.retain_bytes.map_or(0, |bytes| assigned.0.saturating_sub(bytes));
    let by_age = world.plan.retain_age.map_or(0, |age| {
        let before = u128::from(world.wall_max).saturating_sub(age.as_millis());
        // A segment goes with its last message, and what fills its rest.
        let end = world.model.end_before(u64::try_from(before).unwrap_or(u64::MAX));
        world.geometry().segment_end(end).0
    });
    let by_space = if world.plan.free_bytes_min.is_some() && world.had_no_room { assigned.0 } else { 0 };
    Lsn(by_size.max(by_age).max(by_space))
}

/// What is referred to can be read, wherever the log begins.
fn survivors(world: &mut World) -> Outcome {
    for lsn in world.model.visible.referred(world.start).into_iter().filter(|lsn| *lsn < world.start) {
        let expected = world.model.visible.by_lsn.get(&lsn).ok_or_else(|| format!("nothing was ever at {lsn}"))?;
        match world.engine().read(lsn) {
            Ok(message) => same_message(&message, expected)?,
            Err(error) => {
                let referrers = world.model.visible.referrers(lsn, world.start);
                demand!(
                    is_planned(world, &error),
                    "{error}, and the log begins at {}; needed by {referrers}",
                    world.start
                )
            }
        }
        world.tally.survivors += 1;
    }
    Ok(())
}

/// A ticket is answered when, and only when, its batch is acknowledged or never will be.
fn tickets(world: &mut World, acked: Lsn, fenced: bool) -> Outcome {
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Vec::new();
    for mut ticket in world.tickets.drain(..) {
        let end = ticket.outcome().end_lsn;
        match std::pin::Pin::new(&mut ticket).poll(&mut context) {
            Poll::Ready(Ok(_)) => demand!(end <= acked, "the ticket to {end} was answered at {acked}"),
            Poll::Ready(Err(WaitError::Fenced(_))) => demand!(fenced && end > acked, "the ticket to {end} failed"),
            Poll::Ready(Err(error)) => return Err(format!("the ticket to {end}: {error}")),
            Poll::Pending => {
                demand!(end > acked && !fenced, "the ticket to {end} is not answered at {acked}");
                waiting.push(ticket);
            }
        }
    }
    world.tickets = waiting;
    Ok(())
}

/// Whether a read failed because the disk did, or met what was damaged on purpose: it costs that read alone, and says where.
pub(crate) fn is_planned(world: &World, error: &ReadError) -> bool {
    match error {
        ReadError::Io { .. } | ReadError::Derived(_) => world.is_troubled(),
        ReadError::Damaged { lsn, path, .. } => {
            let here = world.damaged.is_some_and(|(first, last)| (first..=last).contains(lsn));
            here && *path == damage::place(world, *lsn).0
        }
        _ => false,
    }
}

/// What a read found; `None` when it could not, for a reason that was planned.
pub(crate) fn found<T>(world: &World, answer: Result<T, ReadError>) -> Outcome<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_planned(world, &error) => Ok(None),
        Err(error) => Err(format!("not read: {error}")),
    }
}

/// Compares a message with what the model has in its place.
pub(crate) fn same_message(message: &Message, expected: &Msg) -> Outcome {
    let place = format!("{} {} at LSN {}", World::queue_name(expected.queue), expected.offset, expected.lsn);
    demand!(message.lsn == expected.lsn, "{place}: found LSN {}", message.lsn);
    demand!(*message.queue_name == *World::queue_name(expected.queue).as_bytes(), "{place}: another queue's name");
    demand!(message.queue_offset.0 == expected.offset, "{place}: found offset {}", message.queue_offset);
    demand!(message.store_time_ms == expected.store_time_ms, "{place}: store time {}", message.store_time_ms);
    demand!(message.tag == expected.content.tag(), "{place}: another tag");
    demand!(message.keys().eq(expected.content.keys().iter().map(Vec::as_slice)), "{place}: other keys");
    demand!(message.attributes() == expected.content.attributes(), "{place}: other attributes");
    demand!(message.origin_lsn() == expected.origin, "{place}: leads to {}", message.origin_lsn());
    demand!(message.payload() == expected.body.payload(), "{place}: another body");
    Ok(())
}

/// Compares a table entry.
pub(crate) fn same_entry(key: &[u8], found: Option<&TableEntry>, expected: Option<&Entry>) -> Outcome {
    let found = found.map(|entry| Entry { value: entry.value.to_vec(), target: entry.target });
    demand!(found.as_ref() == expected, "{}: found {found:?}, expected {expected:?}", String::from_utf8_lossy(key));
    Ok(())
}

/// Reads a queue from `from` to its end and compares. Messages that the disk does not give are passed over.
pub(crate) fn queue_from(world: &mut World, queue: usize, handle: &Queue, from: u64) -> Outcome {
    let mut next = QueueOffset(from);
    loop {
        let fetch = Fetch {
            queue: handle,
            from: next,
            messages_max: 100,
            bytes_max: 1 << 20,
            scan_max: 100,
            from_disk: true,
            matches: &|_| true,
        };
        let found = match world.engine().fetch(&fetch) {
            Ok(found) => found,
            Err(error) => {
                let name = World::queue_name(queue);
                demand!(is_planned(world, &error), "{name} at {next}: {error}");
                next = QueueOffset(next.0 + 1);
                continue;
            }
        };
        if found.status == FetchStatus::AtEnd {
            return Ok(());
        }
        demand!(
            found.status == FetchStatus::Found,
            "{} at {next}: {:?}, {:?}, consumed {:?}",
            World::queue_name(queue),
            found.status,
            found.range,
            world.consumed.get(&(queue, handle.incarnation()))
        );
        let messages = &world.model.visible.queues[queue].messages;
        for message in &found.messages {
            let expected = usize::try_from(message.queue_offset.0).ok().and_then(|offset| messages.get(offset));
            let expected = expected.ok_or_else(|| format!("{message:?} was made up"))?;
            same_message(message, expected)?;
        }
        let expected = next.0..next.0 + found.messages.len() as u64;
        demand!(
            found.messages.iter().map(|message| message.queue_offset.0).eq(expected),
            "a fetch from {next} leaves messages out"
        );
        world.tally.reads += found.messages.len() as u64;
        world.model.shown = world.model.shown.max(found.messages.last().map_or(Lsn::ZERO, |last| last.lsn.plus(1)));
        next = found.next;
    }
}

/// The range of a queue that is in sight. It may begin before the log does: with what its consumer has not had.
pub(crate) fn same_range(world: &mut World, queue: usize, handle: &Queue) -> Outcome<(u64, u64)> {
    let range = world.engine().range(handle);
    let start = world.engine().watermarks().start;
    let (dense, max) = world.model.visible.range(queue, start);
    let place = (queue, handle.incarnation());
    let needed = world.consumed.get(&place).map_or(dense, |consumed| dense.min(*consumed));
    let least = if world.plan.consumes { world.mins.get(&place).copied().unwrap_or(0) } else { dense };
    demand!(
        (least..=needed).contains(&range.min.0) && range.max.0 == max,
        "{} is readable from {} to {}, should be from {least} to {needed}, to {max}",
        World::queue_name(queue),
        range.min,
        range.max
    );
    world.mins.insert(place, range.min.0);
    Ok((range.min.0, max))
}

/// All queues and the table, message by message and entry by entry.
pub(crate) fn everything(world: &mut World) -> Outcome {
    world.model.acknowledge(world.engine().watermarks().acked);
    for queue in world.engine().queues() {
        let known = (0..world.plan.queue_count).any(|number| World::queue_name(number).as_bytes() == queue.name());
        demand!(known, "{:?} was made up", String::from_utf8_lossy(queue.name()));
    }
    for queue in 0..world.plan.queue_count {
        let incarnation = world.model.visible.queues[queue].incarnation;
        let head = world.handle(queue)?;
        // While a drop is not acknowledged, its queue is read through the handle from before.
        let handle = world.handles.get(&(queue, incarnation)).cloned();
        if let Some(handle) = handle {
            let (min, _) = same_range(world, queue, &handle)?;
            queue_from(world, queue, &handle, min)?;
        }
        if head.incarnation() != incarnation {
            let range = world.engine().range(&head);
            demand!(range.max.0 == 0, "{} shows what comes after its drop", World::queue_name(queue));
        }
    }
    survivors(world)?;
    whole_table(world)
}

fn whole_table(world: &mut World) -> Outcome {
    let answer = world.engine().snapshot().range(&[], None, usize::MAX);
    let Some(found) = found(world, answer)? else { return Ok(()) };
    let expected = &world.model.visible.table;
    for (key, entry) in &found {
        same_entry(key, Some(entry), expected.get(key))?;
    }
    demand!(found.len() == expected.len(), "{} table entries, should be {}", found.len(), expected.len());
    demand!(found.is_sorted_by(|one, other| one.0 < other.0), "the table is out of order");
    Ok(())
}

/// There is room, and before long small batches are taken again.
pub(crate) fn takes_again(world: &mut World) -> Outcome {
    for _ in 0..4000 {
        let space = world.engine().space();
        if world.engine().fenced().is_some() || space.full.is_none() || space.ordinary_bytes >= 8 << 10 {
            return Ok(());
        }
        world.advance(std::time::Duration::from_millis(5));
        world.step()?;
    }
    Err(format!("there is room, and it does not know: {:?}", world.engine().space()))
}

/// What was appended is acknowledged and durable, before long.
pub(crate) fn liveness(world: &mut World) -> Outcome {
    let end = world.engine().watermarks().assigned;
    for _ in 0..4000 {
        let marks = world.engine().watermarks();
        if marks.acked.min(marks.durable) >= end {
            return Ok(());
        }
        world.advance(std::time::Duration::from_millis(5));
        world.step()?;
    }
    Err(format!("not acknowledged to {end}: {:?}, fenced: {:?}", world.engine().watermarks(), world.engine().fenced()))
}
