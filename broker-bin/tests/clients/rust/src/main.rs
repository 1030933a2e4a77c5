//! The Rust client, behind the command line every driver here has (see README.md).
#![recursion_limit = "512"]

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rocketmq_client_rust::*;
use rocketmq_model::common::consumer::consume_from_where::ConsumeFromWhere;
use rocketmq_model::common::message::MessageTrait;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_single::Message;
use rocketmq_runtime::{RuntimeConfig, RuntimeOwner};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

#[derive(serde::Deserialize)]
struct Plan {
    retry_seconds: u64,
    pace_ms: u64,
    timeout_ms: u64,
    open_limits: bool,
    messages: Vec<Item>,
}

#[derive(serde::Deserialize)]
struct Item {
    index: u64,
    tag: String,
    text: Option<String>,
    file: Option<String>,
    keys: Vec<String>,
    properties: BTreeMap<String, String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let owner = RuntimeOwner::plan(RuntimeConfig::default())?.build()?;
    let telemetry = rocketmq_observability::install_global(&Default::default())?;
    let context = owner.root_context().component("driver");
    let runtime = ClientRuntime::try_new(context, ClientRuntimeConfig::default(), telemetry.handle())?;
    match args[..] {
        ["send", namesrv, topic, plan, acked] => send(&runtime, namesrv, topic, plan.as_ref(), acked).await?,
        ["consume", namesrv, group, topics, expect, seconds, out, ref mode @ ..] => {
            let limit = Duration::from_secs(seconds.parse()?);
            consume(&runtime, namesrv, group, topics, expect.parse()?, limit, out, mode == ["orderly"]).await?;
        }
        _ => {
            let consume = "consume NAMESRV GROUP TOPICS EXPECT SECONDS OUT [orderly]";
            eprintln!("usage: send NAMESRV TOPIC PLAN ACKED | {consume}");
            std::process::exit(2);
        }
    }
    // Ends every task of the client at once: both commands have shut their half down already.
    std::process::exit(0);
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("fits")
}

async fn send(
    runtime: &Arc<ClientRuntime>,
    namesrv: &str,
    topic: &str,
    plan_file: &Path,
    acked: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let plan: Plan = serde_json::from_slice(&fs::read(plan_file)?)?;
    let mut builder = DefaultMQProducer::builder(runtime.clone())
        .producer_group(format!("PID_{topic}"))
        .name_server_addr(namesrv)
        .send_msg_timeout(u32::try_from(plan.timeout_ms)?)
        .retry_times_when_send_failed(0);
    if plan.open_limits {
        builder = builder.max_message_size(16 << 20).compress_msg_body_over_howmuch(i32::MAX as u32);
    }
    let mut producer = builder.build();
    producer.start().await?;
    let mut out = File::create(acked)?;
    for item in &plan.messages {
        let body = match &item.file {
            Some(file) => fs::read(plan_file.with_file_name(file))?,
            None => item.text.clone().unwrap_or_default().into_bytes(),
        };
        let mut line = Map::new();
        line.insert("index".into(), json!(item.index));
        line.insert("started".into(), json!(now_ms()));
        let end = Instant::now() + Duration::from_secs(plan.retry_seconds);
        for attempts in 1.. {
            line.insert("attempts".into(), json!(attempts));
            let result = producer.send_with_timeout(message(topic, item, &body), plan.timeout_ms).await;
            if record_result(&mut line, result) || Instant::now() >= end {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        line.insert("ended".into(), json!(now_ms()));
        writeln!(out, "{}", Value::Object(line))?;
        tokio::time::sleep(Duration::from_millis(plan.pace_ms)).await;
    }
    producer.shutdown().await;
    Ok(())
}

fn message(topic: &str, item: &Item, body: &[u8]) -> Message {
    let mut m = Message::builder()
        .topic(topic)
        .tags(item.tag.as_str())
        .keys(item.keys.clone())
        .body(body.to_vec())
        .build_unchecked();
    for (name, value) in &item.properties {
        m.put_user_property(name.as_str().into(), value.as_str().into()).expect("a name of our own");
    }
    m
}

/// Writes down what came of one attempt; true when the broker stored the message.
fn record_result(line: &mut Map<String, Value>, result: ClientResult<Option<SendResult>>) -> bool {
    let found = match &result {
        Ok(Some(r)) if r.send_status == SendStatus::SendOk => json!({
            "status": "acked",
            "msgId": r.msg_id.as_ref().map(|id| id.to_string()),
            "offsetMsgId": r.offset_msg_id,
            "queueId": r.message_queue.as_ref().map(|q| q.queue_id()),
            "queueOffset": r.queue_offset,
        }),
        Ok(Some(r)) => json!({ "status": format!("{:?}", r.send_status) }),
        Ok(None) => json!({ "status": "refused", "by": "client", "code": -1, "error": "no result" }),
        Err(e) => json!({
            "status": "refused",
            "by": if e.broker_response_code().is_some() { "broker" } else { "client" },
            "code": e.broker_response_code().unwrap_or(-1),
            "error": e.to_string(),
        }),
    };
    line.extend(found.as_object().cloned().unwrap_or_default());
    line["status"] == "acked"
}

struct Seen {
    out: File,
    keys: HashSet<String>,
    last: Instant,
}

impl Seen {
    fn take(&mut self, m: &MessageExt) {
        let body = m.body().unwrap_or_default();
        let digest: String = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
        let keys = m.get_keys().map(|k| k.to_string());
        let properties: BTreeMap<String, String> =
            m.properties().iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        self.keys.insert(format!("{} {keys:?}", m.topic()));
        let line = json!({
            "topic": m.topic().to_string(),
            "keys": keys,
            "tag": m.get_tags().map(|t| t.to_string()),
            "sha256": digest,
            "length": body.len(),
            "properties": properties,
            "queueId": m.queue_id(),
            "queueOffset": m.queue_offset(),
            "reconsumeTimes": m.reconsume_times(),
            "msgId": m.msg_id().to_string(),
            "sysFlag": m.sys_flag(),
            "at": now_ms(),
        });
        writeln!(self.out, "{line}").expect("the record can be written");
        self.last = Instant::now();
    }
}

#[expect(clippy::too_many_arguments, reason = "they are the command line, one to one")]
async fn consume(
    runtime: &Arc<ClientRuntime>,
    namesrv: &str,
    group: &str,
    topics: &str,
    expect: usize,
    limit: Duration,
    out: &str,
    orderly: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let seen = Arc::new(Mutex::new(Seen { out: File::create(out)?, keys: HashSet::new(), last: Instant::now() }));
    let mut consumer = DefaultMQPushConsumer::builder(runtime.clone())
        .consumer_group(group)
        .name_server_addr(namesrv)
        .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
        .consume_thread_min(1)
        .consume_thread_max(1)
        .build();
    for topic in topics.split(',') {
        consumer.subscribe(topic, "*").await?;
    }
    let taken = seen.clone();
    let take = move |ms: &[&MessageExt]| {
        let mut seen = taken.lock().expect("no panic while held");
        ms.iter().for_each(|m| seen.take(m));
    };
    if orderly {
        consumer.register_message_listener_orderly(move |ms: &[&MessageExt], _: &mut ConsumeOrderlyContext| {
            take(ms);
            Ok(ConsumeOrderlyStatus::Success)
        });
    } else {
        consumer.register_message_listener_concurrently(move |ms: &[&MessageExt], _: &ConsumeConcurrentlyContext| {
            take(ms);
            Ok(ConsumeConcurrentlyStatus::ConsumeSuccess)
        });
    }
    consumer.start().await?;
    let end = Instant::now() + limit;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let seen = seen.lock().expect("no panic while held");
        if seen.keys.len() >= expect && seen.last.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    consumer.shutdown().await;
    Ok(())
}
