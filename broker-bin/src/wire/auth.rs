//! Users and policies, as the original's tools of 5.3 send and read them (3001 to 3010). What is left out is null there.

use serde::{Deserialize, Serialize};

/// Somebody who may do something.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserInfo {
    /// The access key.
    pub username: Option<String>,
    /// The secret key. Never told.
    pub password: Option<String>,
    /// `Super` or `Normal`.
    pub user_type: Option<String>,
    /// `enable` or `disable`.
    pub user_status: Option<String>,
}

impl std::fmt::Debug for UserInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserInfo").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AclInfo {
    /// `User:` and a name.
    pub subject: Option<String>,
    /// The policies.
    pub policies: Option<Vec<PolicyInfo>>,
}

/// Entries of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyInfo {
    /// `Custom` or `Default`.
    pub policy_type: Option<String>,
    /// The entries.
    pub entries: Option<Vec<PolicyEntryInfo>>,
}

/// What may be done with one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyEntryInfo {
    /// `Topic:` or `Group:` and a name, which may end with a star; or a star.
    pub resource: Option<String>,
    /// `Pub`, `Sub`, `All`, and what administrators do.
    pub actions: Option<Vec<String>>,
    /// From there only.
    pub source_ips: Option<Vec<String>>,
    /// `Allow` or `Deny`.
    pub decision: Option<String>,
}
