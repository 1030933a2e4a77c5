//! What the original's own tools ask of accounts: users and policies of 5.3 (3001 to 3010), and entries of `plain_acl.yml` of 4.9 (50, 51).
//!
//! | there | here |
//! |---|---|
//! | user, password | account, secret key; a password is never told |
//! | user type `Super` | admin |
//! | user status `disable` | refused: an account that may do nothing has no rules |
//! | policy of `Topic:T`, `Group:G`, also with a star behind | rule of that name |
//! | policy of `Topic:*`, `Group:*`, `*` | what holds where no rule does |
//! | `Allow` of `Pub`, `Sub`, `All` | `PUB`, `SUB`, `PUB\|SUB` |
//! | `Deny` of all of that | `DENY` |
//! | `Deny` of a part, source addresses, clusters, actions of administrators, policies of type `Default` | refused |
//!
//! 1. What has no exact counterpart is refused in words, and then nothing is changed, also of what came with it.
//! 2. Of several policies the one that says most of a name counts alone: it does not fall back to those that say less. So an account never
//!    may more than there, and [`get_acl`] tells what holds.
//! 3. Accounts of the file are changed there.

use std::sync::Arc;

use super::account::{Account, Permission, Rules};
use super::handler::{changeable, keep_quietly, permission};
use super::signature::Secret;
use crate::features::operate::{missing, refused, told};
use crate::features::{Kept, Outcome, Reply, Request, Task, code};
use crate::shared::Shared;
use crate::wire::auth::{AclInfo, PolicyEntryInfo, PolicyInfo, UserInfo};
use crate::wire::operate;

const SUBJECT: &str = "User:";
const CUSTOM: &str = "Custom";
const TOPIC: &str = "Topic:";
const GROUP: &str = "Group:";

/// 3001: makes an account.
pub fn create_user(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = named(request, "username");
    change(shared, request, move |shared, body| {
        let (name, user) = (name?, body_of::<UserInfo>(body)?);
        if shared.state.accounts.get(&name).is_some() {
            return Err(refused(format!("the user {name} is there already")));
        }
        let Some(password) = &user.password else { return Err(refused("a user without a password")) };
        let mut account = Account::new(Secret::new(password));
        adjust(&mut account, &user)?;
        keep_quietly(shared, &name, account)
    })
}

/// 3002: changes what is said of an account.
pub fn update_user(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = named(request, "username");
    change(shared, request, move |shared, body| {
        let (name, user) = (name?, body_of::<UserInfo>(body)?);
        let mut account = changeable(&name, &*user_named(shared, &name)?)?;
        if let Some(password) = user.password.as_deref().filter(|password| !password.is_empty()) {
            account.secret = Secret::new(password);
        }
        adjust(&mut account, &user)?;
        keep_quietly(shared, &name, account)
    })
}

/// 3003: takes an account away.
pub fn delete_user(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = named(request, "username");
    change(shared, request, move |shared, _| {
        let name = name?;
        changeable(&name, &*user_named(shared, &name)?)?;
        remove(shared, &name);
        Ok(())
    })
}

/// 3004: tells an account, without its secret.
pub fn get_user(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = named(request, "username");
    look(name.and_then(|name| Ok(told(&user_info(&name, &*user_named(shared, &name)?)))))
}

/// 3005: tells those whose names have something in them.
pub fn list_users(shared: &Shared, request: &Request<'_>) -> Outcome {
    let part = request.field("filter").unwrap_or_default();
    let all = shared.state.accounts.all();
    let found = all.iter().filter(|(name, _)| name.contains(part)).map(|(name, account)| user_info(name, account));
    look(Ok(told(&found.collect::<Vec<_>>())))
}

/// 3006 and 3007: makes rules, or changes them.
pub fn put_acl(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = subject(request);
    change(shared, request, move |shared, body| {
        let (name, acl) = (name?, body_of::<AclInfo>(body)?);
        let mut account = changeable(&name, &*user_named(shared, &name)?)?;
        let mut count = 0;
        for policy in acl.policies.iter().flatten() {
            custom(policy.policy_type.as_deref())?;
            for entry in policy.entries.iter().flatten() {
                let resource = Resource::of(entry.resource.as_deref().unwrap_or_default())?;
                resource.put(&mut account, allowed(entry)?);
                count += 1;
            }
        }
        if count == 0 {
            return Err(refused("there is no policy in it"));
        }
        keep_quietly(shared, &name, account)
    })
}

/// 3008: takes a rule away, or all of an account's.
pub fn delete_acl(shared: &Shared, request: &Request<'_>) -> Outcome {
    let (name, resource) = (subject(request), request.field("resource").unwrap_or_default().to_owned());
    let kind = custom(request.field("policyType"));
    change(shared, request, move |shared, _| {
        let name = name?;
        kind?;
        let mut account = changeable(&name, &*user_named(shared, &name)?)?;
        let before = account.clone();
        if resource.is_empty() {
            (account.topics, account.groups) = (Rules::new(), Rules::new());
            Resource::Any.put(&mut account, Permission::DENY);
        } else {
            Resource::of(&resource)?.remove(&mut account);
        }
        if account == before {
            return Err(no_policy(&name));
        }
        keep_quietly(shared, &name, account)
    })
}

/// 3009: tells an account's rules.
pub fn get_acl(shared: &Shared, request: &Request<'_>) -> Outcome {
    look(subject(request).and_then(|name| {
        let account = user_named(shared, &name)?;
        acl_info(&name, &account, "").map(|acl| told(&acl)).ok_or_else(|| no_policy(&name))
    }))
}

/// 3010: tells the rules of those whose names, and for things whose names, have something in them.
pub fn list_acls(shared: &Shared, request: &Request<'_>) -> Outcome {
    let part = request.field("subjectFilter").unwrap_or_default();
    let part = part.strip_prefix(SUBJECT).unwrap_or(part);
    let resource = request.field("resourceFilter").unwrap_or_default();
    let all = shared.state.accounts.all();
    let found = all.iter().filter(|(name, _)| name.contains(part));
    look(Ok(told(&found.filter_map(|(name, account)| acl_info(name, account, resource)).collect::<Vec<_>>())))
}

/// 50: makes an account, or changes one, as an entry of `plain_acl.yml`.
pub fn put_entry(shared: &Shared, request: &Request<'_>) -> Outcome {
    let wished = Entry::of(request);
    change(shared, request, move |shared, _| {
        let Entry { name, secret, address, admin, defaults, rules } = wished?;
        let mut account = match (shared.state.accounts.get(&name), &secret) {
            (Some(before), _) => changeable(&name, &before)?,
            (None, Some(secret)) => Account::new(Secret::new(secret)),
            (None, None) => return Err(refused("a new account without a secret key")),
        };
        if let Some(secret) = &secret {
            account.secret = Secret::new(secret);
        }
        if let Some(address) = &address {
            account.addresses = if address.is_empty() { None } else { Some(address.parse().map_err(refused)?) };
        }
        account.admin = admin.unwrap_or(account.admin);
        let [default_topic, default_group] = defaults;
        account.default_topic = default_topic.unwrap_or(account.default_topic);
        account.default_group = default_group.unwrap_or(account.default_group);
        let [topics, groups] = rules;
        account.topics = topics.unwrap_or(account.topics);
        account.groups = groups.unwrap_or(account.groups);
        keep_quietly(shared, &name, account)
    })
}

/// 51: takes an account away.
pub fn delete_entry(shared: &Shared, request: &Request<'_>) -> Outcome {
    let name = named(request, "accessKey");
    change(shared, request, move |shared, _| {
        let name = name?;
        let account = shared.state.accounts.get(&name).ok_or_else(|| missing(format!("there is no account {name}")))?;
        changeable(&name, &account)?;
        remove(shared, &name);
        Ok(())
    })
}

/// What an entry of `plain_acl.yml` is to say; what is not said stays.
struct Entry {
    name: String,
    secret: Option<String>,
    address: Option<String>,
    admin: Option<bool>,
    defaults: [Option<Permission>; 2],
    rules: [Option<Rules>; 2],
}

impl Entry {
    fn of(request: &Request<'_>) -> Result<Entry, Reply> {
        let text = |name| request.field(name).filter(|text| !text.is_empty()).map(str::to_owned);
        if text("namespaceId").or_else(|| text("aclFileFullPath")).is_some() {
            return Err(refused("accounts made by a tool stand in no file"));
        }
        let default = |name| text(name).map(|text| permission(&text)).transpose();
        // `A=PUB,B=DENY`
        let rules = |name| {
            let Some(text) = text(name) else { return Ok(None) };
            let rule = |part: &str| {
                let (name, is) =
                    part.split_once('=').ok_or_else(|| refused(format!("{part:?} is no NAME=PERMISSION")))?;
                Ok::<_, Reply>((name.trim().into(), permission(is)?))
            };
            text.split(',').map(rule).collect::<Result<Rules, _>>().map(Some)
        };
        Ok(Entry {
            name: named(request, "accessKey")?,
            secret: text("secretKey"),
            address: request.field("whiteRemoteAddress").map(str::to_owned),
            admin: text("admin").map(|text| text == "true"),
            defaults: [default("defaultTopicPerm")?, default("defaultGroupPerm")?],
            rules: [rules("topicPerms")?, rules("groupPerms")?],
        })
    }
}

/// What a policy is about.
#[derive(Debug, PartialEq, Eq)]
enum Resource<'a> {
    Any,
    AnyTopic,
    AnyGroup,
    Topic(&'a str),
    Group(&'a str),
}

impl Resource<'_> {
    fn of(text: &str) -> Result<Resource<'_>, Reply> {
        let text = text.trim();
        if text == "*" {
            return Ok(Resource::Any);
        }
        // Also for kinds of things that there are not here.
        let name = |kind: &str| {
            let (before, rest) = text.split_at_checked(kind.len())?;
            before.eq_ignore_ascii_case(kind).then_some(rest).filter(|name| !name.is_empty())
        };
        match (name(TOPIC), name(GROUP)) {
            (Some("*"), _) => Ok(Resource::AnyTopic),
            (_, Some("*")) => Ok(Resource::AnyGroup),
            (Some(topic), _) => Ok(Resource::Topic(topic)),
            (_, Some(group)) => Ok(Resource::Group(group)),
            (None, None) => {
                let shown: String = text.chars().take(40).collect();
                Err(refused(format!("policies are for Topic:NAME, Group:NAME and *, not for {shown:?}")))
            }
        }
    }

    fn put(&self, account: &mut Account, permission: Permission) {
        match self {
            Resource::Any => (account.default_topic, account.default_group) = (permission, permission),
            Resource::AnyTopic => account.default_topic = permission,
            Resource::AnyGroup => account.default_group = permission,
            Resource::Topic(name) => drop(account.topics.insert((*name).into(), permission)),
            Resource::Group(name) => drop(account.groups.insert((*name).into(), permission)),
        }
    }

    fn remove(&self, account: &mut Account) {
        match self {
            Resource::Any | Resource::AnyTopic | Resource::AnyGroup => self.put(account, Permission::DENY),
            Resource::Topic(name) => drop(account.topics.remove(*name)),
            Resource::Group(name) => drop(account.groups.remove(*name)),
        }
    }
}

/// What an entry allows; refused where no rule says just that.
fn allowed(entry: &PolicyEntryInfo) -> Result<Permission, Reply> {
    if entry.source_ips.iter().flatten().any(|address| !address.trim().is_empty()) {
        return Err(refused("a rule holds wherever its account comes from: source addresses are not offered"));
    }
    let mut named = Permission::DENY;
    for action in entry.actions.iter().flatten() {
        match action.trim().to_ascii_lowercase().as_str() {
            "all" | "any" => named = Permission { publish: true, subscribe: true },
            "pub" => named.publish = true,
            "sub" => named.subscribe = true,
            _ => {
                let shown: String = action.chars().take(40).collect();
                return Err(refused(format!(
                    "rules are for Pub, Sub and All; {shown:?} is an administrator's (user type Super)"
                )));
            }
        }
    }
    let decision = entry.decision.as_deref().unwrap_or("Allow").trim();
    match decision.to_ascii_lowercase().as_str() {
        _ if named == Permission::DENY => Err(refused("a policy without actions")),
        "allow" => Ok(named),
        "deny" if named.publish && named.subscribe => Ok(Permission::DENY),
        "deny" => Err(refused("a rule denies all or nothing: deny Pub,Sub, or allow what may be done")),
        _ => Err(refused("a decision is Allow or Deny")),
    }
}

fn custom(kind: Option<&str>) -> Result<(), Reply> {
    match kind.filter(|kind| !kind.is_empty()) {
        Some(kind) if !kind.eq_ignore_ascii_case(CUSTOM) => {
            Err(refused("policies are of type Custom; what holds where no rule does is that of Topic:* and Group:*"))
        }
        _ => Ok(()),
    }
}

/// Does as the type and the status of a user say.
fn adjust(account: &mut Account, user: &UserInfo) -> Result<(), Reply> {
    let said = |text: &Option<String>| text.as_deref().unwrap_or_default().to_ascii_lowercase();
    match said(&user.user_type).as_str() {
        "" => {}
        "super" => account.admin = true,
        "normal" => account.admin = false,
        _ => return Err(refused("a user is of type Super or Normal")),
    }
    match said(&user.user_status).as_str() {
        "" | "enable" => Ok(()),
        "disable" => Err(refused("a user is not switched off here: take its rules away, or change its password")),
        _ => Err(refused("the status of a user is enable")),
    }
}

fn user_info(name: &str, account: &Account) -> UserInfo {
    let user_type = if account.admin { "Super" } else { "Normal" };
    UserInfo {
        username: Some(name.to_owned()),
        password: None,
        user_type: Some(user_type.to_owned()),
        user_status: Some("enable".to_owned()),
    }
}

/// The rules of an account whose names have something in them, if there are any.
fn acl_info(name: &str, account: &Account, part: &str) -> Option<AclInfo> {
    let rules = |kind: &'static str, rules: &Rules| {
        rules.iter().map(|(name, is)| (format!("{kind}{name}"), *is)).collect::<Vec<_>>()
    };
    // What may not be done where no rule says so is said by no policy there.
    let defaults = [(TOPIC, account.default_topic), (GROUP, account.default_group)];
    let defaults = defaults.into_iter().filter(|(_, is)| *is != Permission::DENY);
    let all = rules(TOPIC, &account.topics).into_iter().chain(rules(GROUP, &account.groups));
    let all = all.chain(defaults.map(|(kind, is)| (format!("{kind}*"), is)));
    let entries: Vec<_> = all.filter(|(resource, _)| resource.contains(part)).map(entry).collect();
    if entries.is_empty() {
        return None;
    }
    let policy = PolicyInfo { policy_type: Some(CUSTOM.to_owned()), entries: Some(entries) };
    Some(AclInfo { subject: Some(format!("{SUBJECT}{name}")), policies: Some(vec![policy]) })
}

fn entry((resource, is): (String, Permission)) -> PolicyEntryInfo {
    let (actions, decision): (&[&str], _) = match (is.publish, is.subscribe) {
        (false, false) => (&["All"], "Deny"),
        (true, true) => (&["Pub", "Sub"], "Allow"),
        (true, false) => (&["Pub"], "Allow"),
        (false, true) => (&["Sub"], "Allow"),
    };
    PolicyEntryInfo {
        resource: Some(resource),
        actions: Some(actions.iter().map(|action| (*action).to_owned()).collect()),
        source_ips: None,
        decision: Some(decision.to_owned()),
    }
}

fn named(request: &Request<'_>, field: &str) -> Result<String, Reply> {
    let name = request.field(field).unwrap_or_default();
    if name.is_empty() { Err(refused(format!("{field} is wanted"))) } else { Ok(name.to_owned()) }
}

fn subject(request: &Request<'_>) -> Result<String, Reply> {
    let subject = named(request, "subject")?;
    let name = subject.strip_prefix(SUBJECT).filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| refused(format!("a subject is written {SUBJECT}NAME")))
}

fn body_of<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Reply> {
    let unreadable = |error| Reply::failure(code::INVALID_PARAMETER, format!("the request {error}"));
    operate::read(body).map_err(unreadable)
}

fn user_named(shared: &Shared, name: &str) -> Result<Arc<Account>, Reply> {
    let missing = || Reply::failure(code::USER_NOT_EXIST, format!("there is no user {name}"));
    shared.state.accounts.get(name).ok_or_else(missing)
}

fn no_policy(name: &str) -> Reply {
    Reply::failure(code::POLICY_NOT_EXIST, format!("there is no such policy of user {name}"))
}

fn remove(shared: &Shared, name: &str) {
    shared.state.remove_account(name);
    tracing::info!(account = name, "an operator took the account away");
}

/// An answer that changes nothing.
fn look(answer: Result<Reply, Reply>) -> Outcome {
    answer.unwrap_or_else(|reply| reply).into()
}

/// Changes an account, and answers when that is durable.
fn change(
    shared: &Shared,
    request: &Request<'_>,
    work: impl FnOnce(&Shared, &[u8]) -> Result<(), Reply> + Send + 'static,
) -> Outcome {
    if shared.is_closing() {
        return Reply::failure(code::SERVICE_NOT_AVAILABLE, "the broker is stopping; nothing was done").into();
    }
    let body = request.body.to_vec();
    Outcome::Read(Task::new(move |shared, _| match work(shared, &body) {
        Ok(()) => Outcome::Recorded(Reply::success(), Kept::Names),
        Err(reply) => reply.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(decision: &str, actions: &[&str]) -> PolicyEntryInfo {
        PolicyEntryInfo {
            actions: Some(actions.iter().map(|action| (*action).to_owned()).collect()),
            decision: Some(decision.to_owned()),
            ..PolicyEntryInfo::default()
        }
    }

    #[test]
    fn what_a_rule_cannot_say_is_no_rule() {
        let is = |decision: &str, actions: &[&str]| allowed(&entry(decision, actions)).ok().map(|is| is.to_string());
        for (decision, actions, wanted) in [
            ("Allow", &["Pub"][..], Some("PUB")),
            ("allow", &["sub", "PUB"], Some("PUB|SUB")),
            ("Allow", &["All"], Some("PUB|SUB")),
            ("Deny", &["Any"], Some("DENY")),
            ("Deny", &["Pub", "Sub"], Some("DENY")),
            ("Deny", &["Pub"], None),
            ("Allow", &[], None),
            ("Deny", &[], None),
            ("Allow", &["Pub", "Delete"], None),
            ("Perhaps", &["Pub"], None),
        ] {
            assert_eq!(is(decision, actions).as_deref(), wanted, "{decision} {actions:?}");
        }
        let from = PolicyEntryInfo { source_ips: Some(vec!["10.0.0.1".to_owned()]), ..entry("Allow", &["Pub"]) };
        assert!(allowed(&from).is_err());
    }

    #[test]
    fn things_are_named_as_there() {
        for (text, wanted) in [
            ("*", Some(Resource::Any)),
            ("Topic:*", Some(Resource::AnyTopic)),
            ("group:*", Some(Resource::AnyGroup)),
            ("Topic:orders-*", Some(Resource::Topic("orders-*"))),
            ("Group:g", Some(Resource::Group("g"))),
            ("Topic:", None),
            ("Cluster:c", None),
            ("orders", None),
            ("", None),
            ("\u{e9}\u{e9}\u{e9}x", None),
        ] {
            assert_eq!(Resource::of(text).ok(), wanted, "{text}");
        }
    }

    /// What is told of a rule makes the same rule elsewhere.
    #[test]
    fn what_is_told_is_understood() {
        for text in ["DENY", "PUB", "SUB", "PUB|SUB"] {
            let is: Permission = text.parse().expect("good");
            assert_eq!(allowed(&super::entry(("Topic:T".to_owned(), is))).ok(), Some(is));
        }
    }
}
