//! `plain_acl.yml` of the original: who is trusted, and which accounts there are.
//!
//! What is not understood is an error with its line, never passed over: it could be what keeps somebody out.

use std::collections::BTreeMap;

use yaml_rust2::parser::{Event, MarkedEventReceiver, Parser};
use yaml_rust2::scanner::Marker;

use super::account::{Account, Permission, Rules};
use super::addresses::Addresses;
use super::signature::Secret;
use crate::limits;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plain {
    /// From there nobody need sign.
    pub(super) trusted: Vec<Addresses>,
    /// The accounts.
    pub(super) accounts: BTreeMap<Box<str>, Account>,
}

/// What is wrong with a file, with its line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct BadAcl {
    pub(super) line: usize,
    pub(super) what: String,
}

fn bad<T>(line: usize, what: impl Into<String>) -> Result<T, BadAcl> {
    Err(BadAcl { line, what: what.into() })
}

/// A piece of YAML. What a value looks like to YAML does not count: `12345678` and `0012` are texts, as they are to the clients.
#[derive(Debug)]
struct Node {
    line: usize,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Reads a file's text.
pub(super) fn read(text: &str) -> Result<Plain, BadAcl> {
    let mut plain = Plain::default();
    let Some(root) = parse(text)? else { return Ok(plain) };
    for (key, value) in pairs(root, "globalWhiteRemoteAddresses and accounts")? {
        match key.as_str() {
            "globalWhiteRemoteAddresses" => {
                for one in items(value)? {
                    let line = one.line;
                    let address = text_of(one)?;
                    if !address.is_empty() {
                        plain.trusted.push(parsed(line, &address)?);
                    }
                }
            }
            "accounts" => {
                for one in items(value)? {
                    let line = one.line;
                    let (name, account) = account(one)?;
                    if plain.accounts.insert(name.clone(), account).is_some() {
                        return bad(line, format!("account {name} is there twice"));
                    }
                }
            }
            // The original's tools count their changes there.
            "dataVersion" => {}
            other => return bad(value.line, format!("{other} is not understood")),
        }
    }
    let trusted_bytes = plain.trusted.iter().map(|addresses| addresses.to_string().len() + 2).sum::<usize>();
    if trusted_bytes + 8 > limits::ACCOUNT_BYTES_MAX {
        return bad(1, "more addresses are trusted than can be kept; stars and ranges say more with fewer");
    }
    if plain.accounts.len() > limits::ACCOUNT_COUNT_MAX {
        return bad(1, format!("more than {} accounts", limits::ACCOUNT_COUNT_MAX));
    }
    Ok(plain)
}

fn account(node: Node) -> Result<(Box<str>, Account), BadAcl> {
    let line = node.line;
    let (mut name, mut account) = (String::new(), Account { from_file: true, ..Account::new(Secret::new("")) });
    for (key, value) in pairs(node, "an account")? {
        let line = value.line;
        match key.as_str() {
            "accessKey" => name = text_of(value)?,
            "secretKey" => account.secret = Secret::new(&text_of(value)?),
            "whiteRemoteAddress" => {
                let address = match value.shape {
                    Shape::List(_) => {
                        let all: Result<Vec<_>, _> = items(value)?.into_iter().map(text_of).collect();
                        all?.join(",")
                    }
                    _ => text_of(value)?,
                };
                account.addresses = if address.is_empty() { None } else { Some(parsed(line, &address)?) };
            }
            "admin" => {
                account.admin = match text_of(value)?.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" => true,
                    "false" | "no" | "off" | "" => false,
                    other => return bad(line, format!("admin is {other:?}; true or false is wanted")),
                }
            }
            "defaultTopicPerm" => account.default_topic = permission(value)?,
            "defaultGroupPerm" => account.default_group = permission(value)?,
            "topicPerms" => account.topics = rules(value)?,
            "groupPerms" => account.groups = rules(value)?,
            other => return bad(line, format!("{other} is not understood")),
        }
    }
    match account.check(&name) {
        Ok(()) => Ok((name.into(), account)),
        Err(fault) => bad(line, fault.0),
    }
}

fn permission(node: Node) -> Result<Permission, BadAcl> {
    let line = node.line;
    match text_of(node)?.as_str() {
        "" => Ok(Permission::DENY),
        text => parsed(line, text),
    }
}

fn rules(node: Node) -> Result<Rules, BadAcl> {
    let mut rules = Rules::new();
    for one in items(node)? {
        let line = one.line;
        let text = text_of(one)?;
        let Some((name, permission)) = text.split_once('=') else {
            return bad(line, format!("{text:?} is no rule; NAME=PERMISSION is wanted"));
        };
        let name = name.trim();
        if rules.insert(name.into(), parsed(line, permission)?).is_some() {
            return bad(line, format!("{name} has two rules"));
        }
    }
    Ok(rules)
}

fn parsed<T: std::str::FromStr>(line: usize, text: &str) -> Result<T, BadAcl>
where
    T::Err: std::fmt::Display,
{
    text.parse().or_else(|error: T::Err| bad(line, error.to_string()))
}

/// A text; nothing at all is the empty one.
fn text_of(node: Node) -> Result<String, BadAcl> {
    match node.shape {
        Shape::Text(text) => Ok(text),
        Shape::List(_) | Shape::Map(_) => bad(node.line, "a text is wanted"),
    }
}

fn items(node: Node) -> Result<Vec<Node>, BadAcl> {
    match node.shape {
        Shape::List(items) => Ok(items),
        Shape::Text(text) if text.is_empty() => Ok(Vec::new()),
        Shape::Text(_) | Shape::Map(_) => bad(node.line, "a list is wanted"),
    }
}

fn pairs(node: Node, what: &str) -> Result<Vec<(String, Node)>, BadAcl> {
    let Shape::Map(pairs) = node.shape else { return bad(node.line, format!("names and values of {what} are wanted")) };
    let mut found: Vec<(String, Node)> = Vec::new();
    for (key, value) in pairs {
        let line = key.line;
        let key = text_of(key)?;
        if found.iter().any(|(other, _)| *other == key) {
            return bad(line, format!("{key} is there twice"));
        }
        found.push((key, value));
    }
    Ok(found)
}

/// Puts the parser's events together.
#[derive(Default)]
struct Builder {
    /// Lists and maps that are not ended; a map's key waits for its value.
    open: Vec<(Node, Option<Node>)>,
    root: Option<Node>,
    documents: usize,
    fault: Option<BadAcl>,
}

impl Builder {
    fn put(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Node { shape: Shape::List(items), .. }, _)) => items.push(node),
            Some((Node { shape: Shape::Map(pairs), .. }, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => pairs.push((key, node)),
            },
            // Only lists and maps are opened.
            Some((Node { shape: Shape::Text(_), .. }, _)) => {}
        }
    }
}

impl MarkedEventReceiver for Builder {
    fn on_event(&mut self, event: Event, mark: Marker) {
        let line = mark.line();
        match event {
            Event::Scalar(text, style, ..) => {
                let plain = matches!(style, yaml_rust2::scanner::TScalarStyle::Plain);
                let is_null = plain && matches!(text.as_str(), "~" | "null");
                self.put(Node { line, shape: Shape::Text(if is_null { String::new() } else { text }) });
            }
            Event::SequenceStart(..) => self.open.push((Node { line, shape: Shape::List(Vec::new()) }, None)),
            Event::MappingStart(..) => self.open.push((Node { line, shape: Shape::Map(Vec::new()) }, None)),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((node, _)) = self.open.pop() {
                    self.put(node);
                }
            }
            Event::DocumentStart => self.documents += 1,
            Event::Alias(_) => {
                let what = "a star begins an alias; write it in quotes".to_owned();
                self.fault.get_or_insert(BadAcl { line, what });
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
}

fn parse(text: &str) -> Result<Option<Node>, BadAcl> {
    let mut builder = Builder::default();
    let parsed = Parser::new_from_str(text).load(&mut builder, true);
    if let Err(error) = parsed {
        return bad(error.marker().line(), error.info().to_owned());
    }
    match builder.fault {
        Some(fault) => Err(fault),
        None if builder.documents > 1 => bad(1, "one document is wanted"),
        // A file that holds nothing but remarks holds an empty text.
        None => Ok(builder.root.filter(|root| !matches!(&root.shape, Shape::Text(text) if text.is_empty()))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// With every key of the original's, in its ways of writing.
    const FILE: &str = "\
globalWhiteRemoteAddresses:
  - 10.10.103.*
  - \"192.168.0.{1,2}\"

accounts:
  - accessKey: RocketMQ
    secretKey: 12345678
    whiteRemoteAddress:
    admin: false
    defaultTopicPerm: DENY
    defaultGroupPerm: SUB
    topicPerms:
      - topicA=DENY
      - topicB=PUB|SUB
      - 'orders-* = SUB'
    groupPerms:
      # a remark
      - groupA=DENY
  - accessKey: 'rocketmq2'
    secretKey: 0012345678
    whiteRemoteAddress: 192.168.1.*
    admin: true
dataVersion:
  - counter: 3
    timestamp: 1700000000000
";

    #[test]
    fn a_file_of_the_original_is_understood() {
        let plain = read(FILE).expect("good");
        let trusted: Vec<_> = plain.trusted.iter().map(ToString::to_string).collect();
        assert_eq!(trusted, ["10.10.103.*", "192.168.0.{1,2}"]);
        let [first, second] = ["RocketMQ", "rocketmq2"].map(|name| &plain.accounts[name]);
        assert_eq!((first.secret.text(), first.admin, first.from_file), ("12345678", false, true));
        assert_eq!(first.default_topic.to_string() + &first.default_group.to_string(), "DENYSUB");
        let shown = |rules: &Rules| rules.iter().map(|(name, is)| format!("{name}={is}")).collect::<Vec<_>>();
        assert_eq!(shown(&first.topics), ["orders-*=SUB", "topicA=DENY", "topicB=PUB|SUB"]);
        assert_eq!(shown(&first.groups), ["groupA=DENY"]);
        assert_eq!((second.secret.text(), second.admin), ("0012345678", true), "digits are a text");
        assert!(second.is_trusted_at("192.168.1.7".parse().expect("an address")));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let account = "accounts:\n- accessKey: someone\n  secretKey: 12345678\n";
        for (text, line, part) in [
            ("- a", 1, "accounts are wanted"),
            ("acounts:\n- a", 2, "acounts is not understood"),
            ("accounts: x", 1, "a list is wanted"),
            ("accounts:\n- accessKey: someone", 2, "secret key"),
            ("accounts:\n- secretKey: 12345678", 2, "access key"),
            (&format!("{account}  topicPerms:\n  - a"), 5, "no rule"),
            (&format!("{account}  topicPerms:\n  - a=PUBLISH"), 5, "no permission"),
            (&format!("{account}  topicPerms:\n  - a=PUB\n  - a=SUB"), 6, "two rules"),
            (&format!("{account}  admin: maybe"), 4, "true or false"),
            (&format!("{account}  whiteRemoteAddress: host"), 4, "no address"),
            (&format!("{account}  namespacePerms: []"), 4, "namespacePerms is not understood"),
            (&format!("{account}- accessKey: someone\n  secretKey: 12345678"), 4, "twice"),
            (&format!("{account}  secretKey: other678"), 4, "twice"),
            ("globalWhiteRemoteAddresses:\n- *", 2, ""),
            ("accounts: [", 1, ""),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.what.contains(part), "{text:?}: {error}");
            assert!(part.is_empty() || error.line == line, "{text:?}: {error}");
            assert!(!error.to_string().contains("12345678"), "{error}");
        }
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["", "# nobody\n", "accounts:\n", "globalWhiteRemoteAddresses: []\naccounts: ~"] {
            assert_eq!(read(text), Ok(Plain::default()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r"[a:\-\[\]{}\n *&'|#?]{0,60}") {
            let _any = read(&text);
        }
    }
}
