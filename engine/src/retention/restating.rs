//! Saying again what segments on their way out say last of table entries.
//!
//! 1. What is read is verified: of bytes that nobody vouches for, nobody knows which entry they meant.
//! 2. Where the segments cannot be read, the table says what they said: it is gone through once, from the damaged place on. Nothing goes
//!    that the table needs, and nothing stays because of damage.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::WriteBatch;
use crate::commitlog::frame::{self, FrameHeader};
use crate::commitlog::record::{self, RecordKind};
use crate::error::ReadError;
use crate::limits;
use crate::retention::releaser::{Failure, LOCKED, Releaser, put_off};
use crate::table::{Fetched, Held, TableEntry};
use crate::units::{Lsn, to_u64};

/// How far the segments were gone through.
pub(super) enum Reached {
    /// The frames before this place said nothing that is not said again.
    Frames(Lsn),
    /// The same; and here lies one that is not whole, or cannot be read.
    Damage(Lsn),
}

/// Entries on their way into the log.
#[derive(Default)]
struct Restated {
    batch: WriteBatch,
    held: Vec<Held>,
}

impl Restated {
    fn push(&mut self, key: &[u8], entry: TableEntry) {
        let pushed = self.batch.push_restated(key, &entry.value, entry.target, entry.lsn);
        pushed.expect("what one frame says fits one frame again");
        let fetched = Fetched { latest: Some(entry.lsn), value: Some(entry.value) };
        self.held.push(Held { key: Arc::from(key), fetched: Some(fetched) });
    }

    /// Whether so many bytes more are for another batch.
    fn is_full_with(&self, bytes: u64) -> bool {
        !self.held.is_empty() && self.batch.frame_bytes() + bytes > limits::RESTATE_BATCH_BYTES
    }
}

impl Releaser {
    /// Appends again what the next frames from `at` on say last of table entries.
    pub(super) fn restate_frames(&self, start: Lsn, at: Lsn) -> Result<Reached, Failure> {
        let geometry = self.parts.segments.geometry();
        let (mut at, mut read, began) = (at, 0, at);
        let mut restated = Restated::default();
        while at < start && read < limits::RESTATE_READ_BYTES {
            // What says nothing of the table is not read.
            at = self.parts.table.next_put(at).min(start);
            let end = geometry.segment_end(at);
            if at == start {
                break;
            }
            if end.since(at) < to_u64(frame::FRAME_HEADER_BYTES) {
                at = end;
                continue;
            }
            let Some((header, bytes)) = self.whole_frame(at)? else {
                if restated.held.is_empty() {
                    return Ok(Reached::Damage(at));
                }
                break;
            };
            // What one frame says fits one frame again; what two say may not.
            if restated.is_full_with(u64::from(header.frame_len)) {
                break;
            }
            read += u64::from(header.frame_len);
            for (lsn, _, record) in record::of_frame(&header, &bytes) {
                if record.kind != RecordKind::Put {
                    continue;
                }
                let entry = self.parts.table.get(record.name)?;
                if let Some(entry) = entry.filter(|entry| entry.lsn == lsn) {
                    restated.push(record.name, entry);
                }
            }
            at = at.plus(u64::from(header.frame_len));
        }
        Ok(Reached::Frames(if self.say_again(restated)? { at } else { began }))
    }

    /// The frame at `at`, verified; `None` where it is not whole or cannot be read, which is counted and said.
    fn whole_frame(&self, at: Lsn) -> Result<Option<(FrameHeader, Vec<u8>)>, Failure> {
        let found = match self.parts.reader.whole_frame(at) {
            Ok(found) => found,
            Err(ReadError::Damaged { .. } | ReadError::Io { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let epoch = self.parts.manifest.lock().expect("the manifest is intact").history.at(at);
        if epoch.is_some_and(|epoch| epoch != found.0.epoch) {
            drop(self.parts.reader.damage(at, format!("a frame of epoch {}", found.0.epoch)));
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Appends again the next table entries from `key` on whose latest record lies in this part of the log; returns the key to go on with.
    pub(super) fn restate_table(&self, part: &Range<Lsn>, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let (page, mut next) = self.parts.table.said_in(part, key, limits::RESTATE_PAGE_COUNT)?;
        let mut restated = Restated::default();
        for (key, entry) in page {
            if restated.is_full_with(to_u64(key.len() + entry.value.len())) {
                next = Some(key);
                break;
            }
            restated.push(&key, entry);
        }
        Ok(if self.say_again(restated)? { next } else { Some(key.to_vec()) })
    }

    /// Appends entries again, each only if its latest record is still the same; false when that has to be tried again.
    fn say_again(&self, restated: Restated) -> Result<bool, Failure> {
        let Restated { batch, held } = restated;
        if held.is_empty() {
            return Ok(true);
        }
        let wall_ms = self.parts.clock.wall_ms();
        let mut sequencer = self.parts.sequencer.lock().expect(LOCKED);
        for held in &held {
            sequencer.head.hold(&held.key);
        }
        let appended = sequencer.restate_entries(batch, &held, wall_ms);
        sequencer.release(&held);
        let end = sequencer.next;
        drop(sequencer);
        (self.parts.hurry)(end);
        match appended {
            Ok(_) => Ok(true),
            Err(refused) => put_off(refused).map(|()| false),
        }
    }

    /// A damaged place lies in what is released.
    pub(super) fn note_damage(&self, at: Lsn) {
        self.parts.retention.lock().expect("the retention rules are intact").passed_damage += 1;
        tracing::warn!(%at, "damage in segments that are released; what the table has of them is said again from the table");
    }
}
