//! Consumer groups: who is in them, what they subscribe, and who is told when that changes.
//!
//! 1. The list of a group's members holds whoever asks for it, once its heartbeat was answered.
//! 2. Every member hears of each join, leave and change of subscription; clients that miss it find out within their own 20 s.
//! 3. A group is made when it is first heard of, together with its retry topic.

mod filter;
mod handler;
mod registry;
mod settings;

pub use filter::{NotTags, TagFilter};
pub use handler::{check_config, list};
pub use registry::{Change, GroupConfig, GroupRules, Groups, Membership, Subscription};
pub use settings::{all_settings, delete, put, put_list, settings};

use crate::features::topics::{RETRY_PREFIX, name_fault};
use crate::limits;
use crate::shared::Shared;

/// Makes sure that the group and its retry topic exist; false when it may not be made.
#[must_use]
pub fn ensure(shared: &Shared, group: &str) -> bool {
    let config = match shared.state.groups.config(group) {
        Some(config) => config,
        None => {
            let named = !group.is_empty() && group.len() <= limits::GROUP_BYTES_MAX;
            if !shared.live.auto_create_groups() || !named || group.contains(['\0', '\u{1}', '\u{2}']) {
                return false;
            }
            let config = GroupConfig::default();
            shared.state.put_group(group, config);
            if shared.state.groups.config(group).is_none() {
                return false;
            }
            tracing::info!(group, "made a consumer group on demand");
            config
        }
    };
    let retry_topic = [RETRY_PREFIX, group].concat();
    if shared.state.topics.get(&retry_topic).is_none() && name_fault(&retry_topic).is_none() {
        // A group whose name is too long or too odd for one consumes without a retry topic.
        drop(shared.state.get_or_make_topic(&retry_topic, config.retry_topic()));
    }
    true
}

#[cfg(test)]
mod tests;
