//! What operators ask and are told: the JSON bodies of our own request codes ([`super::codes::private`]).
//!
//! 1. Names are in camel case, times in milliseconds since 1970, ids are text, bodies of messages are in base64.
//! 2. An ask with a name that the broker does not know is refused: a filter that is overlooked would do more than was meant.
//! 3. A telling may have names that its reader does not know, and lack those that it does: both sides may be of any version.
//! 4. A list is told in parts: `next` says where the following part begins, and is not there behind the last. A part may be empty.

mod accounts;
mod dead_letters;
mod delays;
mod groups;
mod message;
mod messages;
mod republish;
mod trace;
mod transactions;

pub use accounts::{AccountTold, AccountsTold, DeleteAccount, ListAccounts, PutAccount, SetRules};
pub use dead_letters::{
    DeadLetter, DeadLetterGroup, DeadLetterGroups, DeadLetters, ListDeadLetterGroups, ListDeadLetters,
    ReplayDeadLetter, Replayed, ReplayedTo,
};
pub use delays::{CancelDelay, DelayKind, Delayed, Delays, ListDelays};
pub use groups::{
    DifferenceTold, GroupQueue, GroupSettings, GroupTold, MemberTold, RefusedTold, SetGroup, ShowGroup,
    SubscriptionTold, VariantTold,
};
pub use message::ShownMessage;
pub use messages::{ListMessages, Messages};
pub use republish::{RepublishPair, RepublishQueue, RepublishStep, RepublishStepped, Republished};
pub use trace::{ShowTrace, Step, StepKind, Trace};
pub use transactions::{
    DecideTransaction, ListTransactions, ShowTransaction, TransactionState, TransactionTold, Transactions,
};

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A body that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot be read: {0}")]
pub struct BadJson(#[from] serde_json::Error);

/// Reads a body; none is read as an empty object.
///
/// # Errors
/// When it is not what is wanted.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadJson> {
    Ok(serde_json::from_slice(if body.is_empty() { b"{}" } else { body })?)
}

/// Writes a body.
///
/// # Panics
/// Never: all that is told here has text for names.
#[must_use]
pub fn write(told: &impl Serialize) -> BytesMut {
    let mut body = BytesMut::new().writer();
    serde_json::to_writer(&mut body, told).expect("names are text, and memory takes everything");
    body.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_with_an_unknown_name_is_refused_and_a_telling_is_read() {
        let ask: ListDelays = read(br#"{"topic":"T","limit":7}"#).expect("good");
        assert_eq!((ask.topic.as_deref(), ask.limit), (Some("T"), Some(7)));
        assert!(read::<ListDelays>(br#"{"tpoic":"T"}"#).is_err());
        assert!(read::<ListDelays>(b"").is_ok() && read::<ListDelays>(b"7").is_err());
        let told: Delays = read(br#"{"delays":[{"id":"1.0.1.2","new":1}],"newer":{}}"#).expect("of a later version");
        assert_eq!((told.delays.len(), told.next), (1, None));
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let told = Delays {
            delays: vec![Delayed {
                id: "1.0.1.2".to_owned(),
                due_ms: 5,
                keys: vec!["a".to_owned()],
                ..Delayed::default()
            }],
            next: Some("1.0.1.2".to_owned()),
        };
        assert_eq!(read::<Delays>(&write(&told)).expect("good"), told);
        assert!(String::from_utf8_lossy(&write(&told)).contains("\"dueMs\":5"));
    }
}
