//! Which room answers which request. The only file that names them all.

use anchorlog_engine::WriteBatch;

use crate::features::{
    Outcome, Reply, Request, code, delay, groups, heartbeat, offsets, operate, order, pull, retry, routes, send,
    topics, transactions,
};
use crate::shared::Shared;
use crate::wire::codes::{private, request as ask};

/// Answers a request, or says what must be done first. Sends fill `batch`; heartbeats say in `joined` which groups the connection is in.
pub fn route(shared: &Shared, request: &Request<'_>, batch: &mut WriteBatch, joined: &mut Vec<Box<str>>) -> Outcome {
    let moves = matches!(request.header.code, ask::CONSUMER_SEND_MSG_BACK | ask::END_TRANSACTION | ask::RECALL_MESSAGE);
    if (moves || private::writes(request.header.code))
        && let Err(reason) = shared.admission()
    {
        return Reply::failure(code::SERVICE_NOT_AVAILABLE, reason).into();
    }
    match request.header.code {
        ask::SEND_MESSAGE | ask::SEND_MESSAGE_V2 | ask::SEND_BATCH_MESSAGE => send::send(shared, request, batch),
        ask::PULL_MESSAGE | ask::LITE_PULL_MESSAGE => pull::pull(shared, request),
        ask::CONSUMER_SEND_MSG_BACK => retry::send_back(shared, request),
        ask::QUERY_CONSUMER_OFFSET => offsets::query(shared, request),
        ask::UPDATE_CONSUMER_OFFSET => offsets::commit(shared, request),
        ask::LOCK_BATCH_MQ => order::lock(shared, request),
        ask::UNLOCK_BATCH_MQ => order::unlock(shared, request),
        ask::SEARCH_OFFSET_BY_TIMESTAMP => offsets::search_by_time(shared, request),
        ask::GET_MAX_OFFSET => offsets::max(shared, request),
        ask::GET_MIN_OFFSET => offsets::min(shared, request),
        ask::GET_EARLIEST_MSG_STORETIME => offsets::earliest_time(shared, request),
        ask::END_TRANSACTION => transactions::end(shared, request),
        ask::RECALL_MESSAGE => delay::recall(shared, request),
        ask::HEART_BEAT => heartbeat::beat(shared, request, joined),
        ask::UNREGISTER_CLIENT => heartbeat::farewell(shared, request),
        ask::GET_CONSUMER_LIST_BY_GROUP => groups::list(shared, request),
        ask::CHECK_CLIENT_CONFIG => groups::check_config(request),
        ask::UPDATE_AND_CREATE_TOPIC => topics::create(shared, request),
        ask::GET_ROUTEINFO_BY_TOPIC => routes::route(shared, request),
        ask::GET_BROKER_CLUSTER_INFO => routes::cluster(shared),
        ask::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => routes::topic_list(shared),
        private::TRANSACTION_LIST => operate::list_transactions(shared, request),
        private::TRANSACTION_SHOW => operate::show_transaction(shared, request),
        private::TRANSACTION_DECIDE => operate::decide_transaction(shared, request),
        private::DELAY_LIST => operate::list_delays(shared, request),
        private::DELAY_CANCEL => operate::cancel_delay(shared, request),
        private::DEAD_LETTER_GROUPS => operate::dead_letter_groups(shared, request),
        private::DEAD_LETTER_LIST => operate::list_dead_letters(shared, request),
        private::DEAD_LETTER_REPLAY => operate::replay_dead_letter(shared, request),
        other => {
            shared.counters.unknown_codes.add(1);
            Reply::failure(code::REQUEST_CODE_NOT_SUPPORTED, not_offered(other)).into()
        }
    }
}

/// What whoever asked can do instead.
fn not_offered(code: i32) -> String {
    let what = match code {
        ask::QUERY_MESSAGE | ask::VIEW_MESSAGE_BY_ID => "finding messages is not offered yet; pull them",
        ask::SEND_REPLY_MESSAGE | ask::SEND_REPLY_MESSAGE_V2 => "request and reply is not offered yet",
        _ => return format!("request code {code} is not offered by this broker"),
    };
    format!("request code {code}: {what}")
}
