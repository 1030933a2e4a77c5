//! Answers on standard output: tables, facts, JSON.

use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

use super::When;
use crate::wire::operate::ShownMessage;

/// Characters of a body that are shown to people.
const BODY_CHARS_SHOWN: usize = 2000;

/// Prints JSON, on one line.
pub(super) fn json(out: &mut dyn Write, told: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, told)?;
    writeln!(out)
}

/// Prints a table, or a sentence when it has no rows.
pub(super) fn table<const N: usize>(
    out: &mut dyn Write,
    names: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    none: &str,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(names.map(Cell::new));
    let mut any = false;
    for row in rows {
        any = true;
        table.add_row(row.map(|text| Cell::new(shown(&text))));
    }
    if !any {
        return writeln!(out, "{none}");
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints names and values, one pair a line.
pub(super) fn facts<'a>(out: &mut dyn Write, facts: impl IntoIterator<Item = (&'a str, String)>) -> io::Result<()> {
    for (name, value) in facts {
        writeln!(out, "{name:<16}{}", shown(&value))?;
    }
    Ok(())
}

/// Prints all that is known of a message; its body at the end.
pub(super) fn message(out: &mut dyn Write, message: &ShownMessage) -> io::Result<()> {
    let born = When { ms: u64::try_from(message.born_ms).unwrap_or(0) };
    facts(
        out,
        [
            ("message", maybe(message.unique_key.as_ref())),
            ("message id", message.id.clone()),
            ("in topic", format!("{} queue {} offset {}", message.topic, message.queue, message.queue_offset)),
            ("LSN", message.lsn.to_string()),
            ("born", format!("{born} at {}", message.born_host)),
            ("stored", time(message.stored_ms)),
            ("tag", maybe(message.tag.as_ref())),
            ("keys", message.keys.join(" ")),
            ("attempts", message.attempts.to_string()),
            ("body bytes", message.body_bytes.to_string()),
        ],
    )?;
    for (name, value) in message.properties.iter().flatten() {
        writeln!(out, "  {} = {}", shown(name), shown(value))?;
    }
    let Some(body) = message.body.as_ref().and_then(|body| BASE64_STANDARD.decode(body).ok()) else { return Ok(()) };
    match String::from_utf8(body) {
        Ok(text) => {
            let some: String = text.chars().take(BODY_CHARS_SHOWN).collect();
            let lines = some.lines().map(shown).collect::<Vec<_>>().join("\n");
            let more = if some.len() < text.len() { " …" } else { "" };
            writeln!(out, "{lines}{more}")
        }
        Err(_) => writeln!(out, "(no text; --json has it in base64)"),
    }
}

/// Says how the list goes on.
pub(super) fn more(out: &mut dyn Write, next: Option<&String>) -> io::Result<()> {
    match next {
        Some(next) => writeln!(out, "there may be more: --after {next}"),
        None => Ok(()),
    }
}

/// What others wrote must not move the cursor, nor break a line.
fn shown(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// A time.
pub(super) fn time(ms: u64) -> String {
    When { ms }.to_string()
}

/// A time that may not be known.
pub(super) fn maybe_time(ms: Option<u64>) -> String {
    ms.map(time).unwrap_or_default()
}

/// A length of time, in the two largest units that say something.
pub(super) fn span(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let first = units.iter().position(|(_, unit)| ms >= *unit).unwrap_or(units.len() - 1);
    let (name, unit) = units[first];
    let text = format!("{}{name}", ms / unit);
    match units.get(first + 1) {
        Some((name, smaller)) if ms % unit / smaller > 0 && *name != "ms" => {
            format!("{text}{}{name}", ms % unit / smaller)
        }
        _ => text,
    }
}

/// What may not be known.
pub(super) fn maybe(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn columns_stand_below_their_names_and_strangers_text_is_harmless() {
        let rows = [["a".to_owned(), "1".to_owned()], ["lo\u{1b}ng\n".to_owned(), String::new()]];
        let printed = text(|out| table(out, ["name", "count"], rows, "none"));
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].find("count"), lines[1].find('1'));
        assert!(lines[2].contains("lo\u{FFFD}ng\u{FFFD}") && lines[2].ends_with('-'), "{printed}");
        assert_eq!(text(|out| table(out, ["x"], [], "nothing is there")), "nothing is there\n");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (ms, wanted) in [
            (0, "0ms"),
            (999, "999ms"),
            (1500, "1s"),
            (61_000, "1m1s"),
            (3_600_000, "1h"),
            (3_660_000, "1h1m"),
            (90_061_000, "1d1h"),
        ] {
            assert_eq!(span(ms), wanted);
        }
    }
}
