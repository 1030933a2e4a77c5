//! The program's commands for operators, as processes, against a running broker: what they print, and how they end.

mod delay;
mod dlq;
mod doctor;
mod group;
mod message;
mod offset;
mod stage;
mod topic;
mod transaction;
mod user;

use stage::{Stage, ended};

#[test]
fn a_wrong_call_and_a_broker_that_is_not_there_end_with_2() {
    for words in [
        &["dlq", "list", "--limit", "many"][..],
        &["dlq"],
        &["delay", "list", "--from", "soon"],
        &["transaction", "commit"],
        &["dlq", "replay", "g", "--broker", "127.0.0.1:1"],
        &["transaction", "list", "--broker", "127.0.0.1:1"],
        &["transaction", "list", "--broker", "nobody"],
    ] {
        let done = ended(words);
        assert_eq!(done.code, Some(2), "{words:?}: {done:?}");
        assert!(done.out.is_empty() && !done.error.is_empty(), "{words:?}: {done:?}");
    }
}

#[test]
fn help_says_what_a_command_is_for() {
    let done = ended(&["dlq", "replay", "--help"]);
    assert_eq!(done.code, Some(0));
    for part in ["every group that subscribes it gets them", "--to-group", "--broker", "--json"] {
        assert!(done.out.contains(part), "{part} in {}", done.out);
    }
}

#[test]
fn what_is_not_there_is_said_in_one_line_and_ends_with_1() {
    let stage = Stage::new();
    for words in [
        &["dlq", "list", "nobody"][..],
        &["dlq", "show", "nobody", "x"],
        &["delay", "cancel", "1.2.3.4"],
        &["transaction", "show", "1.2.3"],
        &["transaction", "rollback", "x"],
    ] {
        let done = stage.run(words);
        assert_eq!(done.code, Some(1), "{words:?}: {done:?}");
        assert!(
            done.out.is_empty() && done.error.starts_with("anchorlog: ") && done.error.lines().count() == 1,
            "{done:?}"
        );
    }
}
