//! Configuration files as keys and values: TOML, or `key=value` lines like a `broker.conf`.
//!
//! Both take both kinds of keys, so that a file need not say which kind it is.

use std::path::Path;

use toml::Value;

/// One key with its value as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Line of the file, from 1; 0 when it is not known.
    pub(super) line: usize,
    /// The key as written.
    pub(super) key: String,
    /// The value as text.
    pub(super) value: String,
}

/// Reads a file by its extension; without a telling one, as TOML if it is TOML.
pub(super) fn entries(path: &Path, text: &str) -> Result<Vec<Entry>, String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml_entries(text),
        Some("conf" | "properties") => property_entries(text),
        _ => toml_entries(text).or_else(|_| property_entries(text)),
    }
}

fn toml_entries(text: &str) -> Result<Vec<Entry>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut entries = Vec::new();
    for (key, value) in table {
        let value = match value {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            other => {
                return Err(format!("{key} is a {}; text, a whole number, true or false is wanted", other.type_str()));
            }
        };
        let line = text.lines().position(|line| {
            let rest = line.trim_start().trim_start_matches(['"', '\'']).strip_prefix(&key);
            rest.is_some_and(|rest| rest.starts_with(['"', '\'', ' ', '\t', '=']))
        });
        entries.push(Entry { line: line.map_or(0, |line| line + 1), key, value });
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn property_entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let line_number = place + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        if line.ends_with('\\') {
            return Err(format!("line {line_number} goes on in the next one; write it as one line"));
        }
        let (key, value) =
            line.split_once(['=', ':']).ok_or_else(|| format!("line {line_number} is no key=value: {line:?}"))?;
        let (key, value) = (key.trim(), value.trim());
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        if key.is_empty() {
            return Err(format!("line {line_number} has no key: {line:?}"));
        }
        if let Some(first) = entries.iter().find(|entry| entry.key == key) {
            return Err(format!("{key} stands in line {} and again in line {line_number}", first.line));
        }
        entries.push(Entry { line: line_number, key: key.to_owned(), value: bare.unwrap_or(value).to_owned() });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<(usize, String, String)>, String> {
        let entries = entries(Path::new(name), text)?;
        Ok(entries.into_iter().map(|entry| (entry.line, entry.key, entry.value)).collect())
    }

    fn entry(line: usize, key: &str, value: &str) -> (usize, String, String) {
        (line, key.to_owned(), value.to_owned())
    }

    #[test]
    fn both_formats_give_the_same_entries() {
        let toml = "# ours\nflush = \"sync\"\nnet-threads = 2\n\ninsecure = true\n";
        let conf = "# ours\nflush = sync\nnet-threads=2\n! more\ninsecure : true\n";
        let wanted = [entry(2, "flush", "sync"), entry(3, "net-threads", "2"), entry(5, "insecure", "true")];
        for (name, text) in [("a.toml", toml), ("a.conf", conf), ("a", toml), ("a", conf), ("a.properties", conf)] {
            assert_eq!(read(name, text).as_deref(), Ok(&wanted[..]), "{name}");
        }
    }

    #[test]
    fn a_line_of_toml_is_that_of_the_whole_key() {
        let wanted = [entry(1, "acl-file", "a"), entry(2, "acl", "true")];
        assert_eq!(read("a.toml", "acl-file = \"a\"\nacl = true\n").as_deref(), Ok(&wanted[..]));
    }

    #[test]
    fn what_is_malformed_is_named_with_its_line() {
        for (name, text, part) in [
            ("a.conf", "a=1\nb", "line 2"),
            ("a.conf", "a=1\n=2", "line 2"),
            ("a.conf", "a=1\\\n2", "line 1"),
            ("a.conf", "a=1\na=2", "line 1 and again in line 2"),
            ("a.toml", "a = 1\na = 2", "line 2"),
            ("a.toml", "[a]\nb = 1", "a is a table"),
            ("a.toml", "a = 1.5", "float"),
        ] {
            let error = read(name, text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
