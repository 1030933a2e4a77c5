//! What a batch holds: one function for each operation that it may have.

use anchorlog_engine::{
    Append, BatchError, Link, Lsn, MessageRef, Put, Queue, ReadError, RecordIndex, Target, WriteBatch,
};

use super::checkers;
use super::model::{Aim, Content, Op, Outcome, Require, Spec};
use super::plan::pick;
use super::world::World;

/// A random batch. Targets are messages that readers see.
pub(crate) fn random(world: &mut World) -> Spec {
    let count = match world.draws.batches.below(20) {
        0..8 => 1,
        8..16 => 1 + world.draws.batches.below(3),
        16..19 => 1 + world.draws.batches.below(8),
        _ => 1 + world.draws.batches.below(60),
    };
    let mut spec = Spec::default();
    let mut left = usize::try_from(world.plan.options.frame_bytes_max()).expect("a frame fits memory") - 4096;
    for _ in 0..count {
        let op = match world.draws.batches.below(20) {
            0..11 => Some(append(world, &mut left)),
            11..13 => link(world, &spec),
            13..17 => Some(put(world, &spec)),
            17..19 => Some(delete(world)),
            _ => drop_queue(world, &spec),
        };
        // A queue that this batch drops takes nothing behind that.
        let dropped = |queue: &usize| spec.ops.iter().any(|op| matches!(op, Op::Drop { queue: gone } if gone == queue));
        match &op {
            Some(Op::Append { queue, .. } | Op::Link { queue, .. }) if dropped(queue) => {}
            _ => spec.ops.extend(op),
        }
        left = left.saturating_sub(400);
        if left < 1000 {
            break;
        }
    }
    if spec.ops.is_empty() {
        let op = delete(world);
        spec.ops.push(op);
    }
    if world.draws.batches.chance(2) {
        require(world, &mut spec);
    }
    spec
}

fn queue(world: &mut World) -> usize {
    world.draws.batches.below(world.plan.queue_count)
}

pub(crate) fn content(world: &mut World, len: usize) -> Content {
    world.content_next += 1;
    Content { number: world.content_next, len }
}

fn append(world: &mut World, left: &mut usize) -> Op {
    let draws = &mut world.draws.batches;
    let len = match draws.below(12) {
        0 => 0,
        1..6 => draws.below(200),
        6..9 => draws.below(2000),
        9..11 => draws.below(9000),
        _ => draws.below(*left),
    };
    let len = len.min(*left);
    *left -= len;
    let queue = queue(world);
    Op::Append { queue, content: content(world, len) }
}

/// A message that readers see, or one of this batch.
fn aim(world: &mut World, spec: &Spec) -> Option<Aim> {
    let messages = spec.ops.iter().enumerate().filter(|(_, op)| matches!(op, Op::Append { .. } | Op::Link { .. }));
    let here: Vec<usize> = messages.map(|(index, _)| index).collect();
    if !world.plan.refers {
        return None;
    }
    let draws = &mut world.draws.batches;
    if !here.is_empty() && draws.chance(2) {
        return Some(Aim::Record(pick(draws, &here)));
    }
    let mut retained: Vec<Lsn> = world.model.visible.by_lsn.range(world.start..).map(|(lsn, _)| *lsn).collect();
    retained.extend(world.model.visible.referred(world.start));
    if retained.is_empty() { None } else { Some(Aim::Stored(pick(draws, &retained))) }
}

fn link(world: &mut World, spec: &Spec) -> Option<Op> {
    let target = aim(world, spec)?;
    let queue = queue(world);
    Some(Op::Link { queue, target, content: content(world, 0) })
}

fn key(world: &mut World) -> Vec<u8> {
    format!("entry/{:03}", world.draws.batches.below(world.plan.key_count)).into_bytes()
}

fn put(world: &mut World, spec: &Spec) -> Op {
    let key = key(world);
    let target = if world.draws.batches.chance(2) { aim(world, spec) } else { None };
    let len = world.draws.batches.below(120);
    Op::Put { key, value: content(world, len).payload(), target }
}

fn delete(world: &mut World) -> Op {
    Op::Delete { key: key(world) }
}

fn drop_queue(world: &mut World, spec: &Spec) -> Option<Op> {
    let queue = queue(world);
    let twice = spec.ops.iter().any(|op| matches!(op, Op::Drop { queue: dropped } if *dropped == queue));
    (!twice && world.draws.batches.chance(3)).then_some(Op::Drop { queue })
}

/// One to three preconditions, of which most hold.
fn require(world: &mut World, spec: &mut Spec) {
    for _ in 0..=world.draws.batches.below(3) {
        let key = key(world);
        let queue = queue(world);
        let entry = world.model.head.table.get(&key).map(|entry| entry.value.clone());
        let next = world.model.head.queues[queue].messages.len() as u64;
        let draws = &mut world.draws.batches;
        let require = match (draws.below(8), entry) {
            (0..2, _) => Require::Next(queue, next),
            (2, _) => Require::Next(queue, next + draws.below(2) as u64),
            (3, _) => Require::Absent(key),
            (4, Some(mut value)) => {
                value.push(b'x');
                Require::Value(key, value)
            }
            (_, Some(value)) => Require::Value(key, value),
            (_, None) => Require::Absent(key),
        };
        spec.requires.push(require);
    }
}

/// Why a batch was not built: what it refers to is gone, or could not be read.
pub(crate) enum Unbuilt {
    Target(ReadError),
    Wrong(String),
}

impl From<String> for Unbuilt {
    fn from(what: String) -> Unbuilt {
        Unbuilt::Wrong(what)
    }
}

impl From<BatchError> for Unbuilt {
    fn from(error: BatchError) -> Unbuilt {
        Unbuilt::Wrong(format!("a batch within all bounds was refused: {error}"))
    }
}

/// Builds what a specification asks for.
pub(crate) fn build(world: &mut World, spec: &Spec) -> Result<WriteBatch, Unbuilt> {
    let mut batch = WriteBatch::new();
    let mut records: Vec<RecordIndex> = Vec::new();
    for op in &spec.ops {
        let record = match op {
            Op::Append { queue, content } => {
                let handle = world.handle(*queue)?;
                push_append(&mut batch, &handle, *content)?
            }
            Op::Link { queue, target, content } => {
                let target = resolve(world, *target, &records)?;
                let handle = world.handle(*queue)?;
                let keys = content.keys();
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                let attributes = content.attributes();
                let (tag, keys, attributes) = (content.tag(), &keys[..], &attributes[..]);
                batch.link(&Link { queue: &handle, target, tag, keys, attributes })?
            }
            Op::Put { key, value, target } => {
                let target = target.map(|target| resolve(world, target, &records)).transpose()?;
                batch.put(&Put { key, value, target })?
            }
            Op::Delete { key } => batch.delete(key)?,
            Op::Drop { queue } => {
                let handle = world.handle(*queue)?;
                batch.drop_queue(&handle).map_err(BatchError::from)?
            }
        };
        records.push(record);
    }
    for require in &spec.requires {
        match require {
            Require::Absent(key) => batch.require_absent(key)?,
            Require::Value(key, value) => batch.require_value(key, value)?,
            Require::Next(queue, next) => {
                let handle = world.handle(*queue)?;
                batch.require_next(&handle, anchorlog_engine::QueueOffset(*next))?;
            }
        }
    }
    batch.set_essential(is_essential(spec));
    Ok(batch)
}

/// What brings no new message may use the reserve of a full disk.
pub(crate) fn is_essential(spec: &Spec) -> bool {
    !spec.ops.iter().any(|op| matches!(op, Op::Append { .. }))
}

pub(crate) fn push_append(batch: &mut WriteBatch, queue: &Queue, content: Content) -> Result<RecordIndex, BatchError> {
    let (keys, attributes, payload) = (content.keys(), content.attributes(), content.payload());
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    // Pieces are stored one after the other, wherever they are cut.
    let (front, back) = payload.split_at(payload.len() / 3);
    let payload: [&[u8]; 2] = [front, back];
    let (tag, keys, attributes) = (content.tag(), &keys[..], &attributes[..]);
    Ok(batch.append(&Append { queue, tag, keys, attributes, payload: &payload })?)
}

fn resolve(world: &World, aim: Aim, records: &[RecordIndex]) -> Result<Target, Unbuilt> {
    match aim {
        Aim::Record(index) => Ok(records[index].into()),
        Aim::Stored(lsn) => {
            let reference: MessageRef = world.engine().reference(lsn).map_err(Unbuilt::Target)?;
            Ok(reference.into())
        }
    }
}

/// Whether a message that could not be referred to may be unreadable: it was released, or the disk failed.
pub(crate) fn may_be_gone(world: &World, spec: &Spec, error: &ReadError) -> Outcome<bool> {
    let start = world.engine().watermarks().start;
    let visible = &world.model.visible.by_lsn;
    let survivors = world.model.survivors(start);
    let gone = spec.ops.iter().any(|op| match op {
        Op::Link { target: Aim::Stored(lsn), .. } | Op::Put { target: Some(Aim::Stored(lsn)), .. } => {
            (*lsn < start && !survivors.contains(lsn)) || !visible.contains_key(lsn)
        }
        _ => false,
    });
    Ok(gone && matches!(error, ReadError::NotFound(_)) || checkers::is_planned(world, error))
}
