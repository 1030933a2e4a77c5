//! `anchorlog cluster`: which brokers there are, and which of them answer.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output;
use super::{CommandError, DONE, Query, REFUSED, Remote, TargetArgs, loose};
use crate::config::HostPort;
use crate::wire::codes::request as ask;

/// Arguments of `anchorlog cluster`.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows the brokers that a broker knows; ends with 1 when one of them does not answer
    Show,
}

pub(super) fn run(args: &ClusterArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let Verb::Show = &args.verb;
    let mut remote = args.target.connect()?;
    let answer = remote.put(Query::new(ask::GET_BROKER_CLUSTER_INFO))?.done()?;
    let unreadable = || CommandError::Refused("the list of brokers is unreadable".to_owned());
    let body = loose::read(&answer.body).ok_or_else(unreadable)?;
    let mut rows = Vec::new();
    for (name, broker) in body["brokerAddrTable"].as_object().ok_or_else(unreadable)? {
        let cluster = broker["cluster"].as_str().unwrap_or_default();
        for (id, address) in broker["brokerAddrs"].as_object().ok_or_else(unreadable)? {
            let address = address.as_str().unwrap_or_default();
            let part = if id == "0" { "leader" } else { "slave" };
            rows.push((cluster.to_owned(), name.clone(), part, address.to_owned(), answers(address)));
        }
    }
    let all_answer = rows.iter().all(|(.., answers)| *answers);
    if args.target.json {
        let brokers: Vec<_> = rows
            .iter()
            .map(|(cluster, name, part, address, answers)| {
                json!({ "cluster": cluster, "broker": name, "part": part, "address": address, "answers": answers })
            })
            .collect();
        output::json(out, &json!({ "brokers": brokers }))?;
    } else {
        let rows = rows.into_iter().map(|(cluster, name, part, address, answers)| {
            [cluster, name, part.to_owned(), address, if answers { "yes" } else { "NO" }.to_owned()]
        });
        output::table(out, ["cluster", "broker", "part", "address", "answers"], rows, "there are no brokers")?;
    }
    Ok(if all_answer { DONE } else { REFUSED })
}

/// Whether a broker is there.
fn answers(address: &str) -> bool {
    let Ok(address) = address.parse::<HostPort>() else { return false };
    let asked = Remote::connect(&address).and_then(|mut remote| remote.put(Query::new(ask::GET_BROKER_CLUSTER_INFO)));
    asked.is_ok_and(|answer| answer.done().is_ok())
}
