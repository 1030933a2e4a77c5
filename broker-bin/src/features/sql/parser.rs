//! Tokens to an expression.

use std::collections::BTreeSet;

use super::expression::{Constant, Expression, Node, Part, Rank};
use super::lexer::{Lexer, Sign, Token, Word};
use super::value::{Value, compare};
use crate::limits;

/// A text that is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at byte {at} of the expression")]
pub struct NotSql {
    /// What is wrong.
    pub what: String,
    /// Where that begins.
    pub at: usize,
}

/// Reads an expression.
///
/// # Errors
/// When it is none, or a larger one than `limits` allow.
pub fn parse(text: &str) -> Result<Expression, NotSql> {
    if text.len() > limits::SQL_BYTES_MAX {
        let what = format!("it has {} bytes, and {} are the most", text.len(), limits::SQL_BYTES_MAX);
        return Err(NotSql { what, at: limits::SQL_BYTES_MAX });
    }
    let mut parser = Parser { lexer: Lexer::new(text), token: Token::End, at: 0, depth: 0, nodes: 0 };
    parser.step()?;
    let (root, at) = (parser.or()?, parser.at);
    let root = parser.as_truth(root, 0)?;
    if parser.token != Token::End {
        return Err(NotSql { what: "nothing may follow a whole expression".to_owned(), at });
    }
    if depth(&root) > limits::SQL_DEPTH_MAX {
        return Err(too_deep(at));
    }
    Ok(Expression::new(text, root))
}

fn too_deep(at: usize) -> NotSql {
    NotSql { what: format!("it is nested more than {} deep", limits::SQL_DEPTH_MAX), at }
}

/// How deep it is to evaluate. `limits::SQL_NODES_MAX` bounds this walk itself.
fn depth(node: &Node) -> usize {
    1 + match node {
        Node::Constant(_) | Node::Property(_) | Node::In { .. } => 0,
        Node::Negative(of) | Node::Not(of) | Node::Truth(of) | Node::Part { of, .. } => depth(of),
        Node::And(nodes) | Node::Or(nodes) => nodes.iter().map(depth).max().unwrap_or(0),
        Node::Equal(left, right) | Node::Rank(_, left, right) => depth(left).max(depth(right)),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The next one.
    token: Token<'a>,
    /// Where it begins.
    at: usize,
    depth: usize,
    nodes: usize,
}

impl<'a> Parser<'a> {
    fn step(&mut self) -> Result<Token<'a>, NotSql> {
        let nothing =
            |at| NotSql { what: "no word, number, text or sign begins here, or it has no end".to_owned(), at };
        let (next, at) = self.lexer.next().map_err(nothing)?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, NotSql> {
        Err(NotSql { what: what.into(), at: self.at })
    }

    fn take_word(&mut self, word: Word) -> Result<bool, NotSql> {
        let found = self.token == Token::Word(word);
        if found {
            self.step()?;
        }
        Ok(found)
    }

    fn take_sign(&mut self, sign: Sign) -> Result<bool, NotSql> {
        let found = self.token == Token::Sign(sign);
        if found {
            self.step()?;
        }
        Ok(found)
    }

    fn need_sign(&mut self, sign: Sign, shown: &str) -> Result<(), NotSql> {
        if self.take_sign(sign)? { Ok(()) } else { self.wrong(format!("{shown} is wanted")) }
    }

    fn need_text(&mut self) -> Result<Box<str>, NotSql> {
        match self.step()? {
            Token::Text(text) => Ok(text.into()),
            _ => self.wrong("text in quotes is wanted before this place"),
        }
    }

    /// Counts a node, so that evaluating stays cheap.
    fn node(&mut self, node: Node) -> Result<Node, NotSql> {
        self.nodes += 1;
        if self.nodes > limits::SQL_NODES_MAX {
            return self.wrong(format!("it has more than {} parts", limits::SQL_NODES_MAX));
        }
        Ok(node)
    }

    /// One level deeper: reading must not run out of stack.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, NotSql>) -> Result<T, NotSql> {
        self.depth += 1;
        if self.depth > limits::SQL_DEPTH_MAX {
            return Err(too_deep(self.at));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn as_truth(&mut self, node: Node, at: usize) -> Result<Node, NotSql> {
        match node {
            Node::Property(_) => self.node(Node::Truth(Box::new(node))),
            node if node.is_truth() => Ok(node),
            _ => Err(NotSql { what: "a comparison is wanted here, not a value".to_owned(), at }),
        }
    }

    fn or(&mut self) -> Result<Node, NotSql> {
        self.joined(Word::Or, Parser::and, Node::Or)
    }

    fn and(&mut self) -> Result<Node, NotSql> {
        self.joined(Word::And, Parser::equality, Node::And)
    }

    fn joined(
        &mut self,
        word: Word,
        inner: fn(&mut Self) -> Result<Node, NotSql>,
        all: fn(Vec<Node>) -> Node,
    ) -> Result<Node, NotSql> {
        let mut at = self.at;
        let first = inner(self)?;
        if self.token != Token::Word(word) {
            return Ok(first);
        }
        let mut nodes = vec![self.as_truth(first, at)?];
        while self.take_word(word)? {
            at = self.at;
            let next = inner(self)?;
            nodes.push(self.as_truth(next, at)?);
        }
        self.node(all(nodes))
    }

    fn equality(&mut self) -> Result<Node, NotSql> {
        let mut left = self.comparison()?;
        loop {
            let equal = match self.token {
                Token::Sign(Sign::Equal) => true,
                Token::Sign(Sign::NotEqual) => false,
                Token::Word(Word::Is) => {
                    self.step()?;
                    let not = self.take_word(Word::Not)?;
                    if !self.take_word(Word::Null)? {
                        return self.wrong("IS is followed by NULL or NOT NULL");
                    }
                    left = self.equal(left, Node::Constant(Constant::Null), not)?;
                    continue;
                }
                _ => return Ok(left),
            };
            let at = self.at;
            self.step()?;
            let right = self.comparison()?;
            check_equal(&left, &right).map_err(|what| NotSql { what: what.to_owned(), at })?;
            left = self.equal(left, right, !equal)?;
        }
    }

    fn equal(&mut self, left: Node, right: Node, not: bool) -> Result<Node, NotSql> {
        let node = self.node(Node::Equal(Box::new(left), Box::new(right)))?;
        if not { self.node(Node::Not(Box::new(node))) } else { Ok(node) }
    }

    fn comparison(&mut self) -> Result<Node, NotSql> {
        let mut left = self.unary()?;
        loop {
            let at = self.at;
            let rank = match self.token {
                Token::Sign(Sign::Less) => Rank::Less,
                Token::Sign(Sign::LessOrEqual) => Rank::LessOrEqual,
                Token::Sign(Sign::Greater) => Rank::Greater,
                Token::Sign(Sign::GreaterOrEqual) => Rank::GreaterOrEqual,
                Token::Word(
                    Word::Not | Word::Between | Word::In | Word::Contains | Word::StartsWith | Word::EndsWith,
                ) => {
                    left = self.special(left)?;
                    continue;
                }
                _ => return Ok(left),
            };
            self.step()?;
            let right = self.unary()?;
            left = self.rank(rank, left, right, at)?;
        }
    }

    fn rank(&mut self, rank: Rank, left: Node, right: Node, at: usize) -> Result<Node, NotSql> {
        for side in [&left, &right] {
            let ranks = match side {
                Node::Constant(constant) => {
                    matches!(constant, Constant::Int(_) | Constant::Long(_) | Constant::Double(_))
                }
                side => !side.is_truth(),
            };
            if !ranks {
                let what = "only numbers and properties are more or less than others".to_owned();
                return Err(NotSql { what, at });
            }
        }
        self.node(Node::Rank(rank, Box::new(left), Box::new(right)))
    }

    /// What is written in words behind a value.
    fn special(&mut self, left: Node) -> Result<Node, NotSql> {
        let at = self.at;
        let not = self.take_word(Word::Not)?;
        let part = match self.step()? {
            Token::Word(Word::Between) => return self.between(left, not, at),
            Token::Word(Word::In) => return self.within(left, not, at),
            Token::Word(Word::Contains) => Part::Anywhere,
            Token::Word(Word::StartsWith) => Part::AtStart,
            Token::Word(Word::EndsWith) => Part::AtEnd,
            _ => {
                let what =
                    "NOT stands before a comparison, or before BETWEEN, IN, CONTAINS, STARTSWITH, ENDSWITH".to_owned();
                return Err(NotSql { what, at });
            }
        };
        let text = self.need_text()?;
        self.node(Node::Part { part, of: Box::new(left), text, not })
    }

    fn between(&mut self, value: Node, not: bool, at: usize) -> Result<Node, NotSql> {
        let low = self.unary()?;
        if !self.take_word(Word::And)? {
            return self.wrong("BETWEEN wants two values with AND between them");
        }
        let high = self.unary()?;
        if not {
            let below = self.rank(Rank::Less, value.clone(), low, at)?;
            let above = self.rank(Rank::Greater, value, high, at)?;
            return self.node(Node::Or(vec![below, above]));
        }
        if let (Some(low), Some(high)) = (constant(&low), constant(&high))
            && !matches!(compare(high, low), Ok(order) if order.is_ge())
        {
            return Err(NotSql { what: "what is between lies above the first and below the second".to_owned(), at });
        }
        let least = self.rank(Rank::GreaterOrEqual, value.clone(), low, at)?;
        let most = self.rank(Rank::LessOrEqual, value, high, at)?;
        self.node(Node::And(vec![least, most]))
    }

    fn within(&mut self, left: Node, not: bool, at: usize) -> Result<Node, NotSql> {
        let Node::Property(property) = left else {
            return Err(NotSql { what: "only a property can be IN a list".to_owned(), at });
        };
        self.need_sign(Sign::Open, "(")?;
        let mut texts = BTreeSet::from([self.need_text()?]);
        while self.take_sign(Sign::Comma)? {
            texts.insert(self.need_text()?);
        }
        self.need_sign(Sign::Close, ")")?;
        self.node(Node::In { property, texts, not })
    }

    fn unary(&mut self) -> Result<Node, NotSql> {
        self.deeper(|parser| {
            if parser.take_sign(Sign::Plus)? {
                return parser.unary();
            }
            if parser.take_sign(Sign::Minus)? {
                let node = parser.unary()?;
                return parser.node(Node::Negative(Box::new(node)));
            }
            let at = parser.at;
            if parser.take_word(Word::Not)? {
                let node = parser.unary()?;
                let node = parser.as_truth(node, at)?;
                return parser.node(Node::Not(Box::new(node)));
            }
            parser.primary()
        })
    }

    fn primary(&mut self) -> Result<Node, NotSql> {
        let at = self.at;
        let node = match self.step()? {
            Token::Text(text) => Node::Constant(Constant::Text(text.into())),
            Token::Whole(digits) => Node::Constant(whole(digits).map_err(|what| NotSql { what, at })?),
            Token::Decimal(digits) => Node::Constant(decimal(digits).map_err(|what| NotSql { what, at })?),
            Token::Word(Word::True) => Node::Constant(Constant::Truth(true)),
            Token::Word(Word::False) => Node::Constant(Constant::Truth(false)),
            Token::Word(Word::Null) => Node::Constant(Constant::Null),
            Token::Name(name) => Node::Property(name.into()),
            Token::Sign(Sign::Open) => {
                let node = self.or()?;
                self.need_sign(Sign::Close, ")")?;
                return Ok(node);
            }
            Token::End => return Err(NotSql { what: "it ends where a value is wanted".to_owned(), at }),
            _ => return Err(NotSql { what: "a value is wanted here".to_owned(), at }),
        };
        self.node(node)
    }
}

fn check_equal(left: &Node, right: &Node) -> Result<(), &'static str> {
    let is_null = |node: &Node| matches!(node, Node::Constant(Constant::Null));
    if is_null(left) || is_null(right) {
        return Err("nothing is equal to NULL; write IS NULL");
    }
    match (left, right) {
        (Node::Constant(Constant::Truth(_)), Node::Constant(right)) if !matches!(right, Constant::Truth(_)) => {
            Err("a truth is not compared with a value")
        }
        _ => Ok(()),
    }
}

fn constant(node: &Node) -> Option<Value<'_>> {
    let Node::Constant(constant) = node else { return None };
    Some(match constant {
        Constant::Null => Value::Null,
        Constant::Truth(value) => Value::Truth(*value),
        Constant::Int(value) => Value::Int(*value),
        Constant::Long(value) => Value::Long(*value),
        Constant::Double(value) => Value::Double(*value),
        Constant::Text(value) => Value::Text(value),
    })
}

fn whole(digits: &str) -> Result<Constant, String> {
    let value: i64 = digits.parse().map_err(|_| format!("{digits} is more than a whole number of 64 bits holds"))?;
    Ok(i32::try_from(value).map_or(Constant::Long(value), Constant::Int))
}

/// The original knows no decimal zero: it is below the least of its numbers.
fn decimal(digits: &str) -> Result<Constant, String> {
    let value: f64 = digits.parse().map_err(|_| format!("{digits} is no number"))?;
    if value > 0.0 && value.is_finite() {
        Ok(Constant::Double(value))
    } else {
        Err(format!("{digits} is beyond the numbers that there are; write 0 for zero"))
    }
}
