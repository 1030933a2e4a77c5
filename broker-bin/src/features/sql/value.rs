//! Values, and what it means to compare two of them.
//!
//! Two of one kind are compared as they are. Of two kinds, one becomes the other's: a smaller number the larger one's, text whatever the
//! other is. Text that cannot become it is an error, not a false comparison.

use std::cmp::Ordering;

/// What an expression is asked about.
pub trait Properties {
    /// A message's property.
    fn get(&self, name: &str) -> Option<&str>;
}

/// What cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Incomparable(pub String);

/// A value of an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Truth(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a str),
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Truth(_) => "a truth",
            Value::Int(_) | Value::Long(_) => "a whole number",
            Value::Double(_) => "a number",
            Value::Text(_) => "text",
        }
    }
}

/// How two values lie, neither of which is null. Kinds that never meet are as if the first were less.
pub(super) fn compare(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Incomparable> {
    use Value::{Double, Int, Long, Text, Truth};
    Ok(match (left, right) {
        (Truth(left), Truth(right)) => left.cmp(&right),
        (Text(left), Text(right)) => utf16_order(left, right),
        (Int(left), Int(right)) => left.cmp(&right),
        (Long(left), Long(right)) => left.cmp(&right),
        (Double(left), Double(right)) => double_order(left, right),
        (Int(left), Long(right)) => i64::from(left).cmp(&right),
        (Long(left), Int(right)) => left.cmp(&i64::from(right)),
        (Int(left), Double(right)) => double_order(f64::from(left), right),
        (Double(left), Int(right)) => double_order(left, f64::from(right)),
        (Long(left), Double(right)) => double_order(long_as_double(left), right),
        (Double(left), Long(right)) => double_order(left, long_as_double(right)),
        (Int(left), Text(right)) => left.cmp(&int(right)?),
        (Text(left), Int(right)) => int(left)?.cmp(&right),
        (Long(left), Text(right)) => left.cmp(&long(right)?),
        (Text(left), Long(right)) => long(left)?.cmp(&right),
        (Double(left), Text(right)) => double_order(left, double(right)?),
        (Text(left), Double(right)) => double_order(double(left)?, right),
        (Text(left), Truth(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
        (Truth(_), Text(_)) => {
            return Err(Incomparable(format!("{} on the left cannot be compared with {}", left.kind(), right.kind())));
        }
        _ => Ordering::Less,
    })
}

/// How two values lie where one must be more than the other: two texts are compared as numbers.
pub(super) fn rank(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Incomparable> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Ok(double_order(double(left)?, double(right)?)),
        _ => compare(left, right),
    }
}

/// By code units of UTF-16, as clients order text.
fn utf16_order(left: &str, right: &str) -> Ordering {
    left.encode_utf16().cmp(right.encode_utf16())
}

/// Not-a-number is equal to itself and more than all others; zero is more than its negative.
fn double_order(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).filter(|order| order.is_ne()).unwrap_or_else(|| {
        let rank = |value: f64| if value.is_nan() { 2 } else { u8::from(value.is_sign_positive()) };
        rank(left).cmp(&rank(right))
    })
}

#[expect(clippy::cast_precision_loss, reason = "as the original converts; far beyond what properties count")]
fn long_as_double(value: i64) -> f64 {
    value as f64
}

fn is_no(text: &str, what: &str) -> Incomparable {
    let shown: String = text.chars().take(40).collect();
    Incomparable(format!("{shown:?} is no {what}"))
}

fn int(text: &str) -> Result<i32, Incomparable> {
    text.parse().map_err(|_| is_no(text, "whole number of 32 bits"))
}

fn long(text: &str) -> Result<i64, Incomparable> {
    text.parse().map_err(|_| is_no(text, "whole number of 64 bits"))
}

/// A number as clients write them: blanks around it, and a letter for its type behind it, change nothing.
pub(super) fn double(text: &str) -> Result<f64, Incomparable> {
    let trimmed = text.trim_matches(|c| c <= ' ');
    let unsigned = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    match unsigned {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => return Ok(if trimmed.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        _ => {}
    }
    let digits = trimmed.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(trimmed);
    // Words for numbers are two there, and others here.
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(is_no(text, "number"));
    }
    digits.parse().map_err(|_| is_no(text, "number"))
}
