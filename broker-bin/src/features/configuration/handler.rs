//! 25, 26, 318, 319.

use bytes::BytesMut;

use crate::config::{Refusal, shown_options};
use crate::features::topics::{TEMPLATE, TopicConfig};
use crate::features::{Outcome, Reply, Request, code};
use crate::shared::Shared;
use crate::wire::admin::{DataVersion, put_properties};

/// 26: the options in force.
pub fn show(shared: &Shared) -> Outcome {
    let (args, changes, changed_ms) = shared.live.in_force();
    let shown = shown_options(&args);
    let mut body = BytesMut::new();
    put_properties(&mut body, shown.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let version = DataVersion { counter: changes, time_ms: changed_ms };
    Reply::body(body).with("version", version.to_text()).into()
}

/// 25: changes options until the next start.
pub fn change(shared: &Shared, request: &Request<'_>) -> Outcome {
    let Ok(text) = std::str::from_utf8(request.body) else {
        return Reply::failure(code::SYSTEM_ERROR, "the body is no text").into();
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    let pairs: Vec<_> = lines.map(|line| line.split_once('=').unwrap_or((line, ""))).collect();
    let pairs = pairs.iter().map(|(key, value)| (key.trim(), value.trim()));
    match shared.live.change(pairs, shared.engine.clock().wall_ms()) {
        Ok((changed, args)) => {
            for one in &changed {
                if matches!(one.name, "auto-create-topics" | "default-topic-queues") {
                    shared.state.topics.remove(TEMPLATE);
                    if args.auto_create_topics {
                        shared.state.topics.put(TEMPLATE, TopicConfig::template(args.default_topic_queues));
                    }
                }
                tracing::info!(option = one.name, value = one.value, asker = %request.peer, "an operator changed an option until the next start");
            }
            let remark = if changed.is_empty() { "nothing changed" } else { "in force until the next start" };
            Reply { remark: Some(remark.into()), ..Reply::default() }.into()
        }
        Err(refusal) => {
            let code = match refusal {
                Refusal::Unknown { .. } | Refusal::Value { .. } => code::SYSTEM_ERROR,
                Refusal::NoMeaning { .. } | Refusal::Restart { .. } => code::REQUEST_CODE_NOT_SUPPORTED,
            };
            Reply::failure(code, refusal.to_string()).into()
        }
    }
}

/// 319: what this broker has of a name server's options.
pub fn show_naming(shared: &Shared) -> Outcome {
    let (args, ..) = shared.live.in_force();
    let port = args.listen.port.to_string();
    let mut body = BytesMut::new();
    put_properties(
        &mut body,
        [
            ("bindAddress", args.listen.host.as_str()),
            ("enableAllTopicList", "true"),
            ("enableTopicList", "true"),
            ("listenPort", port.as_str()),
            ("orderMessageEnable", "false"),
        ],
    );
    Reply::body(body).into()
}

/// 318: there are no options of a name server alone.
pub fn change_naming() -> Outcome {
    let remark =
        "this broker is its own name server and has one set of options: change those (25, mqadmin updateBrokerConfig)";
    Reply::failure(code::REQUEST_CODE_NOT_SUPPORTED, remark).into()
}
