//! What operators ask of accounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::account::{Account, Fault, Permission, Rules};
use super::signature::Secret;
use crate::features::operate::{answer, missing, refused, told};
use crate::features::{Kept, Outcome, Reply, Request};
use crate::limits;
use crate::shared::Shared;
use crate::wire::operate::{AccountTold, AccountsTold, DeleteAccount, ListAccounts, PutAccount, SetRules};

/// Tells the accounts, without their secrets.
pub fn list(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &ListAccounts, _| {
        let accounts = match &ask.account {
            Some(name) => vec![tell(name, &*found(shared, name)?)],
            None => shared.state.accounts.all().iter().map(|(name, account)| tell(name, account)).collect(),
        };
        let trusted = shared.state.accounts.trusted().iter().map(ToString::to_string).collect();
        Ok(told(&AccountsTold { on: shared.access.is_on(), trusted, accounts }).into())
    })
}

/// Makes an account, or changes one. Answered when that is durable.
pub fn put(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &PutAccount, _| {
        let before = shared.state.accounts.get(&ask.account);
        if before.is_some() && ask.is_new {
            return Err(refused(format!("there is an account {} already", ask.account)));
        }
        let mut account = match (&before, &ask.secret) {
            (Some(before), _) => changeable(&ask.account, before)?,
            (None, Some(secret)) => Account::new(Secret::new(secret)),
            (None, None) => return Err(nobody(&ask.account)),
        };
        if let Some(secret) = &ask.secret {
            account.secret = Secret::new(secret);
        }
        if let Some(addresses) = &ask.addresses {
            account.addresses = if addresses.is_empty() { None } else { Some(addresses.parse().map_err(refused)?) };
        }
        account.admin = ask.admin.unwrap_or(account.admin);
        for (wished, default) in
            [(&ask.default_topic, &mut account.default_topic), (&ask.default_group, &mut account.default_group)]
        {
            if let Some(wished) = wished {
                *default = permission(wished)?;
            }
        }
        keep(shared, &ask.account, account)
    })
}

/// Takes an account away. Answered when that is durable.
pub fn delete(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &DeleteAccount, _| {
        let account = changeable(&ask.account, &*found(shared, &ask.account)?)?;
        shared.state.remove_account(&ask.account);
        tracing::info!(account = ask.account, "an operator took the account away");
        Ok(Outcome::Recorded(told(&tell(&ask.account, &account)), Kept::Names))
    })
}

/// Changes rules of an account. Answered when that is durable.
pub fn set_rules(shared: &Shared, request: &Request<'_>) -> Outcome {
    answer(shared, request, |shared, ask: &SetRules, _| {
        let mut account = changeable(&ask.account, &*found(shared, &ask.account)?)?;
        change(&mut account.topics, &ask.topics)?;
        change(&mut account.groups, &ask.groups)?;
        keep(shared, &ask.account, account)
    })
}

fn change(rules: &mut Rules, wished: &BTreeMap<String, Option<String>>) -> Result<(), Reply> {
    for (name, wished) in wished {
        match wished {
            Some(wished) => {
                rules.insert(name.as_str().into(), permission(wished)?);
            }
            None if rules.remove(name.as_str()).is_none() => {
                return Err(missing(format!("there is no rule for {name}")));
            }
            None => {}
        }
    }
    Ok(())
}

pub(super) fn permission(text: &str) -> Result<Permission, Reply> {
    text.parse().map_err(|fault: Fault| refused(fault))
}

fn nobody(name: &str) -> Reply {
    missing(format!("there is no account {name}"))
}

fn found(shared: &Shared, name: &str) -> Result<Arc<Account>, Reply> {
    shared.state.accounts.get(name).ok_or_else(|| nobody(name))
}

/// An account that is not the file's, to be changed.
pub(super) fn changeable(name: &str, account: &Account) -> Result<Account, Reply> {
    if account.from_file {
        return Err(refused(format!("account {name} stands in the file of accounts (acl-file); change it there")));
    }
    Ok(account.clone())
}

fn keep(shared: &Shared, name: &str, account: Account) -> Result<Outcome, Reply> {
    let reply = told(&tell(name, &account));
    keep_quietly(shared, name, account)?;
    Ok(Outcome::Recorded(reply, Kept::Names))
}

/// Puts an account into the state, if it is good. Whoever asked hears of it when that is durable.
pub(super) fn keep_quietly(shared: &Shared, name: &str, account: Account) -> Result<(), Reply> {
    account.check(name).map_err(refused)?;
    if shared.state.accounts.get(name).is_none() && shared.state.accounts.count() >= limits::ACCOUNT_COUNT_MAX {
        return Err(refused(format!("there are {} accounts already", limits::ACCOUNT_COUNT_MAX)));
    }
    tracing::info!(account = name, admin = account.admin, "an operator set the account");
    shared.state.put_account(name, account);
    Ok(())
}

fn tell(name: &str, account: &Account) -> AccountTold {
    let shown = |rules: &Rules| rules.iter().map(|(name, is)| (name.to_string(), is.to_string())).collect();
    AccountTold {
        account: name.to_owned(),
        admin: account.admin,
        from_file: account.from_file,
        addresses: account.addresses.as_ref().map(ToString::to_string),
        default_topic: account.default_topic.to_string(),
        default_group: account.default_group.to_string(),
        topics: shown(&account.topics),
        groups: shown(&account.groups),
    }
}
