//! `txn/<run>/<count>`: a transaction. Refers to the half message until it is decided.
//!
//! ```text
//! key:     txn/ | term 4 | run 4 | count 8
//! value:   version 1, or 2 for prepared | state 1 | what the state says
//! prepared 1:                  when its producer is asked next, in milliseconds since 1970: n | questions so far n | the producer group
//! prepared 1 with version 1:   the producer group; `due/` says when it is asked
//! parked 2:                    the producer group
//! committed 3, rolled back 4:  when, in milliseconds since 1970: 8
//! ```
//! `n` is a number in as few bytes as it needs: see [`super::number`].

use super::{BadEntry, Fields, behind, name, number};
use crate::features::transactions::{NextAsk, Transaction, TransactionId, Verdict};

/// What its keys begin with.
pub const PREFIX: &[u8] = b"txn/";

const VERSION: u8 = 1;
const VERSION_ASKS: u8 = 2;
const PREPARED: u8 = 1;
const PARKED: u8 = 2;
const COMMITTED: u8 = 3;
const ROLLED_BACK: u8 = 4;

/// Bytes of a key.
const KEY_BYTES: usize = PREFIX.len() + 16;

/// The key.
#[must_use]
pub fn encode_key(id: &TransactionId) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..PREFIX.len()].copy_from_slice(PREFIX);
    key[PREFIX.len()..].copy_from_slice(&id.to_bytes());
    key
}

/// Reads a key.
///
/// # Errors
/// When it is none.
pub fn decode_key(key: &[u8]) -> Result<TransactionId, BadEntry> {
    let mut fields = Fields(behind(PREFIX, key)?);
    let id = TransactionId::from_bytes(fields.take()?);
    fields.end()?;
    Ok(id)
}

/// The value.
#[must_use]
pub fn encode(transaction: &Transaction) -> Vec<u8> {
    let of = |state: u8, rest: &[u8]| {
        let mut value = Vec::with_capacity(2 + rest.len());
        value.extend_from_slice(&[VERSION, state]);
        value.extend_from_slice(rest);
        value
    };
    match transaction {
        Transaction::Prepared { group, asks: Some(asks) } => encode_prepared(group, *asks),
        Transaction::Prepared { group, asks: None } => of(PREPARED, group.as_bytes()),
        Transaction::Parked { group } => of(PARKED, group.as_bytes()),
        Transaction::Decided { verdict: Verdict::Commit, at_ms } => of(COMMITTED, &at_ms.to_be_bytes()),
        Transaction::Decided { verdict: Verdict::Rollback, at_ms } => of(ROLLED_BACK, &at_ms.to_be_bytes()),
    }
}

/// The value of one that is prepared.
#[must_use]
pub fn encode_prepared(group: &str, asks: NextAsk) -> Vec<u8> {
    let mut value = Vec::with_capacity(12 + group.len());
    value.extend_from_slice(&[VERSION_ASKS, PREPARED]);
    number::put(&mut value, asks.at_ms);
    number::put(&mut value, asks.checks.into());
    value.extend_from_slice(group.as_bytes());
    value
}

/// Reads a value.
///
/// # Errors
/// When it is none, or one of another version.
pub fn decode(value: &[u8]) -> Result<Transaction, BadEntry> {
    if let [VERSION_ASKS, PREPARED, rest @ ..] = value {
        let mut fields = Fields(rest);
        let asks = NextAsk { at_ms: fields.number()?, checks: fields.number()? };
        return Ok(Transaction::Prepared { group: name(fields.0)?, asks: Some(asks) });
    }
    let mut fields = Fields::of_version(VERSION, value)?;
    let [state] = fields.take()?;
    let verdict = match state {
        PREPARED => return Ok(Transaction::Prepared { group: name(fields.0)?, asks: None }),
        PARKED => return Ok(Transaction::Parked { group: name(fields.0)? }),
        COMMITTED => Verdict::Commit,
        ROLLED_BACK => Verdict::Rollback,
        _ => return Err(BadEntry("its value is of an unknown state")),
    };
    let at_ms = u64::from_be_bytes(fields.take()?);
    fields.end()?;
    Ok(Transaction::Decided { verdict, at_ms })
}

#[cfg(test)]
mod tests {
    use anchorlog_engine::Epoch;
    use proptest::prelude::*;

    use super::super::tests::any_name;
    use super::*;

    #[test]
    fn its_bytes_are_these() {
        let id = TransactionId { epoch: Epoch { term: 1, run: 2 }, count: 1 << 32 | 3 };
        assert_eq!(encode_key(&id), *b"txn/\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0\x03");
        assert_eq!(decode_key(&encode_key(&id)), Ok(id));
        assert_eq!(encode(&Transaction::Prepared { group: "g".into(), asks: None }), b"\x01\x01g");
        let asks = Some(NextAsk { at_ms: 300, checks: 2 });
        assert_eq!(encode(&Transaction::Prepared { group: "g".into(), asks }), b"\x02\x01\xac\x02\x02g");
        let decided = Transaction::Decided { verdict: Verdict::Rollback, at_ms: 7 };
        assert_eq!(encode(&decided), b"\x01\x04\0\0\0\0\0\0\0\x07");
    }

    proptest! {
        #[test]
        fn a_transaction_is_read_as_it_was_written(
            group in any_name(), at_ms in any::<u64>(), checks in any::<u32>(), state in 0..5u8,
        ) {
            let transaction = match state {
                0 => Transaction::Prepared { group, asks: None },
                4 => Transaction::Prepared { group, asks: Some(NextAsk { at_ms, checks }) },
                1 => Transaction::Parked { group },
                2 => Transaction::Decided { verdict: Verdict::Commit, at_ms },
                _ => Transaction::Decided { verdict: Verdict::Rollback, at_ms },
            };
            let mut value = encode(&transaction);
            prop_assert_eq!(decode(&value), Ok(transaction));
            value[0] += 2;
            prop_assert!(decode(&value).is_err(), "of another version");
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut value in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(version) = value.first_mut() {
                *version %= 3;
            }
            if let Ok(transaction) = decode(&value) {
                prop_assert_eq!(decode(&encode(&transaction)), Ok(transaction));
            }
        }
    }
}
