//! Who may do what: accounts, their signatures, and the rules that hold for them.
//!
//! 1. With access control on, a request is answered only when it is signed by an account, or comes from a trusted address.
//! 2. What a request needs is said by its code; one that nobody has thought of needs an account that is an admin.
//! 3. What is denied is answered with code 16 and the name of the rule, counted, and said in the log at most once a second.
//! 4. Accounts and trusted addresses are entries of the table: replicas have them, also one that is promoted. What a file says is put there
//!    when it changes, and taken away again when the file does not say it any more.
//! 5. A secret is shown to nobody: not in the log, not in an answer, not when somebody asks for the account.
//!
//! ```text
//!  request --> router --> judge: trusted? signed? allowed? --> Pass --> handler (which asks it where the request does not tell all)
//!  plain_acl.yml --> plain_acl --> AclFile --> State --> table entries --> replicas
//!  anchorlog user|acl … --> handler -----------^
//!  mqadmin createUser … ---> tools -------------'
//! ```
//! A signature covers the values of a request's fields and its body, as clients of 4.x make it: not their names, no time and no nonce. Who
//! can listen can send the same request again. Where that matters, TLS is the answer.

mod account;
mod accounts;
mod addresses;
mod file;
mod handler;
mod judge;
mod needs;
mod plain_acl;
mod signature;
pub mod tools;

pub use account::{Account, Fault, Permission, Rules};
pub use accounts::Accounts;
pub use addresses::{Addresses, BadAddresses};
pub use file::{AclFile, AclFileError};
pub use handler::{delete, list, put, set_rules};
pub use judge::{Access, Pass, judge};
pub use signature::{ACCESS_KEY, SIGNATURE, Secret};

#[cfg(test)]
mod tests;
