//! Accounts, and what they may do. Secrets go one way: in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Asks for the accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListAccounts {
    /// This one only.
    pub account: Option<String>,
}

/// Accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountsTold {
    /// Whether requests must be signed.
    pub on: bool,
    /// From these addresses they need not.
    pub trusted: Vec<String>,
    /// The accounts, in the order of their names.
    pub accounts: Vec<AccountTold>,
}

/// An account. Its secret is not told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountTold {
    /// Its name, the clients' access key.
    pub account: String,
    /// Whether it may do everything that no rule of its own forbids.
    pub admin: bool,
    /// Whether it stands in the file of accounts, and is changed there.
    pub from_file: bool,
    /// From these addresses it need not sign.
    pub addresses: Option<String>,
    /// What it may do with a topic that no rule names: `DENY`, `PUB`, `SUB` or `PUB|SUB`.
    pub default_topic: String,
    /// The same for groups.
    pub default_group: String,
    /// Rules for topics, and for names that begin so where they end with a star.
    pub topics: BTreeMap<String, String>,
    /// Rules for groups.
    pub groups: BTreeMap<String, String>,
}

/// Makes an account, or changes what is said of one.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PutAccount {
    /// Which.
    pub account: String,
    /// Its secret; a new account needs one.
    pub secret: Option<String>,
    /// Whether it is an admin.
    pub admin: Option<bool>,
    /// From where it need not sign; empty for nowhere.
    pub addresses: Option<String>,
    /// What it may do with a topic that no rule names.
    pub default_topic: Option<String>,
    /// The same for groups.
    pub default_group: Option<String>,
    /// Only when there is none of that name.
    pub is_new: bool,
}

impl std::fmt::Debug for PutAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutAccount").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Takes an account away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DeleteAccount {
    /// Which.
    pub account: String,
}

/// Changes rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SetRules {
    /// Of which account.
    pub account: String,
    /// Permissions by topics; null takes a rule away.
    pub topics: BTreeMap<String, Option<String>>,
    /// The same for groups.
    pub groups: BTreeMap<String, Option<String>>,
}
