//! Text to tokens.

use std::borrow::Cow;

/// A piece of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A reserved word.
    Word(Word),
    /// A property's name.
    Name(&'a str),
    /// What stands between quotes.
    Text(Cow<'a, str>),
    /// A whole number's digits.
    Whole(&'a str),
    /// A decimal number.
    Decimal(&'a str),
    /// Anything else.
    Sign(Sign),
    /// There is nothing more.
    End,
}

/// Reserved words, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const WORDS: [(&str, Word); 12] = [
    ("NOT", Word::Not),
    ("AND", Word::And),
    ("OR", Word::Or),
    ("BETWEEN", Word::Between),
    ("IN", Word::In),
    ("TRUE", Word::True),
    ("FALSE", Word::False),
    ("NULL", Word::Null),
    ("IS", Word::Is),
    ("CONTAINS", Word::Contains),
    ("STARTSWITH", Word::StartsWith),
    ("ENDSWITH", Word::EndsWith),
];

/// Signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    Open,
    Close,
    Comma,
}

/// Longer ones first.
const SIGNS: [(&str, Sign); 11] = [
    ("<>", Sign::NotEqual),
    ("<=", Sign::LessOrEqual),
    (">=", Sign::GreaterOrEqual),
    ("=", Sign::Equal),
    ("<", Sign::Less),
    (">", Sign::Greater),
    ("+", Sign::Plus),
    ("-", Sign::Minus),
    ("(", Sign::Open),
    (")", Sign::Close),
    (",", Sign::Comma),
];

/// Takes tokens off the front of a text.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    /// The next token, and the byte at which it begins. Fails with the byte at which nothing of the language stands.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize), usize> {
        self.skip();
        let (start, rest) = (self.at, &self.text[self.at..]);
        let Some(first) = rest.chars().next() else { return Ok((Token::End, start)) };
        let (token, bytes) = match first {
            '\'' => quoted(rest).ok_or(start)?,
            '0'..='9' | '.' => number(rest).ok_or(start)?,
            'a'..='z' | 'A'..='Z' | '_' | '$' => {
                let bytes = count(rest, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'));
                let name = &rest[..bytes];
                let word = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(name));
                (word.map_or(Token::Name(name), |(_, word)| Token::Word(*word)), bytes)
            }
            _ => {
                let (text, sign) = SIGNS.iter().find(|(text, _)| rest.starts_with(text)).ok_or(start)?;
                (Token::Sign(*sign), text.len())
            }
        };
        self.at += bytes;
        Ok((token, start))
    }

    /// Passes blanks and comments. A comment that has no end is none, and its first sign is read as one.
    fn skip(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let blanks = count(rest, |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0C'));
            let comment = match rest.get(..2) {
                Some("--") => rest.find(['\n', '\r']).map(|end| end + 1),
                Some("/*") => rest[2..].find("*/").map(|end| 2 + end + 2),
                _ => None,
            };
            match blanks + comment.unwrap_or(0) {
                0 => return,
                bytes => self.at += bytes,
            }
        }
    }
}

fn count(text: &str, wanted: impl Fn(&u8) -> bool) -> usize {
    text.bytes().take_while(wanted).count()
}

/// A text in quotes; `None` when it has no end.
fn quoted(text: &str) -> Option<(Token<'_>, usize)> {
    let mut at = 1;
    loop {
        at += text[at..].find('\'')? + 1;
        if !text[at..].starts_with('\'') {
            break;
        }
        at += 1;
    }
    let inner = &text[1..at - 1];
    let inner = if inner.contains('\'') { Cow::Owned(inner.replace("''", "'")) } else { Cow::Borrowed(inner) };
    Some((Token::Text(inner), at))
}

/// A number; `None` for a point alone.
fn number(text: &str) -> Option<(Token<'_>, usize)> {
    let digits = |text: &str| count(text, u8::is_ascii_digit);
    let whole = digits(text);
    let mut bytes = whole;
    let fraction = text[bytes..].starts_with('.');
    if fraction {
        let decimals = digits(&text[bytes + 1..]);
        if whole == 0 && decimals == 0 {
            return None;
        }
        bytes += 1 + decimals;
    }
    let exponent = exponent(&text[bytes..]);
    bytes += exponent;
    if fraction || exponent > 0 {
        return Some((Token::Decimal(&text[..bytes]), bytes));
    }
    // A zero stands alone: what follows it is another token, which no expression has room for.
    let whole = if text.starts_with('0') { 1 } else { whole };
    let long = usize::from(!text.starts_with('0') && text[whole..].starts_with(['l', 'L']));
    Some((Token::Whole(&text[..whole]), whole + long))
}

/// Bytes of an exponent, if there is one.
fn exponent(text: &str) -> usize {
    if !text.starts_with(['e', 'E']) {
        return 0;
    }
    let sign = usize::from(text[1..].starts_with(['+', '-']));
    match count(&text[1 + sign..], u8::is_ascii_digit) {
        0 => 0,
        digits => 1 + sign + digits,
    }
}
