//! `anchorlog user`: the accounts that requests are signed with.

use std::io::Write;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};

use super::output::{self, maybe};
use super::{CommandError, DONE, TargetArgs, read_secret};
use crate::wire::codes::private;
use crate::wire::operate::{AccountTold, AccountsTold, DeleteAccount, ListAccounts, PutAccount};

/// Bytes of a secret that is made here.
const SECRET_BYTES: usize = 24;

/// Arguments of `anchorlog user`.
#[derive(Args, Clone, Debug)]
pub struct UserArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

/// What can be said of an account.
#[derive(Args, Clone, Debug)]
struct SaidArgs {
    /// Its secret key is in this file; - for standard input
    #[arg(long, value_name = "FILE")]
    new_secret_file: Option<std::path::PathBuf>,

    /// Whether it may do everything that no rule of its own forbids
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    admin: Option<bool>,

    /// From these addresses it need not sign, and may do everything: 10.0.0.1, 10.0.*, several with commas; empty for none
    #[arg(long, value_name = "ADDRESSES")]
    from: Option<String>,

    /// What it may do with a topic that no rule names: DENY, PUB, SUB or PUB|SUB
    #[arg(long, value_name = "PERMISSION")]
    default_topic: Option<String>,

    /// The same for groups
    #[arg(long, value_name = "PERMISSION")]
    default_group: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows all of them
    List,
    /// Shows one, with its rules
    Show {
        /// Its name, the access key
        user: String,
    },
    /// Makes one; without a secret of yours one is made, and shown this once
    Create {
        /// Its name, the access key
        user: String,
        #[command(flatten)]
        said: SaidArgs,
    },
    /// Changes one; what is not said stays
    Set {
        /// Its name
        user: String,
        #[command(flatten)]
        said: SaidArgs,
    },
    /// Takes one away
    Delete {
        /// Its name
        user: String,
    },
}

pub(super) fn run(args: &UserArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut remote = args.target.connect()?;
    let as_json = args.target.json;
    match &args.verb {
        Verb::List => {
            let told: AccountsTold = remote.ask_json(private::ACCOUNT_LIST, &ListAccounts::default())?;
            if as_json {
                output::json(out, &told)?;
                return Ok(DONE);
            }
            if !told.on {
                writeln!(out, "nobody is asked who he is: the broker runs without acl")?;
            }
            if !told.trusted.is_empty() {
                writeln!(out, "trusted everywhere: {}", told.trusted.join(" "))?;
            }
            let names = ["user", "admin", "default topic", "default group", "rules", "need not sign from", "stands in"];
            output::table(out, names, told.accounts.iter().map(row), "there are no users")?;
        }
        Verb::Show { user } => {
            let ask = ListAccounts { account: Some(user.clone()) };
            let mut told: AccountsTold = remote.ask_json(private::ACCOUNT_LIST, &ask)?;
            let account =
                told.accounts.pop().ok_or_else(|| CommandError::Missing(format!("there is no user {user}")))?;
            print(&account, None, as_json, out)?;
        }
        Verb::Create { user, said } => {
            let (secret, made) = match &said.new_secret_file {
                Some(path) => (read_secret(path)?, None),
                None => {
                    let secret = make_secret()?;
                    (secret.clone(), Some(secret))
                }
            };
            let told: AccountTold = remote.ask_json(private::ACCOUNT_PUT, &put(user, said, Some(secret), true))?;
            print(&told, made, as_json, out)?;
        }
        Verb::Set { user, said } => {
            let secret = said.new_secret_file.as_deref().map(read_secret).transpose()?;
            let told: AccountTold = remote.ask_json(private::ACCOUNT_PUT, &put(user, said, secret, false))?;
            print(&told, None, as_json, out)?;
        }
        Verb::Delete { user } => {
            let told: AccountTold =
                remote.ask_json(private::ACCOUNT_DELETE, &DeleteAccount { account: user.clone() })?;
            if as_json {
                output::json(out, &told)?;
            } else {
                writeln!(out, "user {user} is gone: what it signs is denied from now on")?;
            }
        }
    }
    Ok(DONE)
}

fn put(user: &str, said: &SaidArgs, secret: Option<String>, is_new: bool) -> PutAccount {
    PutAccount {
        account: user.to_owned(),
        secret,
        admin: said.admin,
        addresses: said.from.clone(),
        default_topic: said.default_topic.clone(),
        default_group: said.default_group.clone(),
        is_new,
    }
}

fn make_secret() -> Result<String, CommandError> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| CommandError::Usage(format!("no random numbers: {error}")))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn yes(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

fn row(account: &AccountTold) -> [String; 7] {
    [
        account.account.clone(),
        yes(account.admin),
        account.default_topic.clone(),
        account.default_group.clone(),
        (account.topics.len() + account.groups.len()).to_string(),
        maybe(account.addresses.as_ref()),
        if account.from_file { "the file" } else { "the log" }.to_owned(),
    ]
}

/// Prints an account; `made`: the secret that was made for it.
pub(super) fn print(
    account: &AccountTold,
    made: Option<String>,
    as_json: bool,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if as_json {
        let mut told = serde_json::to_value(account)?;
        if let (Some(made), Some(told)) = (made, told.as_object_mut()) {
            told.insert("secret".to_owned(), made.into());
        }
        return output::json(out, &told);
    }
    output::facts(
        out,
        [
            ("user", account.account.clone()),
            ("admin", yes(account.admin)),
            ("default topic", account.default_topic.clone()),
            ("default group", account.default_group.clone()),
            ("stands in", if account.from_file { "the file (acl-file)" } else { "the log" }.to_owned()),
        ],
    )?;
    if let Some(addresses) = &account.addresses {
        output::facts(out, [("need not sign", format!("from {addresses}"))])?;
    }
    for (kind, rules) in [("topic", &account.topics), ("group", &account.groups)] {
        for (name, permission) in rules {
            output::facts(out, [(kind, format!("{name}={permission}"))])?;
        }
    }
    if let Some(made) = made {
        output::facts(out, [("secret key", made)])?;
        writeln!(out, "nobody shows the secret key again")?;
    }
    Ok(())
}
