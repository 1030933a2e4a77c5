//! The replicator: an acknowledged message survives the loss of a whole machine.
//!
//! One node leads, others follow. The leader ships the bytes of its log, as they are and at the LSN where they are, while its own flush is
//! under way; a follower checks every frame, writes it at the same LSN, and acknowledges what is **durable** there. What a quorum holds
//! moves the leader's replicated watermark, and with it every acknowledgement (`quorum`).
//!
//! ```text
//!   leader's engine --log bytes--> LeaderLink ==bytes==> FollowerLink --receive--> follower's engine
//!         ^                            ^                      |                          |
//!         '-- replicated <-- Leader <--'<======= ack =========' <------- durable --------'
//! ```
//!
//! # Promises
//! 1. Nothing counts as replicated that is not durable on as many machines as the policy says, under the leader's own epoch.
//! 2. The log of a follower is a prefix of the leader's log, byte for byte; what differs is cut by its owner, and kept aside.
//! 3. A promise is never changed silently: fewer copies mean a refusal before anything is stored, or a degradation that is asked for by
//!    name and shown in every status.
//! 4. One replica, one vote, however many connections it has.
//! 5. Bytes from a peer are never believed: every message is checked before it is acted on, and every length is bounded.
//!
//! # Modules
//! Dependencies point downwards. Topics, queues and clients' protocols are unknown here.
//!
//! | room | what lives there |
//! |---|---|
//! | [`leader`] | what the leader knows of its followers: in sync, replicated, admission, status |
//! | [`LeaderLink`], [`FollowerLink`], [`SeedLink`] | the ends of a connection: to stream, to begin anew |
//! | [`link`] | what both ends of a connection have in common: bytes in, bytes out, no socket, no clock |
//! | [`message`] | what peers tell each other, and the bytes of it (`replicator/docs/protocol.md`) |
//! | [`quorum`], [`promotion`], [`divergence`] | what counts as replicated; who may lead; whether two logs are one: pure |
//! | [`member`], [`policy`], [`guarantee`] | who takes part; how many copies an acknowledgement stands for, and how the log says so |
//! | [`transport`] | connections whose other end is known (`replicator/docs/transport.md`), and the threads that drive links over them |
//! | [`node`], [`control`] | who leads, and how that changes; asking and telling a node |
//! | [`mending`] | a log that does not open, from another node |

#![forbid(unsafe_code)]

pub mod control;
pub mod divergence;
mod fault;
mod follower_link;
pub mod guarantee;
pub mod leader;
mod leader_link;
pub mod link;
pub mod member;
pub mod mending;
pub mod message;
pub mod node;
pub mod policy;
pub mod promotion;
pub mod quorum;
mod seed_link;
pub mod transport;

pub use control::{Control, ControlError};
#[cfg(feature = "sim")]
pub use fault::Fault;
pub use follower_link::{FollowerConfig, FollowerLink};
pub use guarantee::Guarantee;
pub use leader::{LeadError, Leader, LeaderConfig, LeaderStatus, NotAdmitted, PeerStatus};
pub use leader_link::LeaderLink;
pub use link::{End, Link, LinkError, Piece};
pub use member::{Member, ReplicaId};
pub use message::Message;
pub use node::{Event, FirstRole, Node, NodeConfig, NodeError, Owner, Serving};
pub use policy::{InSync, OnMissing, Policy};
pub use seed_link::{Replaces, SeedConfig, SeedLink};
pub use transport::{Certificates, Security, SharedKey};
