//! Asking a node about itself, and telling it to lead or to stop leading: what `anchorlog promote`, `demote` and `replicas` are made of.
//!
//! It uses the port and the protection of the replicas themselves: who may ask is who could replicate.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::{Clock, Lsn, SystemClock};

use crate::message::{Message, NodeState, Outcome, Promote, RangeRequest, Status, TAIL_BYTES_MAX};
use crate::node::limits;
use crate::transport::Security;
use crate::transport::conversation::{Conversation, TalkError};

/// Why a node did not answer.
#[derive(Debug, thiserror::Error)]
#[error("asking {address}: {source}")]
pub struct ControlError {
    /// The node's address.
    pub address: String,
    /// Why.
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A connection to a node.
pub struct Control {
    address: String,
    conversation: Conversation,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Control {
    /// Connects to the replication port of a node.
    ///
    /// # Errors
    /// When nobody answers there, or the protections differ.
    pub fn connect(address: &str, security: &Security) -> Result<Control, ControlError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let address = address.to_owned();
        match Conversation::connect(&address, security, &*clock) {
            Ok(conversation) => Ok(Control { address, conversation, clock }),
            Err(error) => Err(ControlError { address, source: error.into() }),
        }
    }

    /// What the node knows of itself.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn state(&mut self) -> Result<NodeState, ControlError> {
        match self.ask(&Message::AskState, limits::STATE_TIME_MAX)? {
            Message::State(state) => Ok(state),
            other => Err(self.no_answer(&other)),
        }
    }

    /// How replication stands there.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn status(&mut self) -> Result<Status, ControlError> {
        match self.ask(&Message::AskStatus, limits::STATE_TIME_MAX)? {
            Message::Status(status) => Ok(status),
            other => Err(self.no_answer(&other)),
        }
    }

    /// Tells the node to lead. `unsafely`: although something that was acknowledged may be lost.
    ///
    /// # Errors
    /// When there is no answer; the node may have done it then.
    pub fn promote(&mut self, unsafely: bool) -> Result<Outcome, ControlError> {
        self.tell(&Message::Promote(Promote { unsafely }))
    }

    /// Tells a leader to hand over: it takes nothing more, waits until its followers have everything, and follows.
    ///
    /// # Errors
    /// When there is no answer; the node may have done it then.
    pub fn demote(&mut self) -> Result<Outcome, ControlError> {
        self.tell(&Message::Demote)
    }

    /// Bytes of the node's log, as they are on its disk or in its memory: for mending a range that is damaged elsewhere. At most `len`, or
    /// [`crate::message::TAIL_BYTES_MAX`], of them; none where its log is not whole there, or does not reach.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn range(&mut self, at: Lsn, len: u32) -> Result<Vec<u8>, ControlError> {
        let len = len.min(u32::try_from(TAIL_BYTES_MAX).unwrap_or(u32::MAX));
        match self.ask(&Message::RangeRequest(RangeRequest { at, len }), limits::RANGE_TIME_MAX)? {
            Message::RangeAnswer(answer) if answer.at == at => Ok(answer.bytes),
            other => Err(self.no_answer(&other)),
        }
    }

    fn tell(&mut self, message: &Message) -> Result<Outcome, ControlError> {
        // Whoever is told to lead may have to tell another one first.
        match self.ask(message, 3 * limits::HAND_OVER_TIME_MAX)? {
            Message::Outcome(outcome) => Ok(outcome),
            other => Err(self.no_answer(&other)),
        }
    }

    fn ask(&mut self, question: &Message, patience: Duration) -> Result<Message, ControlError> {
        let answer = self.conversation.ask(question, patience, &*self.clock);
        answer.map_err(|error| ControlError { address: self.address.clone(), source: error.into() })
    }

    fn no_answer(&self, message: &Message) -> ControlError {
        ControlError { address: self.address.clone(), source: TalkError::NoAnswer(message.name()).into() }
    }
}
