//! All accounts, and the addresses from which nobody need sign.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use super::account::Account;
use super::addresses::Addresses;
use crate::limits;
use crate::lock::{read, write};

#[derive(Debug, Default)]
struct Known {
    accounts: BTreeMap<Box<str>, Arc<Account>>,
    trusted: Vec<Addresses>,
}

/// All accounts.
#[derive(Debug, Default)]
pub struct Accounts(RwLock<Known>);

impl Accounts {
    /// The account of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Account>> {
        read(&self.0).accounts.get(name).cloned()
    }

    /// Whether nobody need sign who comes from there.
    #[must_use]
    pub fn trust(&self, address: IpAddr) -> bool {
        read(&self.0).trusted.iter().any(|addresses| addresses.hold(address))
    }

    /// The addresses from which nobody need sign.
    #[must_use]
    pub fn trusted(&self) -> Vec<Addresses> {
        read(&self.0).trusted.clone()
    }

    /// All of them, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<(Box<str>, Arc<Account>)> {
        read(&self.0).accounts.iter().map(|(name, account)| (name.clone(), account.clone())).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        read(&self.0).accounts.len()
    }

    /// Whether one of them is an admin.
    #[must_use]
    pub fn has_admin(&self) -> bool {
        read(&self.0).accounts.values().any(|account| account.admin)
    }

    /// Sets an account; true when that changed something. With as many as can be remembered, no further one is taken.
    pub fn put(&self, name: &str, account: Account) -> bool {
        let mut known = write(&self.0);
        match known.accounts.get(name) {
            Some(before) if **before == account => return false,
            None if known.accounts.len() >= limits::ACCOUNT_COUNT_MAX => return false,
            _ => {}
        }
        known.accounts.insert(name.into(), Arc::new(account));
        true
    }

    /// Forgets an account; true when there was one.
    pub fn remove(&self, name: &str) -> bool {
        write(&self.0).accounts.remove(name).is_some()
    }

    /// Sets the addresses from which nobody need sign; true when that changed something.
    pub fn set_trusted(&self, trusted: Vec<Addresses>) -> bool {
        let mut known = write(&self.0);
        let changed = known.trusted != trusted;
        known.trusted = trusted;
        changed
    }

    /// Forgets all others.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        write(&self.0).accounts.retain(|name, _| keep(name));
    }
}
