//! Options seen and changed over the protocol.

use serde_json::json;

use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};

fn change(scene: &mut Scene, id: ConnectionId, text: &str) -> Answer {
    scene.ask(id, 25, &json!({}), text.as_bytes())
}

fn shown(scene: &mut Scene, id: ConnectionId) -> Vec<String> {
    let answer = scene.ask(id, 26, &json!({}), &[]);
    assert!(answer.field("version").starts_with("{\"counter\":"), "{}", answer.header);
    String::from_utf8(answer.body).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn a_live_option_is_in_force_with_its_answer() {
    let mut scene = Scene::new();
    let id = scene.connect();
    assert!(shown(&mut scene, id).contains(&"maxMessageSize=4194304".to_owned()));
    assert_eq!(scene.send(id, "T1", 0, "", &[7; 2000]).code(), 0);
    assert_eq!(
        change(&mut scene, id, "# smaller\nmaxMessageSize = 1024\n\nautoCreateSubscriptionGroup=false\n").code(),
        0
    );
    assert_eq!(scene.send(id, "T1", 0, "", &[7; 2000]).code(), 13);
    assert_eq!(scene.send(id, "T1", 0, "", &[7; 1024]).code(), 0);
    assert_eq!(scene.ask(id, 352, &json!({"group": "new"}), &[]).code(), 26);
    let shown = shown(&mut scene, id);
    for line in ["maxMessageSize=1024", "max-message-bytes=1KiB", "autoCreateSubscriptionGroup=false", "brokerName=b"] {
        assert!(shown.contains(&line.to_owned()), "{line} in {shown:?}");
    }
    change(&mut scene, id, "autoCreateSubscriptionGroup=true\n");
    assert_eq!(scene.ask(id, 352, &json!({"group": "new"}), &[]).code(), 0);
}

#[test]
fn topics_on_demand_can_be_switched_off_and_on() {
    let mut scene = Scene::new();
    let id = scene.connect();
    change(&mut scene, id, "autoCreateTopicEnable=false\n");
    assert_eq!(scene.send(id, "T1", 0, "", b"x").code(), 17);
    assert_eq!(scene.ask(id, 105, &json!({"topic": "TBW102"}), &[]).code(), 17);
    change(&mut scene, id, "autoCreateTopicEnable=true\ndefaultTopicQueueNums=2\n");
    assert_eq!(scene.send(id, "T1", 0, "", b"x").code(), 0);
    assert_eq!(scene.shared.state.topics.get("T1").expect("made").config.write_queues, 2);
}

#[test]
fn what_cannot_be_changed_is_refused_with_what_to_do_instead() {
    let mut scene = Scene::new();
    let id = scene.connect();
    for (text, code, says) in [
        ("maxMesageSize=1024", 1, "did you mean maxMessageSize?"),
        ("maxMessageSize=many", 1, "maxMessageSize = many"),
        ("maxMessageSize=1GiB", 1, "max-message-bytes = 1GiB"),
        ("flushDiskType=ASYNC_FLUSH", 3, "takes a restart"),
        ("fileReservedTime=1", 3, "means nothing here"),
        ("enablePropertyFilter=true", 3, "takes a restart"),
        ("nonsense", 1, "is not an option"),
    ] {
        let answer = change(&mut scene, id, &format!("transactionCheckMax=3\n{text}\n"));
        let remark = answer.header["remark"].as_str().expect("a remark");
        assert!(answer.code() == code && remark.contains(says), "{text}: {}", answer.header);
    }
    assert_eq!(scene.shared.live.transaction_check_max(), 15, "nothing of a refused change counts");
    assert_eq!(scene.ask(id, 318, &json!({}), b"listenPort=1\n").code(), 3);
    assert_eq!(scene.ask(id, 319, &json!({}), &[]).code(), 0);
}
