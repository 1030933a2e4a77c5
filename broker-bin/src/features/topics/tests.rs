use super::*;

#[test]
fn queue_names_lead_back_to_their_topics() {
    for (topic, queue) in [("T", 0), ("%RETRY%g", u32::MAX)] {
        assert_eq!(topic_of(&queue_name(topic, queue)), Some((topic, queue)));
    }
    assert_eq!(topic_of(b"\x01system"), None);
    assert_eq!(topic_of(b""), None);
}

#[test]
fn only_names_that_every_client_can_decode_are_taken() {
    let long = "a".repeat(128);
    for bad in ["", " ", "a b", "é", "a\u{1}b", "a.b", &long] {
        assert!(name_fault(bad).is_some(), "{bad:?}");
    }
    for good in ["T1", "a-b_c|d", "%RETRY%g", &"a".repeat(127)] {
        assert_eq!(name_fault(good), None, "{good:?}");
    }
}

#[test]
fn a_topic_made_after_the_template_cannot_be_one_itself() {
    let template = TopicConfig::template(8);
    let made = template.inherited(4).expect("the template may be inherited");
    assert_eq!((made.read_queues, made.write_queues, made.perm), (4, 4, 6));
    assert_eq!(template.inherited(100).expect("inherits").write_queues, 8);
    assert_eq!(template.inherited(0).expect("inherits").write_queues, 1);
    assert!(made.inherited(4).is_none());
}
