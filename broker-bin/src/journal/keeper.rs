//! What the journal needs done now and then: lazy changes written, and everything restated before its tail grows too long.
//!
//! A state machine; the thread that calls [`Keeper::step`] once per `limits::OFFSETS_INTERVAL` is in `broker`.

use anchorlog_engine::{Engine, Lsn, QueueOffset};

use super::{FlushError, PIN_NAME, State};
use crate::features::offsets::OffsetKey;
use crate::limits;

/// Replay is kept below this many bytes, or a few times what there is to restate.
const REPLAY_BYTES_MIN: u64 = 1 << 20;

#[derive(Debug)]
enum Phase {
    Resting,
    /// Restating what is behind this key.
    Offsets {
        began: Began,
        after: Option<OffsetKey>,
    },
    /// All restated; waits until it is acknowledged up to here.
    Settling {
        began: Began,
        end_lsn: Lsn,
    },
}

#[derive(Clone, Copy, Debug)]
struct Began {
    lsn: Lsn,
    offset: QueueOffset,
    bytes: u64,
}

/// Keeps the journal short.
#[derive(Debug)]
pub struct Keeper {
    phase: Phase,
    /// Payload bytes of the last full restatement.
    full_bytes: u64,
    /// Where the pin is.
    pinned: Lsn,
}

impl Keeper {
    /// A keeper for a journal that was just opened.
    #[must_use]
    pub fn new(engine: &Engine) -> Keeper {
        Keeper { phase: Phase::Resting, full_bytes: 0, pinned: engine.watermarks().start }
    }

    /// Writes what was noted and goes one step on with restating. True when there is more to do at once.
    ///
    /// # Errors
    /// As [`State::flush_all`]; try again later.
    pub fn step(&mut self, engine: &Engine, state: &State) -> Result<bool, FlushError> {
        let end_lsn = state.flush_all(engine)?;
        match &mut self.phase {
            Phase::Resting => {
                let lag = engine.watermarks().assigned.since(self.pinned);
                let replay = state.replay_bytes();
                if replay <= REPLAY_BYTES_MIN + 4 * self.full_bytes && lag <= limits::JOURNAL_LAG_BYTES {
                    return Ok(false);
                }
                // Positions first: whatever changes from here on stands behind them anyway.
                let began =
                    Began { lsn: engine.watermarks().assigned, offset: state.end_offset(engine), bytes: replay };
                state.restate_names();
                self.phase = Phase::Offsets { began, after: None };
                Ok(true)
            }
            Phase::Offsets { began, after } => {
                let began = *began;
                match state.restate_offsets(after.as_ref()) {
                    Some(last) => *after = Some(last),
                    None => self.phase = Phase::Settling { began, end_lsn },
                }
                Ok(true)
            }
            Phase::Settling { began, end_lsn } => {
                if engine.watermarks().acked < *end_lsn {
                    return Ok(false);
                }
                self.full_bytes = state.replay_bytes().saturating_sub(began.bytes);
                // The offset before the pin: a record must never name a place that may be gone.
                engine.pin(PIN_NAME, Some(began.lsn));
                state.replay_from(began.offset, self.full_bytes);
                self.pinned = began.lsn;
                self.phase = Phase::Resting;
                Ok(false)
            }
        }
    }
}
