use anchorlog_engine::{BackendChoice, Engine, EngineOptions};

use super::*;

fn load(words: &[&str]) -> Result<Config, ConfigError> {
    match Order::from_words(["anchorlog", "broker"].iter().chain(words))? {
        Order::Broker(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

/// Loads with a file of this name and text.
fn load_file(name: &str, text: &str, words: &[&str]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(name);
    std::io::Write::write_all(&mut tempfile_at(&path), text.as_bytes()).expect("a file");
    let path = path.to_str().expect("text").to_owned();
    load(&[&["--config", &path], words].concat())
}

#[expect(clippy::disallowed_methods, reason = "a configuration file is not a durable one of the engine")]
fn tempfile_at(path: &std::path::Path) -> std::fs::File {
    std::fs::File::create(path).expect("a file")
}

#[test]
fn every_flag_can_stand_in_a_file_and_shows_its_default() {
    let command = broker_command();
    let flags: Vec<_> = command.get_arguments().filter_map(|flag| flag.get_long()).collect();
    assert_eq!(flags, options::NAMES);
    let defaults = load(&[]).expect("defaults").options;
    for (flag, (name, value)) in command.get_arguments().zip(defaults.values()) {
        let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let shown: Vec<_> =
            flag.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        if shown.is_empty() {
            assert!(help.ends_with(&format!("[default: {value}]")), "{name}: {help} / {value}");
        } else {
            assert_eq!(shown.join(" "), value, "{name}");
        }
        if !matches!(
            name,
            "config"
                | "advertise"
                | "retain-bytes"
                | "net-threads"
                | "name-servers"
                | "name-server-tls-ca"
                | "name-server-access-key"
                | "name-server-secret-key-file"
                | "on-dead-letter"
                | "acl-file"
                | "tls-cert"
                | "tls-key"
                | "tls-client-ca"
                | "metrics-listen"
                | "replicas"
                | "replica-key"
                | "replica-tls"
        ) {
            let mut copy = defaults.clone();
            assert_eq!(copy.set(name, &value), Ok(()), "{name}");
            assert_eq!(copy, defaults, "{name}");
        }
    }
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let text = "flush = \"async\"\nnet_threads = 3\nsegment-bytes = \"128MiB\"\nretain-bytes = \"1GiB\"\n";
    let config = load_file("a.toml", text, &["--segment-bytes", "32MiB"]).expect("good");
    let options = &config.options;
    assert_eq!((options.flush, options.net_threads), (FlushMode::Async, Some(3)));
    assert_eq!((options.segment_bytes, options.retain_bytes), (ByteSize(32 << 20), Some(ByteSize(1 << 30))));
    assert_eq!(options.broker_name, "broker-a");
    let summary = config.summary();
    for line in ["flush = async (file)", "segment-bytes = 32MiB (flag)", "broker-name = broker-a\n"] {
        assert!(summary.contains(line), "{line} in {summary}");
    }
}

#[test]
fn a_broker_conf_means_what_it_means_there() {
    let text = "brokerClusterName=Shop\nbrokerName=b1\nbrokerId=0\ndeleteWhen=04\nfileReservedTime=48\nbrokerRole=ASYNC_MASTER\n\
                flushDiskType=ASYNC_FLUSH\nflushIntervalCommitLog=200\nlistenPort=10911\nbrokerIP1=127.0.0.2\nstorePathRootDir=/data\n\
                autoCreateTopicEnable=false\ndefaultTopicQueueNums=16\nmapedFileSizeCommitLog=1073741824\nmaxMessageSize=65536\n\
                metricsExporterType=PROM\n";
    let config = load_file("broker.conf", text, &[]).expect("good");
    let options = &config.options;
    assert_eq!((options.cluster_name.as_str(), options.broker_name.as_str()), ("Shop", "b1"));
    assert_eq!((options.flush, options.flush_interval.to_string()), (FlushMode::Async, "200ms".to_owned()));
    assert_eq!(options.listen.to_string(), "127.0.0.1:10911");
    assert_eq!(options.advertise.as_ref().map(ToString::to_string).as_deref(), Some("127.0.0.2:10911"));
    assert_eq!((options.store.to_str(), options.auto_create_topics), (Some("/data"), false));
    assert_eq!((options.default_topic_queues, options.max_message_bytes), (16, ByteSize(65536)));
    assert_eq!(options.segment_bytes, ByteSize(1 << 30));
    let remarks = config.remarks().join("\n");
    for key in ["deleteWhen", "fileReservedTime", "brokerRole", "brokerId", "metricsExporterType"] {
        assert!(remarks.contains(&format!("{key} means nothing here")), "{key} in {remarks}");
    }
}

#[test]
fn a_mistyped_key_is_an_error_with_a_suggestion() {
    for (text, wanted) in [
        ("flushDiskTpye=SYNC_FLUSH", "broker.conf line 1: flushDiskTpye is not an option; did you mean flushDiskType?"),
        ("\nsegment_byte=1", "broker.conf line 2: segment_byte is not an option; did you mean segment-bytes?"),
        ("brokername=b", "did you mean broker-name?"),
        ("zzz=1", "zzz is not an option"),
    ] {
        let error = load_file("broker.conf", text, &[]).expect_err(text).to_string();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
    for key in ["enableFlyingSaucers", "storeEverythingTwice", "minimumReplicas"] {
        let error = load_file("broker.conf", &format!("{key}=1"), &[]).expect_err(key).to_string();
        assert!(error.ends_with(&format!("{key} is not an option")), "what only begins alike is not meant: {error}");
    }
}

#[test]
fn a_key_of_a_later_broker_conf_is_known_and_said_to_mean_nothing() {
    let keys = [
        "storeReplyMessageEnable=true",
        "litePullMessageThreadPoolNums=20",
        "ackMessageThreadPoolNums=3",
        "enableDetailStat=true",
        "timerWheelEnable=true",
        "timerPrecisionMs=1000",
        "diskSpaceWarningLevelRatio=90",
        "topicQueueLockNum=32",
        "totalReplicas=3",
        "dLegerGroup=g",
        "enableCompaction=true",
        "writeBufferHighWaterMark=0",
        "enableLmq=false",
    ];
    let config = load_file("broker.conf", &keys.join("\n"), &[]).expect("good");
    let remarks = config.remarks().join("\n");
    for key in keys {
        let (key, _) = key.split_once('=').expect("a pair");
        assert!(remarks.contains(&format!("{key} means nothing here: ")), "{key} in {remarks}");
    }
    assert!(!remarks.contains("not built yet"), "{remarks}");
    let config = load_file("broker.conf", "inSyncReplicas=3", &[]).expect("good");
    assert_eq!(config.options.copies, 3);
}

#[test]
fn what_does_not_hold_is_named_as_it_was_written_and_where() {
    for (text, wanted) in [
        ("\nmaxMessageSize=65536000", "broker.conf line 2: maxMessageSize = 65536000: 1B to 4MiB"),
        ("brokerRole=SYNC_MASTER", "broker.conf line 1: brokerRole = SYNC_MASTER: a leader or slave must know"),
        ("listenPort=1\nbindAddress=0.0.0.0", "broker.conf line 2: bindAddress = 0.0.0.0: anyone"),
        ("net_threads=100000", "broker.conf line 1: net_threads = 100000: 1 to 256 are possible"),
        ("log-level=inof", "broker.conf line 1: log-level = inof: inof is no level"),
    ] {
        let error = load_file("broker.conf", text, &[]).expect_err(text).to_string();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
    let error =
        load_file("broker.conf", "maxMessageSize=1024", &["--max-message-bytes", "5MiB"]).expect_err("too large");
    assert!(error.to_string().starts_with("command line: max-message-bytes = 5MiB: "), "{error}");
}

#[test]
fn promises_that_nobody_could_keep_stop_the_start() {
    for (text, part) in [
        ("brokerRole=SYNC_MASTER", "must know the others"),
        ("brokerRole=MASTER", "SLAVE is wanted"),
        ("namesrvAddr=10.0.0.1", "write HOST:PORT"),
        ("bindAddress=0.0.0.0", "--insecure"),
        ("maxMessageSize=8388608", "4MiB"),
        ("flush=sometimes", "sync, async"),
        ("flush-interval=10", "ms"),
        ("net-threads=0", "1 to 256"),
        ("broker-name=", "without blanks"),
        ("config=other.toml", "cannot name another"),
    ] {
        let error = load_file("broker.conf", text, &[]).expect_err(text).to_string();
        assert!(error.contains(part), "{text:?}: {error}");
    }
}

#[test]
fn replicas_that_could_not_keep_a_promise_stop_the_start() {
    let good = "role=leader\nreplica-id=a\nreplicas=a=127.0.0.1:9876+127.0.0.1:10912,b=127.0.0.1:9877+127.0.0.1:10913";
    let options = load_file("broker.conf", good, &[]).expect("good").options.to_options().expect("names that resolve");
    let replication = options.replication.expect("a role");
    assert_eq!(replication.others.iter().map(|other| other.id.as_str()).collect::<Vec<_>>(), ["b"], "not itself");
    for (words, part) in [
        (&["--copies", "3"][..], "2 to 2 are possible"),
        (&["--replica-listen", "0.0.0.0:10912"], "--replica-key"),
        (&["--replicas", "b=127.0.0.1:9876+10.0.0.2:10912"], "--replica-key"),
        (&["--replica-id", "no name"], "letters"),
        (&["--replicas", "a=127.0.0.1:1+127.0.0.1:2"], "must know the others"),
    ] {
        let error = load_file("broker.conf", good, words).expect_err(part).to_string();
        assert!(error.contains(part), "{words:?}: {error}");
    }
}

#[test]
fn listening_beyond_loopback_must_be_said_twice() {
    assert!(load(&["--listen", "0.0.0.0:9876"]).is_err());
    let config = load(&["--listen", "0.0.0.0:9876", "--insecure", "--advertise", "127.0.0.1:9876"]).expect("good");
    assert!(config.options.insecure);
    assert!(load_file("a.conf", "bindAddress=0.0.0.0\ninsecure=true", &[]).is_ok());
    for words in [&["--acl"][..], &["--acl-file", "x"], &["--tls-only", "--tls-cert", "c", "--tls-key", "k"]] {
        let words = [&["--listen", "0.0.0.0:9876", "--advertise", "127.0.0.1:9876"], words].concat();
        assert!(load(&words).is_ok(), "{words:?} keep somebody out");
    }
    let offered = ["--listen", "0.0.0.0:9876", "--tls-cert", "c", "--tls-key", "k"];
    let error = load(&offered).expect_err("who wants no TLS comes in").to_string();
    assert!(["--acl", "--tls-only", "--insecure"].iter().all(|way| error.contains(way)), "{error}");
    let config = load(&["--advertise", "192.0.2.1:9876"]).expect("good");
    assert!(config.remarks().join("\n").contains("only this machine can connect"));
}

#[test]
fn what_has_no_effect_is_said() {
    let config = load(&["--flush-interval", "10ms", "--ack-timeout", "5s"]).expect("good");
    let remarks = config.remarks();
    assert!(remarks.iter().any(|remark| remark.contains("flush-interval has no effect")), "{remarks:?}");
    assert!(remarks.iter().any(|remark| remark.contains("clients give up")), "{remarks:?}");
    let remarks = load(&["--metrics-listen", "0.0.0.0:9557"]).expect("good").remarks();
    assert!(remarks.iter().any(|remark| remark.contains("whoever connects there")), "{remarks:?}");
    assert_eq!(load(&["--metrics-listen", "127.0.0.1:9557"]).expect("good").remarks(), Vec::<String>::new());
    assert_eq!(load(&[]).expect("good").remarks(), Vec::<String>::new());
}

#[test]
fn options_reach_the_broker() {
    let words =
        ["--store=/tmp/x", "--listen=localhost:0", "--flush=async", "--net-threads=2", "--max-message-bytes=1KiB"];
    let options = load(&words).expect("good").options.to_options().expect("good");
    assert_eq!(options.message_bytes_max, 1024);
    assert_eq!((options.store.to_str(), options.network_threads), (Some("/tmp/x"), Some(2)));
    assert!(options.listen.ip().is_loopback());
    assert_eq!(options.cluster, "DefaultCluster");
}

#[test]
fn doors_that_could_not_be_shut_stop_the_start() {
    for (words, part) in [
        (&["--tls-cert", "c"][..], "tls-key"),
        (&["--tls-key", "k"], "tls-cert"),
        (&["--tls-only"], "nothing to show"),
        (&["--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a"], "tls-only"),
    ] {
        let error = load(words).expect_err(part).to_string();
        assert!(error.contains(part), "{words:?}: {error}");
    }
    let open = load(&["--tls-cert", "c", "--tls-key", "k", "--tls-only"]).expect("good");
    assert!(open.remarks().join("\n").contains("anyone who can connect"));
    let options = load_file("broker.conf", "aclEnable=true", &[]).expect("good").options.to_options().expect("good");
    assert!(options.acl && options.acl_file.is_none() && options.tls.is_none());
}

#[test]
fn what_a_log_was_made_with_is_shown_and_what_else_was_asked_for_is_said() {
    let store = tempfile::tempdir().expect("a directory");
    let store = store.path().join("log");
    let made = EngineOptions::default().with_segment_bytes(8 << 20).with_backend(BackendChoice::Threads);
    Engine::open(&store, made).expect("a log").close().expect("a clean end");
    let store = store.to_str().expect("text");
    let heeded = |words: &[&str]| {
        let mut config = load(&[&["--store", store], words].concat()).expect("good");
        config.heed_log().map(|()| config)
    };
    let config = heeded(&[]).expect("nothing else was asked for");
    assert!(config.summary().contains("segment-bytes = 8MiB (as the log was made)"), "{}", config.summary());
    assert_eq!(config.remarks(), Vec::<String>::new());
    let config = heeded(&["--segment-bytes", "64MiB", "--tail", "rewrite"]).expect("it keeps its own");
    assert!(config.summary().contains("segment-bytes = 8MiB (as the log was made)"), "{}", config.summary());
    assert!(config.remarks().join("\n").contains("segment-bytes = 64MiB has no effect: the log in"), "{config:?}");
    let error = heeded(&["--tail", "pad"]).expect_err("it is not padded").to_string();
    assert!(error.starts_with("command line: tail = pad: the log in") && error.contains("tail = rewrite"), "{error}");
    let mut config = load(&["--store", "/nowhere/at/all", "--tail", "pad"]).expect("good");
    assert_eq!(config.heed_log().map_err(|error| error.to_string()), Ok(()), "a new log has what is asked for");
    assert!(config.summary().contains("tail = pad (flag)"));
}
