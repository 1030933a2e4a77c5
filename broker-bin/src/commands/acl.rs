//! `anchorlog acl`: what accounts may do with topics and as groups.

use std::collections::BTreeMap;
use std::io::Write;

use clap::{Args, Subcommand};

use super::output;
use super::{CommandError, DONE, TargetArgs, user};
use crate::wire::codes::private;
use crate::wire::operate::{AccountTold, AccountsTold, ListAccounts, SetRules};

/// Arguments of `anchorlog acl`.
#[derive(Args, Clone, Debug)]
pub struct AclArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows every rule
    List,
    /// Sets rules: NAME=PERMISSION, where PERMISSION is DENY, PUB, SUB or PUB|SUB, and NAME may end with a star
    Set {
        /// Whose
        user: String,
        /// For a topic
        #[arg(long, value_name = "NAME=PERMISSION")]
        topic: Vec<String>,
        /// For a group
        #[arg(long, value_name = "NAME=PERMISSION")]
        group: Vec<String>,
    },
    /// Takes rules away
    Unset {
        /// Whose
        user: String,
        /// For a topic
        #[arg(long, value_name = "NAME")]
        topic: Vec<String>,
        /// For a group
        #[arg(long, value_name = "NAME")]
        group: Vec<String>,
    },
}

pub(super) fn run(args: &AclArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let rules = match &args.verb {
        Verb::List => return list(&args.target, out),
        Verb::Set { user, topic, group } => {
            SetRules { account: user.clone(), topics: pairs(topic)?, groups: pairs(group)? }
        }
        Verb::Unset { user, topic, group } => {
            let none = |names: &[String]| names.iter().map(|name| (name.clone(), None)).collect();
            SetRules { account: user.clone(), topics: none(topic), groups: none(group) }
        }
    };
    if rules.topics.is_empty() && rules.groups.is_empty() {
        return Err(CommandError::Usage("nothing is to be changed: give --topic or --group".to_owned()));
    }
    let told: AccountTold = args.target.connect()?.ask_json(private::ACCOUNT_RULES, &rules)?;
    user::print(&told, None, args.target.json, out)?;
    Ok(DONE)
}

fn pairs(texts: &[String]) -> Result<BTreeMap<String, Option<String>>, CommandError> {
    let pair = |text: &String| {
        let (name, permission) = text
            .rsplit_once('=')
            .ok_or_else(|| CommandError::Usage(format!("{text:?} is no rule; write NAME=PERMISSION")))?;
        Ok((name.to_owned(), Some(permission.to_owned())))
    };
    texts.iter().map(pair).collect()
}

fn list(target: &TargetArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let told: AccountsTold = target.connect()?.ask_json(private::ACCOUNT_LIST, &ListAccounts::default())?;
    if target.json {
        output::json(out, &told)?;
        return Ok(DONE);
    }
    let of = |account: &AccountTold| {
        let row = |kind: &str, (name, permission): (&String, &String)| {
            [account.account.clone(), kind.to_owned(), name.clone(), permission.clone()]
        };
        let topics = account.topics.iter().map(|rule| row("topic", rule));
        topics.chain(account.groups.iter().map(|rule| row("group", rule))).collect::<Vec<_>>()
    };
    let rows = told.accounts.iter().flat_map(of);
    output::table(out, ["user", "what", "name", "permission"], rows, "there are no rules")?;
    Ok(DONE)
}
