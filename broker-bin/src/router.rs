//! Which room answers which request. The only file that names them all.

use anchorlog_engine::WriteBatch;

use crate::features::{
    Outcome, Reply, Request, access, code, configuration, delay, find, groups, heartbeat, inspect, offsets, operate,
    order, pull, relay, republish, reset, retry, routes, send, topics, transactions,
};
use crate::shared::Shared;
use crate::wire::codes::{private, request as ask};

/// Answers a request, or says what must be done first. Sends fill `batch`; heartbeats say in `joined` which groups the connection is in.
pub fn route(shared: &Shared, request: &Request<'_>, batch: &mut WriteBatch, joined: &mut Vec<Box<str>>) -> Outcome {
    let pass = match access::judge(shared, request) {
        Ok(pass) => pass,
        Err(reply) => return reply.into(),
    };
    let request = &Request { pass: Some(&pass), ..*request };
    let moves = matches!(request.header.code, ask::CONSUMER_SEND_MSG_BACK | ask::END_TRANSACTION | ask::RECALL_MESSAGE);
    if (moves || private::writes(request.header.code) || ask::changes_accounts(request.header.code))
        && let Err(reason) = shared.admission()
    {
        return Reply::failure(code::SERVICE_NOT_AVAILABLE, reason).into();
    }
    match request.header.code {
        ask::SEND_MESSAGE | ask::SEND_MESSAGE_V2 | ask::SEND_BATCH_MESSAGE => send::send(shared, request, batch),
        ask::SEND_REPLY_MESSAGE | ask::SEND_REPLY_MESSAGE_V2 => send::send(shared, request, batch),
        ask::PULL_MESSAGE | ask::LITE_PULL_MESSAGE => pull::pull(shared, request),
        ask::QUERY_MESSAGE => find::by_key(request),
        ask::VIEW_MESSAGE_BY_ID => find::by_place(request),
        ask::CONSUMER_SEND_MSG_BACK => retry::send_back(shared, request, batch),
        ask::QUERY_CONSUMER_OFFSET => offsets::query(shared, request),
        ask::UPDATE_CONSUMER_OFFSET => offsets::commit(shared, request),
        ask::LOCK_BATCH_MQ => order::lock(shared, request),
        ask::UNLOCK_BATCH_MQ => order::unlock(shared, request),
        ask::SEARCH_OFFSET_BY_TIMESTAMP => offsets::search_by_time(shared, request),
        ask::GET_MAX_OFFSET => offsets::max(shared, request),
        ask::GET_MIN_OFFSET => offsets::min(shared, request),
        ask::GET_EARLIEST_MSG_STORETIME => offsets::earliest_time(shared, request),
        ask::END_TRANSACTION => transactions::end(shared, request, batch),
        ask::RECALL_MESSAGE => delay::recall(shared, request),
        ask::HEART_BEAT => heartbeat::beat(shared, request, joined),
        ask::UNREGISTER_CLIENT => heartbeat::farewell(shared, request),
        ask::GET_CONSUMER_LIST_BY_GROUP => groups::list(shared, request),
        ask::CHECK_CLIENT_CONFIG => groups::check_config(shared, request),
        ask::UPDATE_AND_CREATE_TOPIC => topics::create(shared, request),
        ask::UPDATE_AND_CREATE_TOPIC_LIST => topics::create_list(shared, request),
        ask::GET_TOPIC_CONFIG => topics::settings(shared, request),
        ask::GET_ALL_TOPIC_CONFIG => topics::all_settings(shared),
        ask::DELETE_TOPIC_IN_BROKER => topics::delete(shared, request),
        ask::DELETE_TOPIC_IN_NAMESRV => topics::delete_route(shared, request),
        ask::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => groups::put(shared, request),
        ask::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => groups::put_list(shared, request),
        ask::GET_SUBSCRIPTIONGROUP_CONFIG => groups::settings(shared, request),
        ask::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::all_settings(shared),
        ask::DELETE_SUBSCRIPTIONGROUP => groups::delete(shared, request),
        ask::GET_TOPIC_STATS_INFO => inspect::topic_stats(shared, request),
        ask::GET_CONSUME_STATS => inspect::consume_stats(request),
        ask::GET_BROKER_CONSUME_STATS => inspect::broker_consume_stats(),
        ask::GET_CONSUMER_CONNECTION_LIST => inspect::consumer_connections(shared, request),
        ask::GET_PRODUCER_CONNECTION_LIST => inspect::producer_connections(shared, request),
        ask::GET_ALL_PRODUCER_INFO => inspect::producers(shared),
        ask::QUERY_TOPIC_CONSUME_BY_WHO => inspect::consumed_by(shared, request),
        ask::QUERY_CONSUME_TIME_SPAN => inspect::time_span(request),
        ask::QUERY_TOPICS_BY_CONSUMER => inspect::topics_of_group(shared, request),
        ask::QUERY_SUBSCRIPTION_BY_CONSUMER => inspect::subscription(shared, request),
        ask::QUERY_CONSUME_QUEUE => inspect::entries(shared, request),
        ask::VIEW_BROKER_STATS_DATA => inspect::statistics(shared, request),
        ask::GET_ALL_CONSUMER_OFFSET => inspect::all_offsets(shared),
        ask::GET_BROKER_RUNTIME_INFO => inspect::runtime_info(),
        ask::GET_CONSUMER_RUNNING_INFO => relay::running_info(shared, request),
        ask::CONSUME_MESSAGE_DIRECTLY => relay::consume_directly(shared, request),
        ask::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => relay::consumer_status(shared, request),
        ask::INVOKE_BROKER_TO_RESET_OFFSET => reset::reset(shared, request),
        ask::CLONE_GROUP_OFFSET => reset::clone_offsets(shared, request),
        ask::UPDATE_BROKER_CONFIG => configuration::change(shared, request),
        ask::GET_BROKER_CONFIG => configuration::show(shared),
        ask::UPDATE_NAMESRV_CONFIG => configuration::change_naming(),
        ask::GET_NAMESRV_CONFIG => configuration::show_naming(shared),
        ask::PUT_KV_CONFIG => routes::put_value(request),
        ask::GET_KV_CONFIG | ask::GET_KVLIST_BY_NAMESPACE => routes::value(request),
        ask::DELETE_KV_CONFIG => routes::delete_value(),
        ask::WIPE_WRITE_PERM_OF_BROKER => routes::wipe_writes(shared, request),
        ask::ADD_WRITE_PERM_OF_BROKER => routes::add_writes(shared, request),
        ask::GET_TOPICS_BY_CLUSTER => routes::topics_of_cluster(shared, request),
        ask::GET_SYSTEM_TOPIC_LIST_FROM_NS | ask::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => routes::own_topics(shared),
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
        private::MESSAGE_LIST => operate::list_messages(shared, request),
        private::TRACE => operate::trace(shared, request),
        private::REPUBLISH_SHOW => republish::show(shared, request),
        private::REPUBLISH_STEP => republish::step(shared, request),
        private::GROUP_SHOW => groups::show(shared, request),
        private::GROUP_SET => groups::set(shared, request),
        ask::UPDATE_AND_CREATE_ACL_CONFIG => access::tools::put_entry(shared, request),
        ask::DELETE_ACL_CONFIG => access::tools::delete_entry(shared, request),
        ask::AUTH_CREATE_USER => access::tools::create_user(shared, request),
        ask::AUTH_UPDATE_USER => access::tools::update_user(shared, request),
        ask::AUTH_DELETE_USER => access::tools::delete_user(shared, request),
        ask::AUTH_GET_USER => access::tools::get_user(shared, request),
        ask::AUTH_LIST_USER => access::tools::list_users(shared, request),
        ask::AUTH_CREATE_ACL | ask::AUTH_UPDATE_ACL => access::tools::put_acl(shared, request),
        ask::AUTH_DELETE_ACL => access::tools::delete_acl(shared, request),
        ask::AUTH_GET_ACL => access::tools::get_acl(shared, request),
        ask::AUTH_LIST_ACL => access::tools::list_acls(shared, request),
        private::ACCOUNT_LIST => access::list(shared, request),
        private::ACCOUNT_PUT => access::put(shared, request),
        private::ACCOUNT_DELETE => access::delete(shared, request),
        private::ACCOUNT_RULES => access::set_rules(shared, request),
        other => {
            shared.counters.unknown_codes.add(1);
            Reply::failure(code::REQUEST_CODE_NOT_SUPPORTED, not_offered(other)).into()
        }
    }
}

/// What whoever asked can do instead.
fn not_offered(code: i32) -> String {
    let what = match code {
        ask::GET_ALL_DELAY_OFFSET => {
            "levels of delay have no offsets: what is delayed is kept by its time (anchorlog delay)"
        }
        ask::QUERY_CORRECTION_OFFSET => {
            "offsets are not corrected for filters; ask for consume stats (208, mqadmin consumerProgress)"
        }
        ask::CLEAN_EXPIRED_CONSUMEQUEUE | ask::CLEAN_UNUSED_TOPIC | ask::DELETE_EXPIRED_COMMITLOG => {
            "nothing is to be cleaned: what is dropped goes at once (retain-bytes)"
        }
        ask::RESUME_CHECK_HALF_MESSAGE => {
            "what nobody decided is kept; anchorlog transaction shows it and takes the verdict"
        }
        ask::QUERY_ASSIGNMENT
        | ask::SET_MESSAGE_REQUEST_MODE
        | ask::POP_MESSAGE
        | ask::ACK_MESSAGE
        | ask::CHANGE_MESSAGE_INVISIBLETIME => "messages are pulled here, not popped: leave clientRebalance at true",
        52..=54 => {
            "trusted addresses, and accounts that a tool did not make, stand in a plain_acl.yml (acl-file); anchorlog user list shows what holds"
        }
        _ => return format!("request code {code} is not offered by this broker"),
    };
    format!("request code {code}: {what}")
}
