//! Which messages of a topic a consumer wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::features::code;
use crate::features::sql::{self, Expression, NotSql};
use crate::wire::body::SubscriptionData;
use crate::wire::message::tag_hash;

/// The kind of an expression over properties, as clients name it.
pub const SQL92: &str = "SQL92";

/// What a subscription lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Messages by their tags.
    Tags(TagFilter),
    /// Messages by their properties.
    Sql(Arc<Expression>),
    /// Nothing can be said of it: whoever pulls by it is told why.
    Unusable(Unusable),
}

/// Why a subscription's messages cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The operator has not switched it on.
    #[error("this broker filters by tag only; {0} is not switched on (enable-property-filter)")]
    Off(Box<str>),
    /// There is no such kind of expression.
    #[error("{0} is no kind of filter: TAG and SQL92 are")]
    Unknown(Box<str>),
    /// It cannot be read.
    #[error("the expression cannot be read: {0}")]
    Unreadable(#[from] NotSql),
}

impl Unusable {
    /// The code for whoever brings it along, as the original has it.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Unusable::Off(_) => code::SYSTEM_ERROR,
            Unusable::Unknown(_) | Unusable::Unreadable(_) => code::SUBSCRIPTION_PARSE_FAILED,
        }
    }

    /// The code for who pulls by what a heartbeat said, which was not refused.
    #[must_use]
    pub fn code_afterwards(&self) -> i32 {
        match self {
            Unusable::Off(_) => code::SYSTEM_ERROR,
            Unusable::Unknown(_) | Unusable::Unreadable(_) => code::FILTER_DATA_NOT_EXIST,
        }
    }
}

impl Filter {
    /// Reads an expression of a kind. `sql`: whether expressions over properties are offered.
    ///
    /// # Errors
    /// Why it chooses nothing.
    pub fn parse(kind: &str, expression: &str, sql: bool) -> Result<Filter, Unusable> {
        match kind {
            SQL92 if !sql => Err(Unusable::Off(kind.into())),
            SQL92 => Ok(Filter::Sql(Arc::new(sql::parse(expression)?))),
            _ if !sql => Err(Unusable::Off(kind.into())),
            _ => Err(Unusable::Unknown(kind.into())),
        }
    }

    /// What a heartbeat subscribes.
    #[must_use]
    pub fn subscribed(data: &SubscriptionData, sql: bool) -> Filter {
        if !data.is_by_tag() {
            return Filter::parse(&data.expression_type, &data.expression, sql).unwrap_or_else(Filter::Unusable);
        }
        let mut filter = TagFilter::parse(Some(&data.expression)).unwrap_or_default();
        // Clients hash their tags themselves: whatever they mean by an expression, they get what they ask for.
        filter.widen(data.tag_hashes.iter().map(|hash| hash.cast_unsigned()));
        Filter::Tags(filter)
    }
}

/// A tag expression: everything, or any of some tags.
///
/// Messages are matched by the hash of their tag, which may pass too many and never too few, and those that are read by the tag itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagFilter {
    /// Hashes of the tags wanted; empty means every message.
    hashes: BTreeSet<u32>,
    /// The tags, with their hashes. What only a client's hash asks for is not here.
    tags: BTreeSet<(u32, Box<str>)>,
}

/// An expression that cannot be one of tags.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotTags(pub &'static str);

impl TagFilter {
    /// Wants every message.
    #[must_use]
    pub fn everything() -> TagFilter {
        TagFilter::default()
    }

    /// Reads `*`, nothing, or `A || B`.
    ///
    /// # Errors
    /// When tags are separated but none is named.
    pub fn parse(expression: Option<&str>) -> Result<TagFilter, NotTags> {
        let text = expression.unwrap_or_default().trim();
        if text.is_empty() || text == "*" {
            return Ok(TagFilter::everything());
        }
        let tags = text.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let tags: BTreeSet<(u32, Box<str>)> = tags.map(|tag| (tag_hash(tag), tag.into())).collect();
        if tags.is_empty() {
            return Err(NotTags("the subscription names no tag"));
        }
        Ok(TagFilter { hashes: tags.iter().map(|(hash, _)| *hash).collect(), tags })
    }

    /// Adds hashes that a client computed itself, to an expression that is not for everything.
    pub fn widen(&mut self, hashes: impl IntoIterator<Item = u32>) {
        if !self.hashes.is_empty() {
            self.hashes.extend(hashes);
        }
    }

    /// Whether every message is wanted.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether a message with this tag, whose hash matches, is wanted: another tag may have the hash of one that was asked for.
    #[must_use]
    pub fn wants(&self, tag: &str) -> bool {
        let hash = tag_hash(tag);
        let mut alike = self.tags.iter().filter(|(wanted, _)| *wanted == hash).peekable();
        alike.peek().is_none() || alike.any(|(_, wanted)| &**wanted == tag)
    }

    /// Whether a message with this tag hash is wanted.
    #[must_use]
    pub fn matches(&self, tag: u32) -> bool {
        self.hashes.is_empty() || self.hashes.contains(&tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_everything_or_some_tags() {
        for everything in [None, Some(""), Some("*"), Some(" * ")] {
            assert!(TagFilter::parse(everything).expect("tags").matches(0));
        }
        let filter = TagFilter::parse(Some("TagA||  B ")).expect("tags");
        assert!(filter.matches(2_598_919) && filter.matches(66));
        assert!(!filter.matches(0) && !filter.matches(65));
        assert!(TagFilter::parse(Some("||")).is_err());
    }

    #[test]
    fn a_tag_is_not_wanted_because_another_one_has_its_hash() {
        let mut filter = TagFilter::parse(Some("Aa || C")).expect("tags");
        assert_eq!(tag_hash("Aa"), tag_hash("BB"));
        assert!(filter.matches(tag_hash("BB")) && !filter.wants("BB"));
        assert!(filter.wants("Aa") && filter.wants("C"));
        // What a client asks for by a hash of its own is judged by that alone.
        filter.widen([77, tag_hash("E")]);
        assert!(filter.matches(tag_hash("E")) && filter.wants("E"));
        assert!(!filter.wants("BB"));
    }
}
