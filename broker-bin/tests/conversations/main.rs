//! Scripted client sessions over a real socket and a real log on a real disk: does each get the protocol's answer?
//!
//! Every conversation runs over each driver. The numbers are those of the wire notes' section 8.6.

mod bounds;
mod damage;
mod delays;
mod doors;
mod groups;
mod monitoring;
mod naming;
mod offsets;
mod operating;
mod operators;
mod ordering;
mod peer;
mod pressure;
mod pulling;
mod repeats;
mod replicas;
mod replies;
mod restart;
mod retention;
mod retries;
mod sealed;
mod sending;
mod stage;
mod transactions;

/// Runs conversations over every driver that this build has.
macro_rules! over_every_driver {
    ($($name:ident),* $(,)?) => {
        mod over_epoll {
            $(#[test]
            fn $name() {
                super::$name(anchorlog::Driver::Epoll);
            })*
        }
        #[cfg(feature = "net-uring")]
        mod over_uring {
            $(#[test]
            fn $name() {
                if crate::stage::kernel_offers_uring(stringify!($name)) {
                    super::$name(anchorlog::Driver::Uring);
                }
            })*
        }
    };
}
pub(crate) use over_every_driver;
