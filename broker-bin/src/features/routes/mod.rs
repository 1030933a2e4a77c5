//! Routes: what clients ask a name server. One broker answers for itself.
//!
//! 1. A topic that exists has a route at once; any other name gets 17, which is normal flow for clients.
//! 2. Answers are compact JSON with quoted keys and every member that any client family demands, in an order that never changes.

mod handler;

pub use handler::{
    add_writes, cluster, delete_value, own_topics, put_value, route, topic_list, topics_of_cluster, value, wipe_writes,
};
