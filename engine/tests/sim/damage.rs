//! Bits flip in what is closed: the damage is reported and located, nothing else is concerned, and restored bytes are as good as before.
//!
//! While the engine runs, a record is damaged below it. What happens at the next opening is tried on a copy of the disk, so that the run
//! goes on as if nothing had been.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anchorlog_engine::commitlog::frame::{self, FrameStamp, RecordEntry};
use anchorlog_engine::commitlog::segment::file_name;
use anchorlog_engine::io::IO_ALIGN;
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::{Engine, Lsn, OpenError, QueueOffset, ReadError};

use super::checkers;
use super::model::{Msg, Outcome, demand};
use super::world::{DIR, Seat, World, lift_limits};

/// File name of the derived store.
const DERIVED: &str = "DERIVED";

/// Where an LSN lies: in which file, and where in it.
pub(crate) fn place(world: &World, lsn: Lsn) -> (PathBuf, u64) {
    let geometry = world.geometry();
    let path = Path::new(DIR).join(file_name(geometry.base(lsn)));
    // A segment that is kept for its survivors has that name a moment before the log begins behind it.
    let kept = path.with_extension("sparse");
    (if world.disk.files().contains(&kept) { kept } else { path }, geometry.file_offset(lsn))
}

/// A message on the disk that is retained or survives, and where its record ends at the latest.
fn victim(world: &mut World) -> Option<(Rc<Msg>, Lsn)> {
    let marks = world.engine().watermarks();
    let survivors = world.model.visible.referred(marks.start);
    let mut found = Vec::new();
    for batch in world.model.batches.iter().filter(|batch| batch.end_lsn <= marks.written) {
        let ends = batch.places().skip(1).chain([batch.end_lsn]);
        for (message, end) in batch.places().zip(ends).filter_map(|(lsn, end)| Some((batch.message_at(lsn)?, end))) {
            let is_there = message.lsn >= marks.start || survivors.contains(&message.lsn);
            if is_there && world.model.visible.by_lsn.contains_key(&message.lsn) {
                found.push((Rc::clone(message), end));
            }
        }
    }
    (!found.is_empty()).then(|| found.swap_remove(world.draws.damage.below(found.len())))
}

pub(crate) fn flip_while_running(world: &mut World) -> Outcome {
    if !world.plan.troubles.damage || !world.is_well() {
        return Ok(());
    }
    let Some((message, end)) = victim(world) else { return Ok(()) };
    let (path, offset) = place(world, message.lsn);
    let offset = offset + world.draws.damage.draw() % end.since(message.lsn);
    let bit = world.draws.damage.below(8).to_le_bytes()[0];
    world.history.note(format!("bit {bit} of {offset} in {} flips, of the message at {}", path.display(), message.lsn));
    world.disk.flip_bit(&path, offset, bit);
    world.damaged = Some((message.lsn, message.lsn));
    world.tally.damaged += 1;
    let damaged_before = world.engine().stats().damaged_records;
    match world.engine().read(message.lsn) {
        Ok(found) => checkers::same_message(&found, &message)?,
        // The length, or the way back to the frame, may be what is damaged: then there is no message to be found by this LSN alone.
        Err(ReadError::NotFound(_)) => {}
        Err(error) => {
            demand!(checkers::is_planned(world, &error), "reading a damaged message: {error}");
            let counted = world.engine().stats().damaged_records > damaged_before;
            demand!(counted || !matches!(error, ReadError::Damaged { .. }), "damage was met and not counted");
        }
    }
    checkers::everything(world)?;
    world.disk.flip_bit(&path, offset, bit);
    world.damaged = None;
    checkers::everything(world)
}

pub(crate) fn flip_while_closed(world: &mut World) -> Outcome {
    if !world.plan.troubles.damage || !world.is_well() {
        return Ok(());
    }
    entry_out_of_turn(world)?;
    if !settle(world)? {
        return Ok(());
    }
    let marks = world.engine().watermarks();
    let retained: Vec<(Lsn, Lsn)> = world.model.batches.iter().map(|batch| (batch.lsn, batch.end_lsn)).collect();
    let retained: Vec<(Lsn, Lsn)> = retained.into_iter().filter(|(lsn, _)| *lsn >= marks.start).collect();
    if retained.is_empty() {
        return Ok(());
    }
    let (lsn, end) = retained[world.draws.damage.below(retained.len())];
    let at = lsn.plus(world.draws.damage.draw() % end.since(lsn));
    let bit = world.draws.damage.below(8).to_le_bytes()[0];
    let (path, offset) = place(world, at);
    let copy = copy_of(&world.disk);
    copy.flip_bit(&path, offset, bit);
    world.tally.damaged += 1;
    world
        .history
        .note(format!("bit {bit} of {offset} in {} flips before an opening, of the batch at {lsn}", path.display()));
    match open(world, &copy) {
        Ok(engine) => looked_at(world, engine, &copy, Some((lsn, end)))?,
        Err(OpenError::Damaged { path: named, lsn: located, .. }) => {
            demand!(
                named == path && located == lsn,
                "{} at {located} is said to be damaged, {lsn} is",
                named.display()
            );
        }
        Err(error) => return Err(format!("a flipped bit is told as: {error}")),
    }
    copy.flip_bit(&path, offset, bit);
    let engine = open(world, &copy).map_err(|error| format!("restored, and does not open: {error}"))?;
    looked_at(world, engine, &copy, None)
}

/// The disk as a killed process leaves it, with room.
fn copy_of(disk: &SimDisk) -> SimDisk {
    let copy = disk.kill();
    lift_limits(&copy);
    copy
}

/// The derived store is missing, damaged, cut short or older than it was: it costs time, and all is as before (K-23, K-30 to K-36).
pub(crate) fn spoil_the_store(world: &mut World) -> Outcome {
    let path = Path::new(DIR).join(DERIVED);
    if !world.plan.troubles.damage || !world.is_well() || !settle(world)? {
        return Ok(());
    }
    let copy = copy_of(&world.disk);
    let Some(bytes) = copy.read(&path).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
    let pages = bytes.len() / IO_ALIGN;
    let draws = &mut world.draws.damage;
    let page = draws.below(pages);
    let what = draws.below(5);
    match (what, &world.older_store) {
        (0, _) => copy.lose(&path),
        (1, _) => copy.overwrite(&path, (page * IO_ALIGN) as u64, &[0; IO_ALIGN]),
        (2, _) => copy.set_len(&path, (page * IO_ALIGN) as u64),
        (3, Some(older)) => {
            copy.set_len(&path, older.len() as u64);
            copy.overwrite(&path, 0, older);
        }
        _ => copy.flip_bit(&path, (page * IO_ALIGN + draws.below(IO_ALIGN)) as u64, 3),
    }
    world.history.note(format!("the derived store is spoiled ({what}, page {page} of {pages}) before an opening"));
    world.older_store = Some(bytes);
    world.tally.spoiled += 1;
    let engine = open(world, &copy).map_err(|error| format!("the derived store is spoiled: {error}"))?;
    looked_at(world, engine, &copy, None)
}

fn open(world: &World, copy: &SimDisk) -> Result<Engine, OpenError> {
    Engine::open_with(copy.backend(), world.clock.clone(), Path::new(DIR), world.plan.options.clone())
}

/// Compares everything with what an engine on a copy of the disk shows.
fn looked_at(world: &mut World, engine: Engine, copy: &SimDisk, damaged: Option<(Lsn, Lsn)>) -> Outcome {
    let mut seat = Seat { disk: copy.clone(), engine: Some(engine), handles: std::collections::BTreeMap::new() };
    let (start, mins) = (world.start, world.mins.clone());
    world.swap(&mut seat);
    world.damaged = damaged;
    let same = checkers::everything(world);
    world.damaged = None;
    world.swap(&mut seat);
    (world.start, world.mins) = (start, mins);
    same
}

/// Waits until everything is durable and the log says so; false when it does not come to rest.
fn settle(world: &mut World) -> Outcome<bool> {
    for _ in 0..40 {
        world.advance(Duration::from_millis(12));
        world.step()?;
        if !world.is_well() {
            return Ok(false);
        }
    }
    let marks = world.engine().watermarks();
    Ok(marks.durable == marks.assigned && marks.acked == marks.assigned)
}

/// A sound frame whose entry is not the one that is due: a writer's bug, or a forgery. It is refused, not taken under another number.
fn entry_out_of_turn(world: &mut World) -> Outcome {
    let marks = world.engine().watermarks();
    let Some(batch) = world.model.batches.last() else { return Ok(()) };
    let start = batch.lsn;
    // It must be the last frame, or the next one would not follow it; and its queue must have an entry before it.
    if batch.end_lsn != marks.assigned || marks.written != marks.assigned || marks.acked != marks.assigned {
        return Ok(());
    }
    let due = batch.places().position(|lsn| {
        batch.message_at(lsn).is_some_and(|message| {
            let queue = &world.model.visible.queues[message.queue].messages;
            let before = queue.iter().take_while(|other| other.lsn < message.lsn).last();
            before.is_some_and(|before| before.lsn >= marks.start)
        })
    });
    let Some(due) = due else { return Ok(()) };
    let copy = copy_of(&world.disk);
    let (path, offset) = place(world, start);
    let bytes = copy.read(&path).ok_or("the last frame's file is gone")?;
    let bytes = &bytes[usize::try_from(offset).map_err(|error| error.to_string())?..];
    let header = frame::decode_header(bytes, start).map_err(|error| format!("the last frame: {error}"))?;
    let mut entries: Vec<RecordEntry> = frame::entries(bytes, header.record_count).collect();
    entries[due].queue_offset = QueueOffset(entries[due].queue_offset.0 + 1);
    let stamp = FrameStamp {
        lsn: header.lsn,
        prev_crc: header.prev_crc,
        epoch: header.epoch,
        store_time_ms: header.store_time_ms,
        durable_lsn: header.durable_lsn,
        acked_lsn: header.acked_lsn,
    };
    let mut forged = vec![0; frame::header_bytes(entries.len())];
    frame::encode_header(&mut forged, header.kind, header.frame_len, &stamp, entries.into_iter());
    copy.overwrite(&path, offset, &forged);
    // A checkpoint may have been written from what the frame said before: the log alone must be refused.
    copy.lose(&Path::new(DIR).join(DERIVED));
    match open(world, &copy) {
        Err(OpenError::Contradiction { .. }) => Ok(()),
        Err(error) => Err(format!("an entry out of turn is told as: {error}")),
        Ok(_) => Err(format!("an entry out of turn at {start} was taken")),
    }
}
