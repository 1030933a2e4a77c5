//! An expression that was read, and its truth for a message.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::value::{Incomparable, Properties, Value, compare, rank};

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    Null,
    Truth(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(Box<str>),
}

/// Which of two values must be more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Rank {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Rank::Less => order.is_lt(),
            Rank::LessOrEqual => order.is_le(),
            Rank::Greater => order.is_gt(),
            Rank::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// Where a text must stand in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Anywhere,
    AtStart,
    AtEnd,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Constant(Constant),
    Property(Box<str>),
    Negative(Box<Node>),
    Not(Box<Node>),
    /// A property where a truth is wanted.
    Truth(Box<Node>),
    /// All of them, asked from the first to the last.
    And(Vec<Node>),
    /// Any of them, asked from the first to the last.
    Or(Vec<Node>),
    Equal(Box<Node>, Box<Node>),
    Rank(Rank, Box<Node>, Box<Node>),
    In {
        property: Box<str>,
        texts: BTreeSet<Box<str>>,
        not: bool,
    },
    Part {
        part: Part,
        of: Box<Node>,
        text: Box<str>,
        not: bool,
    },
}

impl Node {
    /// Whether it is a truth by its form.
    pub(super) fn is_truth(&self) -> bool {
        match self {
            Node::Constant(constant) => matches!(constant, Constant::Null | Constant::Truth(_)),
            Node::Property(_) | Node::Negative(_) => false,
            _ => true,
        }
    }

    fn value<'a>(&'a self, properties: &'a dyn Properties) -> Result<Value<'a>, Incomparable> {
        let truth = |truth: Option<bool>| truth.map_or(Value::Null, Value::Truth);
        Ok(match self {
            Node::Constant(constant) => match constant {
                Constant::Null => Value::Null,
                Constant::Truth(value) => Value::Truth(*value),
                Constant::Int(value) => Value::Int(*value),
                Constant::Long(value) => Value::Long(*value),
                Constant::Double(value) => Value::Double(*value),
                Constant::Text(value) => Value::Text(value),
            },
            Node::Property(name) => properties.get(name).map_or(Value::Null, Value::Text),
            Node::Negative(node) => match node.value(properties)? {
                Value::Int(value) => Value::Int(value.wrapping_neg()),
                Value::Long(value) => Value::Long(value.wrapping_neg()),
                Value::Double(value) => Value::Double(-value),
                Value::Null | Value::Truth(_) | Value::Text(_) => Value::Null,
            },
            node => truth(node.truth(properties)?),
        })
    }

    /// `None`: it cannot be said.
    fn truth(&self, properties: &dyn Properties) -> Result<Option<bool>, Incomparable> {
        Ok(match self {
            Node::Constant(Constant::Truth(value)) => Some(*value),
            Node::Constant(_) | Node::Property(_) | Node::Negative(_) => None,
            Node::Not(node) => node.truth(properties)?.map(|truth| !truth),
            // Properties are text, and no text is a truth by itself.
            Node::Truth(node) => match node.value(properties)? {
                Value::Null => None,
                value => Some(value == Value::Truth(true)),
            },
            Node::And(nodes) => joined(nodes, properties, false)?,
            Node::Or(nodes) => joined(nodes, properties, true)?,
            Node::Equal(left, right) => match (left.value(properties)?, right.value(properties)?) {
                (Value::Null, Value::Null) => Some(true),
                (Value::Null, _) => None,
                (_, Value::Null) => Some(false),
                (left, right) => Some(compare(left, right)?.is_eq()),
            },
            Node::Rank(wanted, left, right) => {
                let left = left.value(properties)?;
                if left == Value::Null {
                    return Ok(None);
                }
                match right.value(properties)? {
                    Value::Null => None,
                    right => Some(wanted.holds(rank(left, right)?)),
                }
            }
            Node::In { property, texts, not } => properties.get(property).map(|text| texts.contains(text) != *not),
            Node::Part { part, of, text, not } => {
                if text.is_empty() {
                    return Ok(Some(false));
                }
                let Value::Text(found) = of.value(properties)? else { return Ok(Some(false)) };
                let stands = match part {
                    Part::Anywhere => found.contains(&**text),
                    Part::AtStart => found.starts_with(&**text),
                    Part::AtEnd => found.ends_with(&**text),
                };
                Some(stands != *not)
            }
        })
    }
}

/// The first that is `decisive` decides; otherwise one that cannot be said leaves all unsaid.
fn joined(nodes: &[Node], properties: &dyn Properties, decisive: bool) -> Result<Option<bool>, Incomparable> {
    let mut all = Some(!decisive);
    for node in nodes {
        match node.truth(properties)? {
            Some(truth) if truth == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => all = None,
        }
    }
    Ok(all)
}

/// An expression that was read.
#[derive(Clone, Debug)]
pub struct Expression {
    text: Box<str>,
    root: Node,
}

impl Expression {
    pub(super) fn new(text: &str, root: Node) -> Expression {
        Expression { text: text.into(), root }
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its truth for a message; `None` when that cannot be said.
    ///
    /// # Errors
    /// When a property cannot be compared as the expression wants.
    pub fn evaluate(&self, properties: &dyn Properties) -> Result<Option<bool>, Incomparable> {
        self.root.truth(properties)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.root == other.root
    }
}

impl Eq for Expression {}
