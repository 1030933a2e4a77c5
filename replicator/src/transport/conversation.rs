//! Questions and answers over a connection, one message at a time.

use std::time::Duration;

use anchorlog_engine::Clock;

use super::channel::{Channel, ChannelError, Hangup};
use super::security::Security;
use crate::message::{DecodeError, Decoder, Item, Message};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TalkError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("what the other end says is not the protocol: {0}")]
    Protocol(#[from] DecodeError),
    #[error("the other end answers with {0:?}, which is no answer")]
    NoAnswer(&'static str),
    #[error("there is no answer within {0:?}")]
    Late(Duration),
}

/// A connection on which messages are exchanged.
#[derive(Debug)]
pub(crate) struct Conversation {
    channel: Channel,
    decoder: Decoder,
    /// Arrived and not looked at.
    held: Vec<u8>,
    /// All that arrived, until something is said: it may be for a link.
    early: Option<Vec<u8>>,
}

impl Conversation {
    pub(crate) fn over(channel: Channel) -> Conversation {
        Conversation { channel, decoder: Decoder::default(), held: Vec::new(), early: Some(Vec::new()) }
    }

    pub(crate) fn connect(address: &str, security: &Security, clock: &dyn Clock) -> Result<Conversation, ChannelError> {
        Channel::connect(address, security, clock).map(Conversation::over)
    }

    pub(crate) fn say(&mut self, message: &Message) -> Result<(), ChannelError> {
        self.early = None;
        self.channel.outgoing.write(&[message.encode()])
    }

    /// The next message, within `patience`.
    pub(crate) fn hear(&mut self, patience: Duration, clock: &dyn Clock) -> Result<Message, TalkError> {
        let deadline = clock.monotonic() + patience;
        loop {
            let mut rest = &self.held[..];
            let item = self.decoder.next(&mut rest)?;
            let used = self.held.len() - rest.len();
            let message = match item {
                Some(Item::Message(message)) => Some(message),
                Some(Item::Log(_)) => return Err(TalkError::NoAnswer("log bytes")),
                None => None,
            };
            self.held.drain(..used);
            if let Some(message) = message {
                return Ok(message);
            }
            let left = deadline.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return Err(TalkError::Late(patience));
            }
            self.channel.incoming.set_patience(Some(left))?;
            let start = self.held.len();
            match self.channel.incoming.read(&mut self.held) {
                Err(error) if error.is_timeout() => return Err(TalkError::Late(patience)),
                other => other?,
            }
            if let Some(early) = &mut self.early {
                early.extend_from_slice(&self.held[start..]);
            }
        }
    }

    pub(crate) fn ask(
        &mut self,
        question: &Message,
        patience: Duration,
        clock: &dyn Clock,
    ) -> Result<Message, TalkError> {
        self.say(question)?;
        self.hear(patience, clock)
    }

    /// What ends it from outside.
    pub(crate) fn hangup(&self) -> Result<Hangup, ChannelError> {
        self.channel.hangup()
    }

    /// What a link goes on with: the connection, and all that arrived on it.
    pub(crate) fn into_link(self) -> (Channel, Vec<u8>) {
        (self.channel, self.early.unwrap_or_default())
    }
}
