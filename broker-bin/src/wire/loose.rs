//! JSON as the original writes some bodies: keys may be numbers or whole objects. Read as JSON whose keys are text.

use serde_json::{Map, Value};

/// Deeper than any body is.
const DEPTH_MAX: usize = 32;

/// Reads a body; `None` for what is not even that.
#[must_use]
pub fn read(body: &[u8]) -> Option<Value> {
    let mut rest = std::str::from_utf8(body).ok()?;
    let value = value(&mut rest, 0)?;
    rest.trim_start().is_empty().then_some(value)
}

fn value(rest: &mut &str, depth: usize) -> Option<Value> {
    *rest = rest.trim_start();
    match rest.chars().next()? {
        _ if depth == DEPTH_MAX => None,
        '{' => object(rest, depth),
        '[' => list(rest, depth),
        _ => plain(rest),
    }
}

/// What has no parts is as everywhere else.
fn plain(rest: &mut &str) -> Option<Value> {
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    let found = values.next()?.ok()?;
    *rest = rest.get(values.byte_offset()..)?;
    Some(found)
}

fn take(rest: &mut &str, wanted: char) -> bool {
    *rest = rest.trim_start();
    match rest.strip_prefix(wanted) {
        Some(behind) => {
            *rest = behind;
            true
        }
        None => false,
    }
}

fn object(rest: &mut &str, depth: usize) -> Option<Value> {
    let mut members = Map::new();
    take(rest, '{');
    if take(rest, '}') {
        return Some(Value::Object(members));
    }
    loop {
        let key = match key(rest, depth)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        take(rest, ':').then_some(())?;
        members.insert(key, value(rest, depth + 1)?);
        if !take(rest, ',') {
            return take(rest, '}').then_some(Value::Object(members));
        }
    }
}

fn key(rest: &mut &str, depth: usize) -> Option<Value> {
    *rest = rest.trim_start();
    // A number before a colon is no JSON by itself.
    let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(0);
    if digits > 0 {
        let (number, behind) = rest.split_at(digits);
        *rest = behind;
        return number.parse::<i64>().ok().map(Value::from);
    }
    value(rest, depth + 1)
}

fn list(rest: &mut &str, depth: usize) -> Option<Value> {
    let mut items = Vec::new();
    take(rest, '[');
    if take(rest, ']') {
        return Some(Value::Array(items));
    }
    loop {
        items.push(value(rest, depth + 1)?);
        if !take(rest, ',') {
            return take(rest, ']').then_some(Value::Array(items));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_are_numbers_or_objects_become_text() {
        let body = br#"{"brokerAddrTable":{"b":{"brokerAddrs":{0:"a:1",1:"b:2"}}},"t":{{"queueId":3,"topic":"T"}:{"max":-4,"x":[true,null,1.5,"\u0041,}"]}}} "#;
        let read = read(body).expect("good");
        assert_eq!(read["brokerAddrTable"]["b"]["brokerAddrs"], json!({"0": "a:1", "1": "b:2"}));
        assert_eq!(read["t"][r#"{"queueId":3,"topic":"T"}"#], json!({"max": -4, "x": [true, null, 1.5, "A,}"]}));
    }

    #[test]
    fn what_is_no_such_text_is_refused() {
        let deep = "[".repeat(1000);
        for bad in ["", "{", "{1}", "{1:}", "[1,]", "{\"a\":1} x", "{-:1}", &deep] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn json_is_read_as_json(text in r#"\PC{0,20}"#, number in any::<i64>()) {
            let value = json!({"a": [text, number, {"b": text, "": []}], "c": null});
            prop_assert_eq!(read(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _any = read(&bytes);
        }
    }
}
