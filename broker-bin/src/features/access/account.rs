//! An account: what it signs with, and what it may do.
//!
//! A rule names a topic or a group, or the beginning of such names with a star behind it. The one that says most counts: the name itself,
//! then the longest beginning, then the account's default. A retry or dead-letter topic belongs to its group, unless a rule names it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::addresses::Addresses;
use super::needs::{Act, Thing};
use super::signature::Secret;
use crate::features::topics::{DEAD_LETTER_PREFIX, RETRY_PREFIX};
use crate::limits;

/// What may be done with a topic or as a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// Messages may be sent.
    pub publish: bool,
    /// Messages may be consumed.
    pub subscribe: bool,
}

impl Permission {
    /// Nothing.
    pub const DENY: Permission = Permission { publish: false, subscribe: false };

    fn allows(self, act: Act) -> bool {
        match act {
            Act::Publish => self.publish,
            Act::Subscribe => self.subscribe,
            Act::Either => self.publish || self.subscribe,
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.publish, self.subscribe) {
            (false, false) => "DENY",
            (true, false) => "PUB",
            (false, true) => "SUB",
            (true, true) => "PUB|SUB",
        })
    }
}

impl FromStr for Permission {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Permission, Fault> {
        match text.trim() {
            "DENY" => Ok(Permission::DENY),
            "PUB" => Ok(Permission { publish: true, subscribe: false }),
            "SUB" => Ok(Permission { publish: false, subscribe: true }),
            "PUB|SUB" | "SUB|PUB" => Ok(Permission { publish: true, subscribe: true }),
            other => {
                let other: String = other.chars().take(40).collect();
                Err(Fault(format!("{other:?} is no permission; DENY, PUB, SUB or PUB|SUB is wanted")))
            }
        }
    }
}

/// What is wrong with an account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// Rules by the names, or beginnings of names, that they hold for.
pub type Rules = BTreeMap<Box<str>, Permission>;

/// Somebody who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What it signs with.
    pub secret: Secret,
    /// Whether it may do everything that no rule of its own forbids.
    pub admin: bool,
    /// Whether it stands in the file: what stands there is changed there.
    pub from_file: bool,
    /// From there it need not sign, and may do everything.
    pub addresses: Option<Addresses>,
    /// What it may do with a topic that no rule names.
    pub default_topic: Permission,
    /// The same for groups.
    pub default_group: Permission,
    /// Rules for topics.
    pub topics: Rules,
    /// Rules for groups.
    pub groups: Rules,
}

impl Account {
    /// An account that may do nothing yet.
    #[must_use]
    pub fn new(secret: Secret) -> Account {
        Account {
            secret,
            admin: false,
            from_file: false,
            addresses: None,
            default_topic: Permission::DENY,
            default_group: Permission::DENY,
            topics: Rules::new(),
            groups: Rules::new(),
        }
    }

    /// What is wrong with an account of this name, if something is.
    ///
    /// # Errors
    /// Says it.
    pub fn check(&self, name: &str) -> Result<(), Fault> {
        let fail = |what: String| Err(Fault(what));
        let shown = || name.chars().take(40).collect::<String>();
        let good = |name: &str| !name.chars().any(|c| c.is_control() || c == '\0') && name.trim() == name;
        if !(1..=limits::ACCOUNT_NAME_BYTES_MAX).contains(&name.len()) || !good(name) {
            let most = limits::ACCOUNT_NAME_BYTES_MAX;
            return fail(format!("access key {:?}: 1 to {most} bytes without blanks around them are wanted", shown()));
        }
        let (least, most) = (limits::SECRET_BYTES_MIN, limits::SECRET_BYTES_MAX);
        if !(least..=most).contains(&self.secret.text().len()) {
            return fail(format!("the secret key of {}: {least} to {most} bytes are wanted", shown()));
        }
        for rule in self.topics.keys().chain(self.groups.keys()) {
            if !(1..=limits::GROUP_BYTES_MAX).contains(&rule.len()) || !good(rule) {
                let rule: String = rule.chars().take(40).collect();
                return fail(format!("account {}: a rule for {rule:?}, which is no name", shown()));
            }
        }
        if self.topics.len() + self.groups.len() > limits::RULES_PER_ACCOUNT_MAX {
            let most = limits::RULES_PER_ACCOUNT_MAX;
            return fail(format!(
                "account {} has more than {most} rules; end names with * to say more with fewer",
                shown()
            ));
        }
        if self.entry_bytes() > limits::ACCOUNT_BYTES_MAX {
            return fail(format!(
                "account {} is too large to be kept; end names with * to say more with fewer",
                shown()
            ));
        }
        Ok(())
    }

    /// Bytes that it takes in the table, at most.
    fn entry_bytes(&self) -> usize {
        let rules = self.topics.keys().chain(self.groups.keys()).map(|name| name.len() + 3).sum::<usize>();
        let addresses = self.addresses.as_ref().map_or(0, |addresses| addresses.to_string().len());
        rules + addresses + self.secret.text().len() + 32
    }

    /// Whether it need not sign from there.
    #[must_use]
    pub fn is_trusted_at(&self, address: IpAddr) -> bool {
        self.addresses.as_ref().is_some_and(|addresses| addresses.hold(address))
    }

    /// Whether it may do this.
    ///
    /// # Errors
    /// The name of the rule that forbids it.
    pub(super) fn may(&self, act: Act, thing: &Thing<'_>) -> Result<(), String> {
        let (what, act, rule, default) = match *thing {
            Thing::Topic(topic) => {
                let group = topic.strip_prefix(RETRY_PREFIX).or_else(|| topic.strip_prefix(DEAD_LETTER_PREFIX));
                match (find(&self.topics, topic), group) {
                    // What lies there is its group's, to consume and to put back.
                    (None, Some(group)) => return self.may(Act::Subscribe, &Thing::Group(group)),
                    (rule, _) => ("topic", act, rule, ("defaultTopicPerm", self.default_topic)),
                }
            }
            Thing::Group(group) => ("group", act, find(&self.groups, group), ("defaultGroupPerm", self.default_group)),
        };
        match rule {
            Some((_, permission)) if permission.allows(act) => Ok(()),
            Some((name, permission)) => Err(format!("{what} {name}={permission}")),
            None if self.admin || default.1.allows(act) => Ok(()),
            None => Err(format!("{}={}", default.0, default.1)),
        }
    }
}

/// The rule that says most of a name.
fn find<'a>(rules: &'a Rules, name: &str) -> Option<(&'a str, Permission)> {
    if let Some((name, permission)) = rules.get_key_value(name) {
        return Some((name, *permission));
    }
    let begins = |rule: &str| rule.strip_suffix('*').is_some_and(|beginning| name.starts_with(beginning));
    let fitting = rules.iter().filter(|(rule, _)| begins(rule));
    fitting.max_by_key(|(rule, _)| rule.len()).map(|(rule, permission)| (&**rule, *permission))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn rules(rules: &[(&str, &str)]) -> Rules {
        rules.iter().map(|(name, permission)| ((*name).into(), permission.parse().expect("a permission"))).collect()
    }

    fn account() -> Account {
        Account {
            default_group: "SUB".parse().expect("good"),
            topics: rules(&[("orders", "PUB"), ("orders-*", "SUB"), ("orders-secret*", "DENY"), ("%DLQ%g2", "DENY")]),
            groups: rules(&[("closed", "DENY"), ("g*", "PUB|SUB")]),
            ..Account::new(Secret::new("12345678"))
        }
    }

    #[test]
    fn the_rule_that_says_most_counts_and_a_denial_names_it() {
        let account = account();
        let may = |act, thing| account.may(act, &thing);
        assert_eq!(may(Act::Publish, Thing::Topic("orders")), Ok(()));
        assert_eq!(may(Act::Either, Thing::Topic("orders")), Ok(()));
        assert_eq!(may(Act::Subscribe, Thing::Topic("orders")), Err("topic orders=PUB".to_owned()));
        assert_eq!(may(Act::Subscribe, Thing::Topic("orders-1")), Ok(()));
        assert_eq!(may(Act::Publish, Thing::Topic("orders-1")), Err("topic orders-*=SUB".to_owned()));
        assert_eq!(may(Act::Either, Thing::Topic("orders-secret-1")), Err("topic orders-secret*=DENY".to_owned()));
        assert_eq!(may(Act::Publish, Thing::Topic("others")), Err("defaultTopicPerm=DENY".to_owned()));
        assert_eq!(may(Act::Subscribe, Thing::Group("any")), Ok(()));
        assert_eq!(may(Act::Subscribe, Thing::Group("closed")), Err("group closed=DENY".to_owned()));
    }

    #[test]
    fn a_group_s_own_topics_are_the_group_s() {
        let account = account();
        let may = |act, topic| account.may(act, &Thing::Topic(topic));
        assert_eq!(may(Act::Publish, "%RETRY%g1"), Ok(()));
        assert_eq!(may(Act::Subscribe, "%DLQ%g1"), Ok(()));
        assert_eq!(may(Act::Publish, "%RETRY%closed"), Err("group closed=DENY".to_owned()));
        assert_eq!(may(Act::Subscribe, "%DLQ%g2"), Err("topic %DLQ%g2=DENY".to_owned()));
    }

    #[test]
    fn an_admin_may_do_all_that_no_rule_of_its_own_forbids() {
        let admin =
            Account { admin: true, topics: rules(&[("closed", "DENY")]), ..Account::new(Secret::new("12345678")) };
        assert_eq!(admin.may(Act::Publish, &Thing::Topic("any")), Ok(()));
        assert_eq!(admin.may(Act::Publish, &Thing::Topic("closed")), Err("topic closed=DENY".to_owned()));
    }

    #[test]
    fn permissions_are_written_as_the_original_writes_them() {
        for text in ["DENY", "PUB", "SUB", "PUB|SUB"] {
            assert_eq!(text.parse::<Permission>().expect(text).to_string(), text);
        }
        assert_eq!(" SUB|PUB ".parse::<Permission>().expect("good").to_string(), "PUB|SUB");
        for text in ["", "pub", "ANY", "PUB,SUB"] {
            assert!(text.parse::<Permission>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_could_not_be_kept_is_refused() {
        let good = account();
        assert_eq!(good.check("name"), Ok(()));
        for name in ["", " a", "a\n", &"a".repeat(300)] {
            assert!(good.check(name).is_err(), "{name}");
        }
        let short = Account::new(Secret::new("123456"));
        assert!(short.check("name").expect_err("short").0.contains("secret key"), "and does not show it");
        let many = (0..2000).map(|n| (format!("t{n}").into(), Permission::DENY)).collect();
        assert!(Account { topics: many, ..account() }.check("name").is_err());
        let long = (0..100).map(|n| (format!("{n:0250}").into(), Permission::DENY)).collect();
        assert!(Account { topics: long, ..account() }.check("name").is_err());
    }
}
