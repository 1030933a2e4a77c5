//! Transactions that nobody has decided: which there are, and deciding them by hand.
//!
//! A decision by hand is one as its producer's: the first outcome wins, the same again gets the same answer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anchorlog_engine::{Lsn, TableEntry, WriteBatch};

use super::asking::{Ended, answer, each_entry, missing, part, refused, told, unreadable};
use super::show::{place_in, show_as};
use crate::features::delay::Due;
use crate::features::transactions::{Half, Transaction, TransactionId, Verdict, decide_by_hand};
use crate::features::{Outcome, Reply, Request};
use crate::limits;
use crate::shared::Shared;
use crate::state::entries::{self, BadEntry};
use crate::wire::operate::{
    DecideTransaction, ListTransactions, ShowTransaction, TransactionState, TransactionTold, Transactions,
};

/// Tells what is not decided.
pub fn list(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask, _| tell_part(shared, ask).map(Outcome::Reply))
}

/// Tells one transaction, with its message.
pub fn show(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &ShowTransaction, _| {
        let id = named(shared, &ask.id)?;
        let entry = shared.engine.get(&entries::transaction::encode_key(&id)).map_err(unreadable)?;
        let entry = entry.ok_or_else(|| missing(format!("there is no transaction {id}, or it is forgotten")))?;
        let transaction = entries::transaction::decode(&entry.value).map_err(unknown)?;
        let told_one = tell(shared, &id, &transaction, &entry, true);
        let mut told_one = [told_one];
        add_checks(shared, &mut told_one)?;
        Ok(told(&told_one[0]).into())
    })
}

/// Decides one.
pub fn decide(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &DecideTransaction, batch: &mut WriteBatch| {
        let id = named(shared, &ask.id)?;
        let verdict = if ask.commit { Verdict::Commit } else { Verdict::Rollback };
        decide_by_hand(shared, &id, verdict, batch)
    })
}

fn unknown(error: BadEntry) -> Reply {
    refused(error)
}

/// The transaction that is meant: by its name, or by its half message's place.
fn named(shared: &Shared, text: &str) -> Result<TransactionId, Reply> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let lsn = place_in(text).ok_or_else(|| missing(format!("{text} names no transaction")))?;
    let half = Half::read(&shared.engine, lsn).map_err(|error| missing(format!("{text} names none: {error}")))?;
    Ok(half.id)
}

fn tell_part(shared: &Shared, ask: &ListTransactions) -> Result<Reply, Reply> {
    let from = match &ask.after {
        Some(after) => {
            let id: TransactionId = after.parse().map_err(|_| missing(format!("{after} names no transaction")))?;
            [&entries::transaction::encode_key(&id)[..], &[0]].concat()
        }
        None => entries::transaction::PREFIX.to_vec(),
    };
    let end = entries::end_of(entries::transaction::PREFIX);
    let (limit, mut reads) = (part(ask.limit), 0);
    let (mut transactions, mut last) = (Vec::new(), None);
    let ended = each_entry(shared, &from, &end, |key, entry| {
        // What this version does not understand belongs to a later one.
        let (Ok(id), Ok(transaction)) =
            (entries::transaction::decode_key(key), entries::transaction::decode(&entry.value))
        else {
            return Ok(ControlFlow::Continue(()));
        };
        last = Some(id.to_string());
        if !may_match(ask, &transaction) {
            return Ok(ControlFlow::Continue(()));
        }
        reads += 1;
        let found = tell(shared, &id, &transaction, entry, false);
        if matches(ask, &found) {
            transactions.push(found);
        }
        let enough = transactions.len() == limit || reads == limits::OPERATE_READS_MAX;
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    add_checks(shared, &mut transactions)?;
    Ok(told(&Transactions { transactions, next: last.filter(|_| ended == Ended::Cut) }))
}

/// What can be said without reading its message.
fn may_match(ask: &ListTransactions, transaction: &Transaction) -> bool {
    let (group, is_parked) = match transaction {
        Transaction::Prepared { group, .. } => (group, false),
        Transaction::Parked { group } => (group, true),
        Transaction::Decided { .. } => return false,
    };
    ask.group.as_deref().is_none_or(|wanted| *wanted == **group) && (is_parked || !ask.parked)
}

fn matches(ask: &ListTransactions, found: &TransactionTold) -> bool {
    let has_key = |wanted: &str| {
        let half = found.half.as_ref();
        half.is_some_and(|half| half.unique_key.as_deref() == Some(wanted) || half.keys.iter().any(|key| key == wanted))
    };
    (ask.topic.is_none() || ask.topic == found.topic) && ask.key.as_deref().is_none_or(has_key)
}

fn tell(
    shared: &Shared,
    id: &TransactionId,
    transaction: &Transaction,
    entry: &TableEntry,
    whole: bool,
) -> TransactionTold {
    let mut told = TransactionTold { id: id.to_string(), ..TransactionTold::default() };
    match transaction {
        Transaction::Prepared { group, asks } => {
            told.group = Some(group.to_string());
            told.checks = asks.map(|asks| asks.checks);
            told.next_check_ms = asks.map(|asks| asks.at_ms);
        }
        Transaction::Parked { group } => {
            told.state = TransactionState::Parked;
            told.group = Some(group.to_string());
        }
        Transaction::Decided { verdict, at_ms } => {
            told.state = match verdict {
                Verdict::Commit => TransactionState::Committed,
                Verdict::Rollback => TransactionState::RolledBack,
            };
            told.decided_ms = Some(*at_ms);
            return told;
        }
    }
    match Half::read(&shared.engine, entry.target.unwrap_or(Lsn::ZERO)) {
        Ok(half) => {
            let (topic, queue) = half.place().unwrap_or_default();
            told.topic = Some(topic.to_owned());
            told.queue = Some(queue);
            told.age_ms = Some(shared.engine.clock().wall_ms().saturating_sub(half.message.store_time_ms));
            told.half = show_as(&half.message, topic, queue, &shared.settings, whole);
        }
        Err(error) => told.fault = Some(error.to_string()),
    }
    told
}

/// Says of each of which an entry of its own says so, as before format 3, how often it was asked about, and when it is next. Those entries
/// are sorted by their times: with very many of them some are not found, and nothing is said.
fn add_checks(shared: &Shared, told: &mut [TransactionTold]) -> Result<(), Reply> {
    let mut wanted: BTreeMap<String, &mut TransactionTold> = told
        .iter_mut()
        .filter(|told| told.state == TransactionState::Pending && told.checks.is_none())
        .map(|told| (told.id.clone(), told))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let end = entries::end_of(entries::due::PREFIX);
    each_entry(shared, entries::due::PREFIX, &end, |key, entry| {
        if let (Ok(due), Ok(Due::Ask { id, checks })) =
            (entries::due::decode_key(key), entries::due::decode(&entry.value))
            && let Some(told) = wanted.remove(&id.to_string())
        {
            told.checks = Some(checks);
            told.next_check_ms = Some(due.time_ms);
        }
        Ok(if wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .map(drop)
}
