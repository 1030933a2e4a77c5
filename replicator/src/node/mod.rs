//! A node: one log, its peers, and which part it plays.
//!
//! ```text
//!          .-----------------> leads --(a higher term; told to hand over)--.
//!   start -+                     ^                                         v
//!          '--> follows --(promoted: enough promises, and the best log)----+--> follows
//!                 |  ^
//!                 '--'  cut, or begun anew, where its log is not the leader's
//! ```
//!
//! Promises:
//! 1. Who leads is what [`Leadership`] says, and nothing else: what was configured counts only where nobody has led or followed.
//! 2. A leader asks the members before it begins, and gives way to a higher term.
//! 3. Nobody leads a new term without durable promises of so many members that one of them holds each acknowledged byte, and the most of
//!    the log among them; unless a person insists by name.
//! 4. A node that was promised away takes no part in the old term: its promise is given after the last acknowledgement, not before.
//! 5. What is damaged in the log comes from whichever member has it whole: while it is open, and before it is opened where it does not
//!    open.
//! 6. The owner's engine is closed and opened again by the node alone, never while the owner serves it.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use anchorlog_engine::{Engine, EngineOptions};
//! use anchorlog_replicator::{FirstRole, Member, Node, NodeConfig, OnMissing, Owner, Policy, Serving};
//!
//! struct Program;
//!
//! impl Owner for Program {
//!     fn serve(&self, engine: &Arc<Engine>, serving: Serving) {
//!         if let Serving::Leader(leader) = serving {
//!             // Asked before each append; what it says when it says no goes to the client.
//!             let _taken = leader.admission().is_ok();
//!         }
//!     }
//!
//!     fn stop_serving(&self) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let member = |id: &str, address: &str| -> Result<Member, Box<dyn std::error::Error>> {
//!     Ok(Member { id: id.parse()?, address: address.to_owned() })
//! };
//! let members = vec![member("one", "127.0.0.1:4001")?, member("two", "127.0.0.1:4002")?];
//! let policy = Policy::Sync { copies: 2, on_missing: OnMissing::Refuse };
//! let mut config = NodeConfig::new("one".parse()?, "127.0.0.1:4001", members, policy, "/var/lib/log");
//! config.engine = EngineOptions::default();
//! config.first_role = FirstRole::Leader;
//! let node = Node::start(config, Arc::new(Program))?;
//! println!("{:?}", node.status());
//! node.stop();
//! # Ok(())
//! # }
//! ```

mod answering;
mod config;
mod following;
mod leadership;
pub mod limits;
mod mending;
mod owner;
mod parts;
mod promoting;
mod shared;

pub use config::{FirstRole, NodeConfig};
pub use leadership::{Claim, Leadership, PromisedLeadership};
pub use owner::{Event, Owner, Serving};
pub use parts::{Node, NodeError};
