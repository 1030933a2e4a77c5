//! What clients say in a trace topic of what they did with a message.
//!
//! ```text
//! record U+0002 record U+0002 …       record: kind U+0001 field U+0001 field …
//! Pub             time region group topic id tags keys host bytes cost type offset-id success [client]
//! SubBefore       time region group request id attempts keys [client]
//! SubAfter        request id cost success keys code [time group]
//! EndTransaction  time region group topic id tags keys host type transaction state checked
//! ```
//! Whatever cannot be read is passed over: clients of other versions write more and less.

use crate::wire::operate::{Step, StepKind};

/// The topic that clients send traces to unless told otherwise.
pub(super) const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";

/// The steps that a trace message tells of the message with this id.
pub(super) fn steps(body: &str, id: &str) -> Vec<Step> {
    body.split('\u{2}').filter_map(|record| step(record, id)).collect()
}

fn step(record: &str, id: &str) -> Option<Step> {
    let fields: Vec<&str> = record.trim().split('\u{1}').collect();
    let field = |at: usize| fields.get(at).copied().filter(|text| !text.is_empty());
    let text = |at: usize| field(at).map(str::to_owned);
    let time = |at: usize| field(at).and_then(|text| text.parse().ok());
    let is_of = |at: usize| (field(at) == Some(id)).then_some(());
    match field(0)? {
        "Pub" => {
            is_of(5)?;
            let failed = fields[6..].contains(&"false");
            let how = if failed { "failed" } else { "sent" };
            let note = format!("{how}, {} ms, {} bytes", field(10).unwrap_or("?"), field(9).unwrap_or("?"));
            let (kind, group) = (StepKind::ClientSent, text(3));
            Some(Step { kind, at_ms: time(1), topic: text(4), group, note: Some(note), ..Step::default() })
        }
        "SubBefore" => {
            is_of(5)?;
            let note = format!("attempts before: {}", field(6).unwrap_or("?"));
            let (kind, group) = (StepKind::ClientBegan, text(3));
            Some(Step { kind, at_ms: time(1), group, note: Some(note), ..Step::default() })
        }
        "SubAfter" => {
            is_of(2)?;
            let how = if field(4) == Some("true") { "consumed" } else { "failed" };
            let note = format!("{how}, {} ms", field(3).unwrap_or("?"));
            let (kind, group) = (StepKind::ClientDone, text(8));
            Some(Step { kind, at_ms: time(7), group, note: Some(note), ..Step::default() })
        }
        "EndTransaction" => {
            is_of(5)?;
            let (kind, group) = (StepKind::ClientEnded, text(3));
            Some(Step { kind, at_ms: time(1), topic: text(4), group, note: text(11), ..Step::default() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say_of_a_message_is_read_and_what_they_say_of_others_is_not() {
        let body = [
            "Pub\u{1}1000\u{1}r\u{1}pg\u{1}T1\u{1}K1\u{1}A\u{1}k\u{1}10.0.0.1:10911\u{1}7\u{1}3\u{1}0\u{1}AC\u{1}true\u{1}10.0.0.5\u{2}",
            "Pub\u{1}1000\u{1}r\u{1}pg\u{1}T1\u{1}K2\u{1}A\u{1}k\u{1}h\u{1}7\u{1}3\u{1}0\u{1}AC\u{1}true\u{2}",
            "SubBefore\u{1}2000\u{1}r\u{1}g\u{1}R\u{1}K1\u{1}0\u{1}k\u{2}SubAfter\u{1}R\u{1}K1\u{1}9\u{1}false\u{1}k\u{1}1\u{1}2009\u{1}g\u{2}",
            "EndTransaction\u{1}3000\u{1}r\u{1}pg\u{1}T1\u{1}K1\u{1}A\u{1}k\u{1}h\u{1}2\u{1}K1\u{1}COMMIT_MESSAGE\u{1}false\u{2}Odd\u{1}K1\u{2}",
        ];
        let steps = steps(&body.concat(), "K1");
        let told: Vec<_> = steps.iter().map(|step| (step.kind, step.at_ms, step.group.as_deref())).collect();
        assert_eq!(
            told,
            [
                (StepKind::ClientSent, Some(1000), Some("pg")),
                (StepKind::ClientBegan, Some(2000), Some("g")),
                (StepKind::ClientDone, Some(2009), Some("g")),
                (StepKind::ClientEnded, Some(3000), Some("pg")),
            ]
        );
        assert_eq!(steps[0].note.as_deref(), Some("sent, 3 ms, 7 bytes"));
        assert_eq!(steps[2].note.as_deref(), Some("failed, 9 ms"));
        assert_eq!(steps[3].note.as_deref(), Some("COMMIT_MESSAGE"));
        assert!(super::steps("Pub\u{1}\u{2}SubAfter\u{2}\u{1}\u{2}", "K1").is_empty());
    }
}
