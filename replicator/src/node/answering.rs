//! What somebody who connects gets: a link, when he wants to follow; answers, when he asks.

use std::sync::{Arc, Mutex, mpsc};

use anchorlog_engine::units::to_u64;
use anchorlog_engine::{Engine, Watermark};

use super::leadership::Claim;
use super::limits;
use super::shared::{Command, Part, Reply, Shared};
use crate::leader::Leader;
use crate::message::{
    Message, Outcome, PromiseAnswer, PromiseRequest, Promote, RangeAnswer, RangeRequest, Refusal, TAIL_BYTES_MAX, Why,
};
use crate::transport::channel::{Channel, ChannelError};
use crate::transport::conversation::{Conversation, TalkError};
use crate::transport::drive::{DriveError, drive};

/// Serves a connection until it ends.
pub(super) fn serve(shared: &Shared, channel: Channel) {
    let peer = channel.peer();
    let mut talk = Conversation::over(channel);
    let outcome = match talk.hear(limits::ASKED_NOTHING_MAX, &*shared.clock) {
        Ok(Message::Hello(_)) => return link(shared, talk),
        Ok(first) => converse(shared, &mut talk, first),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) | Err(TalkError::Channel(ChannelError::Ended(_))) => {}
        Err(error) => tracing::warn!(?peer, %error, "a connection ended"),
    }
}

fn converse(shared: &Shared, talk: &mut Conversation, first: Message) -> Result<(), TalkError> {
    let mut question = first;
    loop {
        let answer = match question {
            Message::AskState => Message::State(shared.node_state()),
            Message::AskStatus => Message::Status(shared.status()),
            Message::PromiseRequest(request) => Message::PromiseAnswer(promise(shared, request)),
            Message::Promote(Promote { unsafely }) => {
                Message::Outcome(tell(shared, |reply| Command::Promote { unsafely, reply }))
            }
            Message::RangeRequest(request) => {
                let engine = shared.state().engine.clone();
                let nothing = RangeAnswer { at: request.at, bytes: Vec::new() };
                Message::RangeAnswer(engine.map_or(nothing, |engine| range_answer(&engine, request)))
            }
            Message::Demote => Message::Outcome(tell(shared, |reply| Command::Demote { reply })),
            other => return Err(TalkError::NoAnswer(other.name())),
        };
        talk.say(&answer)?;
        question = talk.hear(limits::ASKED_NOTHING_MAX, &*shared.clock)?;
    }
}

/// Bytes of the log, or of what survives below its start, for somebody whose own are damaged: none unless all of them are here.
fn range_answer(engine: &Engine, request: RangeRequest) -> RangeAnswer {
    let RangeRequest { at, len } = request;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(TAIL_BYTES_MAX);
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let (next, left) = (at.plus(to_u64(bytes.len())), len - bytes.len());
        let is_sparse = next < engine.watermarks().start;
        match if is_sparse { engine.sparse_bytes(next, left) } else { engine.log_bytes(next, left) } {
            Ok(pieces) if !pieces.is_empty() => pieces.iter().for_each(|piece| bytes.extend_from_slice(piece.as_ref())),
            Ok(_) | Err(_) => {
                bytes.clear();
                break;
            }
        }
    }
    RangeAnswer { at, bytes }
}

/// Has the node's own thread do something, and waits for it.
pub(super) fn tell(shared: &Shared, command: impl FnOnce(Reply) -> Command) -> Outcome {
    let (reply, outcome) = mpsc::channel();
    shared.tell(command(reply));
    let late = |_| Outcome { done: false, text: "it is still under way, or the node stops".to_owned() };
    outcome.recv_timeout(2 * limits::HAND_OVER_TIME_MAX).unwrap_or_else(late)
}

/// Promises to take no part in lower terms; what the answer says of the log is from after that, and what it says of
/// promises from before.
fn promise(shared: &Shared, request: PromiseRequest) -> PromiseAnswer {
    let PromiseRequest { term, candidate } = request;
    let refused = |why: &dyn std::fmt::Display| {
        tracing::warn!(term, %candidate, %why, "no promise is given");
        PromiseAnswer { granted: false, state: shared.node_state() }
    };
    let seen = shared.log_state().and_then(|log| log.history.last().map(|last| last.epoch.term));
    if seen.is_some_and(|seen| seen >= term) {
        return refused(&"the log has seen a term as high");
    }
    let claim = Claim { term, leader: Some(candidate.clone()) };
    let before = match shared.promise(&claim) {
        Ok(before) => before,
        Err(error) => return refused(&error),
    };
    tracing::warn!(term, %candidate, "promised to follow nobody of a lower term");
    // Whatever acknowledges in a lower term ends first.
    {
        let state = shared.state();
        if let Some(upstream) = &state.upstream {
            upstream.hang_up();
        }
        if let Part::Leading(leader) = &state.part {
            leader.supersede(term, shared.now());
        }
    }
    shared.tell(Command::Look);
    let has_ended = shared.wait_until(limits::PROMISE_TIME_MAX, |state| {
        state.upstream.is_none() && !matches!(state.part, Part::Leading(_) | Part::SteppingDown)
    });
    if !has_ended {
        return refused(&"the part in the lower term does not end");
    }
    shared.flush_log();
    // Whoever was promised something before may have led by that, and the candidate cannot know it otherwise.
    PromiseAnswer { granted: true, state: shared.node_state_by(before) }
}

/// Streams the log to a follower, as long as this node leads.
fn link(shared: &Shared, mut talk: Conversation) {
    let hangup = match talk.hangup() {
        Ok(hangup) => hangup,
        Err(error) => return tracing::error!(%error, "a follower is not served"),
    };
    let Some((number, leader)) = shared.begin_link(hangup) else {
        let text = format!("{} does not lead", shared.config.id);
        let refusal = Refusal { why: Why::NotLeader, term: shared.claim_term(), text };
        if let Err(error) = talk.say(&Message::Refusal(refusal)) {
            tracing::debug!(%error, "a refusal is not heard");
        }
        return;
    };
    let outcome = stream(shared, &leader, talk);
    let is_superseded = leader.superseded().is_some();
    // What the link held of the log is gone before it is no longer counted.
    drop(leader);
    shared.end_link(number);
    match outcome {
        Ok(end) => tracing::info!(?end, "a follower's connection is over"),
        Err(error) => tracing::warn!(%error, "a follower's connection ended"),
    }
    if is_superseded {
        shared.tell(Command::Look);
    }
}

fn stream(shared: &Shared, leader: &Arc<Leader>, talk: Conversation) -> Result<crate::link::End, DriveError> {
    let (channel, early) = talk.into_link();
    let watch = |mark| {
        let subscribed = leader.engine().subscribe(mark);
        subscribed.map_err(|source| ChannelError::Io { what: "watching the log", source })
    };
    let subscriptions = [watch(Watermark::Assigned)?, watch(Watermark::Acked)?];
    let link = Mutex::new(leader.link(shared.now()).reading_ahead());
    drive(channel, &link, &early, &subscriptions, &*shared.clock)
}
