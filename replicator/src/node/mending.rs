//! The thread that has what is damaged in the open log brought back from another member.
//!
//! Invariants:
//! 1. It holds the log only while it looks and while it writes, never while it waits for somebody.
//! 2. Which bytes are right is the engine's to judge; whose they are does not matter. Below the log's start, where bytes prove less, only
//!    those are asked for that the other node knows to be acknowledged: of these there is but one kind.
//! 3. A long range comes in pieces, each of which is put in place before the next is asked for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use anchorlog_engine::io::IoBackend;
use anchorlog_engine::units::to_u64;
use anchorlog_engine::{DamagedRange, Engine, Lsn, OpenError};

use super::limits;
use super::owner::Event;
use super::shared::{Halt, Shared};
use crate::member::{Member, ReplicaId};
use crate::mending::{MendClosedError, may_help, mend_closed};
use crate::message::{LogState, Message, NodeState, RangeRequest, TAIL_BYTES_MAX};
use crate::transport::channel::Hangup;
use crate::transport::conversation::{Conversation, TalkError};

/// The thread, from outside.
pub(super) struct Mending {
    halt: Arc<Halt>,
    asked: Arc<Mutex<Option<Hangup>>>,
    thread: Option<JoinHandle<()>>,
}

impl Mending {
    pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<Mending> {
        let halt = Arc::new(Halt::new()?);
        let asked = Arc::default();
        let mender = Mender {
            shared: Arc::clone(shared),
            halt: Arc::clone(&halt),
            asked: Arc::clone(&asked),
            complained: BTreeSet::new(),
        };
        let thread = std::thread::Builder::new().name("replica-mend".to_owned()).spawn(move || mender.run())?;
        Ok(Mending { halt, asked, thread: Some(thread) })
    }

    /// Ends it, and waits.
    pub(super) fn stop(&mut self) {
        self.halt.set();
        if let Some(asked) = &*self.asked.lock().expect(HELD) {
            asked.hang_up();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the mending thread panicked");
        }
    }
}

/// Why a member was of no help.
#[derive(Debug, thiserror::Error)]
enum NoHelp {
    #[error(transparent)]
    Talk(#[from] TalkError),
    #[error("it has no log, or another one, or one that does not reach there")]
    NotThere,
    #[error(transparent)]
    Refused(#[from] anchorlog_engine::MendError),
    #[error("the log was closed meanwhile")]
    Closed,
}

const HELD: &str = "no holder panics";

struct Mender {
    shared: Arc<Shared>,
    halt: Arc<Halt>,
    /// The connection to whoever is asked.
    asked: Arc<Mutex<Option<Hangup>>>,
    /// Ranges that nobody could help with, said once.
    complained: BTreeSet<Lsn>,
}

impl Mender {
    fn run(mut self) {
        let mut pause = limits::MEND_PAUSE;
        while !self.halt.wait(pause) {
            let engine = self.shared.state().engine.as_ref().map(Arc::downgrade);
            let left = engine.map_or(0, |engine| self.look(&engine));
            pause = if left > 0 { limits::MEND_RETRY_PAUSE } else { limits::MEND_PAUSE };
        }
    }

    /// Mends what is damaged; how many ranges are left.
    fn look(&mut self, engine: &Weak<Engine>) -> usize {
        let ranges = match engine.upgrade() {
            Some(engine) if !engine.damaged_places().is_empty() => engine.damaged_ranges(),
            _ => return 0,
        };
        let ranges = match ranges {
            Ok(ranges) => ranges,
            Err(error) => {
                tracing::error!(%error, "damaged ranges cannot be looked at");
                return 1;
            }
        };
        let is_mended = |range: &&DamagedRange| !self.halt.is_set() && self.mend(engine, range);
        let mended: BTreeSet<Lsn> = ranges.iter().filter(is_mended).map(|range| range.from).collect();
        let left: Vec<DamagedRange> = ranges.into_iter().filter(|range| !mended.contains(&range.from)).collect();
        for range in left.iter().filter(|range| self.complained.insert(range.from)) {
            let DamagedRange { from, to, path, what, .. } = range;
            let what = format!("{}, LSN {from} to {to}: {what}; no member has it whole", path.display());
            self.shared.event(&Event::Failed { what });
        }
        self.complained.retain(|from| left.iter().any(|range| range.from == *from));
        left.len()
    }

    /// True when the range is whole again.
    fn mend(&self, engine: &Weak<Engine>, range: &DamagedRange) -> bool {
        if range.is_empty() {
            return self.put(engine, range, &[], &self.shared.config.id).is_ok();
        }
        let mut left = Some(range.clone());
        for peer in self.peers() {
            let outcome = self.mend_from(engine, &peer, &mut left);
            *self.asked.lock().expect(HELD) = None;
            if let Err(error) = &outcome {
                tracing::warn!(peer = %peer.id, from = %range.from, to = %range.to, %error, "a damaged range is not mended");
            }
            if left.is_none() {
                break;
            }
        }
        left.is_none()
    }

    /// Whoever leads first.
    fn peers(&self) -> Vec<Member> {
        let leader = self.shared.leadership.current().and_then(|claim| claim.leader);
        let mut peers = self.shared.peers();
        peers.sort_by_key(|peer| Some(&peer.id) != leader.as_ref());
        peers
    }

    /// Mends what is `left` of a range, as far as one member has it.
    fn mend_from(&self, engine: &Weak<Engine>, peer: &Member, left: &mut Option<DamagedRange>) -> Result<(), NoHelp> {
        let Shared { config, clock, .. } = &*self.shared;
        let Some(range) = left.as_ref() else { return Ok(()) };
        let (identity, frame_bytes_max) = {
            let engine = engine.upgrade().ok_or(NoHelp::Closed)?;
            (engine.identity(), engine.info().options.frame_bytes_max())
        };
        let mut talk = Conversation::connect(&peer.address, &config.security, &**clock).map_err(TalkError::from)?;
        *self.asked.lock().expect(HELD) = Some(talk.hangup().map_err(TalkError::from)?);
        match talk.ask(&Message::AskState, limits::STATE_TIME_MAX, &**clock)? {
            Message::State(NodeState { replica, log: Some(log), .. })
                if replica == peer.id && log.identity == identity && has(&log, range) => {}
            _ => return Err(NoHelp::NotThere),
        }
        while let Some(range) = left.clone().filter(|_| !self.halt.is_set()) {
            // One frame at least, whatever is damaged.
            let piece = if range.is_sparse() { range.len() } else { frame_bytes_max.max(to_u64(TAIL_BYTES_MAX)) };
            let bytes = self.ask(&mut talk, &range, piece.min(range.len()))?;
            *left = self.put(engine, &range, &bytes, &peer.id)?;
        }
        Ok(())
    }

    /// The first `len` bytes of a range.
    fn ask(&self, talk: &mut Conversation, range: &DamagedRange, len: u64) -> Result<Vec<u8>, NoHelp> {
        let clock = &self.shared.clock;
        let mut bytes = Vec::new();
        while to_u64(bytes.len()) < len && !self.halt.is_set() {
            let left = len - to_u64(bytes.len());
            let len = u32::try_from(left.min(to_u64(TAIL_BYTES_MAX))).unwrap_or(u32::MAX);
            let at = range.from.plus(to_u64(bytes.len()));
            let question = Message::RangeRequest(RangeRequest { at, len });
            match talk.ask(&question, limits::RANGE_TIME_MAX, &**clock)? {
                Message::RangeAnswer(answer) if answer.at == at && !answer.bytes.is_empty() => {
                    bytes.extend_from_slice(&answer.bytes);
                }
                _ => return Err(NoHelp::NotThere),
            }
        }
        Ok(bytes)
    }

    /// Puts them in place; what is left of the range then.
    fn put(
        &self,
        engine: &Weak<Engine>,
        range: &DamagedRange,
        bytes: &[u8],
        by: &ReplicaId,
    ) -> Result<Option<DamagedRange>, NoHelp> {
        let mended = engine.upgrade().ok_or(NoHelp::Closed)?.mend(range, bytes)?;
        self.shared.event(&Event::Mended { from: range.from, to: mended.to, by: by.clone() });
        Ok(mended.rest)
    }
}

/// Whether another log goes so far that it may have a range whole.
fn has(log: &LogState, range: &DamagedRange) -> bool {
    if range.is_sparse() { log.committed >= range.to } else { log.start <= range.from && log.end >= range.to }
}

impl Shared {
    /// Asks the members, one after the other, for what keeps the log from opening; true when it is whole again, or better than it was.
    pub(super) fn mend_closed(&self, error: &OpenError) -> bool {
        if !may_help(error) {
            return false;
        }
        tracing::error!(%error, "the log does not open: what is damaged is fetched from another member");
        self.peers().iter().any(|peer| match self.mend_closed_from(&*self.backend, peer) {
            Ok(has_helped) => has_helped,
            Err(error) => {
                tracing::warn!(peer = %peer.id, %error, "the log is not mended");
                false
            }
        })
    }

    fn mend_closed_from(&self, backend: &dyn IoBackend, peer: &Member) -> Result<bool, MendClosedError> {
        let report = mend_closed(backend, &self.config.dir, &peer.address, &self.config.security)?;
        for (lsn, why) in &report.refused {
            tracing::warn!(peer = %peer.id, %lsn, why, "a damaged range is not mended");
        }
        for mended in &report.mended {
            let (from, to) = (mended.from, mended.to);
            self.event(&Event::Mended { from, to, by: peer.id.clone() });
        }
        Ok(report.after.is_clean())
    }
}
