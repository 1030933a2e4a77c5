//! Consumer groups: who is in them, what they subscribe, and who is told when that changes.
//!
//! 1. The list of a group's members holds whoever asks for it, once its heartbeat was answered.
//! 2. Every member hears of each join, leave and change of subscription; clients that miss it find out within their own 20 s.
//! 3. A group is made when it is first heard of, together with its retry topic.
//! 4. A queue belongs to the member that has its lock, else to the one that pulled it last. Another member's commits do not count: they
//!    speak of what it had before (K-69, K-72). Neither do those of a consumer that is no member yet, having come back after a cut. Who
//!    waits for the answer to a commit and has consumed nothing is somebody with a tool, and moves what he likes; what is moved back is
//!    said in the log (K-79). A queue that no member has is anybody's.
//! 5. Members that subscribe differently are named in the log, in the counters and to whoever asks. A group that is strict does not let a
//!    consumer in that differs from its members (K-38).

mod filter;
mod handler;
mod owners;
mod pulling;
mod registry;
mod settings;
mod show;

pub use filter::{Filter, NotTags, SQL92, TagFilter, Unusable};
pub use handler::{check_config, list};
pub use owners::{Commits, judge};
pub use registry::{
    Change, Committer, Difference, GroupConfig, GroupRules, Groups, Joined, Member, Membership, Refusal, Subscription,
    Subscriptions, Variant,
};
pub use settings::{all_settings, delete, put, put_list, settings};
pub use show::{set, show};

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
