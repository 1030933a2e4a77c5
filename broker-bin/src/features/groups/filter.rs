//! Which messages of a topic a consumer wants.

use std::collections::BTreeSet;

use crate::wire::message::tag_hash;

/// A tag expression: everything, or any of some tags.
///
/// Messages are matched by the hash of their tag, which may pass too many and never too few: clients look at the tag itself again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagFilter {
    /// Hashes of the tags wanted; empty means every message.
    hashes: BTreeSet<u32>,
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
        let hashes: BTreeSet<u32> =
            text.split("||").map(str::trim).filter(|tag| !tag.is_empty()).map(tag_hash).collect();
        if hashes.is_empty() {
            return Err(NotTags("the subscription names no tag"));
        }
        Ok(TagFilter { hashes })
    }

    /// Adds hashes that a client computed itself, to an expression that is not for everything.
    pub fn widen(&mut self, hashes: impl IntoIterator<Item = u32>) {
        if !self.hashes.is_empty() {
            self.hashes.extend(hashes);
        }
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
}
