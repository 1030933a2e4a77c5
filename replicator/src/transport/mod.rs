//! How members reach each other: connections whose other end is known, and the threads that drive links over them.

pub(crate) mod auth;
pub(crate) mod channel;
pub(crate) mod conversation;
pub(crate) mod drive;
pub mod limits;
pub(crate) mod listener;
mod security;
#[cfg(test)]
mod tests;

pub use auth::{SharedKey, WeakKey};
pub use listener::ListenError;
pub use security::{CertificateError, Certificates, Security};
