//! Other brokers, as name servers that are somebody else's tell of them: so that whoever asks this broker for a route is told of all queues
//! of a topic, also when no name server lives.
//!
//! 1. As long as a name server answers, what it says counts; when the last one is silent, what was said last stays as long as it takes.
//! 2. A name server that was just met may not have heard of everybody yet: it adds to what is known, and takes away from it only later.
//! 3. What is known stands in the table, so that it outlives this process and its leadership too.
//! 4. This broker's own queues are never taken from there: of those it knows itself.
//!
//! ```text
//!  name servers -- 206, 105 --> registration --> Neighbours --> 105, 106, 206 of our own
//!                                                    |  ^
//!                                                    v  | at the start
//!                                              table: neighbours/…
//! ```
//! Deliberately not here: asking (`registration`), and judging whether a neighbour lives; clients find that out, and turn to another one.

mod table;

pub use table::{Neighbours, Routes};
