//! The load generator.
mod checks;
mod client;
mod clock;
mod disk;
mod engine_rows;
mod error;
mod host;
mod limit;
mod meter;
mod open_loop;
mod out;
mod payload;
mod report;
mod row;
mod verify;
fn main() {}
