//! What name servers tell of other brokers: routes, lists of topics, and whether they know a broker's topics as they are.
//!
//! Source: wire notes, section 2.8; what the original 5.3.3 answers.

use std::collections::BTreeMap;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::admin::DataVersion;
use super::body::{RouteBroker, RouteQueues};
use super::loose;
use super::object::Object;

/// Another broker that has queues of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Neighbour {
    /// Its name.
    pub broker: String,
    /// Its cluster.
    pub cluster: String,
    /// `host:port` by id; 0 is the master.
    pub addresses: BTreeMap<u64, String>,
    /// Queues that may be read.
    pub read_queues: u32,
    /// Queues that may be written.
    pub write_queues: u32,
    /// 4 read, 2 write, 1 a template for new topics.
    pub permissions: u32,
    /// Bits of unit deployments.
    pub sys_flag: u32,
}

impl Neighbour {
    /// Its queues, as a route has them.
    #[must_use]
    pub fn queues(&self) -> RouteQueues<'_> {
        RouteQueues {
            broker_name: &self.broker,
            read_queues: self.read_queues,
            write_queues: self.write_queues,
            permissions: self.permissions,
            sys_flag: self.sys_flag,
        }
    }

    /// Its addresses, as [`Neighbour::with_addresses`] wants them.
    #[must_use]
    pub fn addresses(&self) -> Vec<(u64, &str)> {
        self.addresses.iter().map(|(id, address)| (*id, address.as_str())).collect()
    }

    /// The broker, as a route has it.
    #[must_use]
    pub fn with_addresses<'a>(&'a self, addresses: &'a [(u64, &'a str)]) -> RouteBroker<'a> {
        RouteBroker { cluster: &self.cluster, name: &self.broker, addresses }
    }
}

/// Reads a route (105): every broker in it that has an address, in the order of their names. `None` for what is no route.
#[must_use]
pub fn read_route(body: &[u8]) -> Option<Vec<Neighbour>> {
    let body = loose::read(body)?;
    let brokers = body["brokerDatas"].as_array()?;
    let mut found: Vec<Neighbour> =
        body["queueDatas"].as_array()?.iter().filter_map(|queues| read_queues(queues, brokers)).collect();
    found.sort_unstable();
    found.dedup_by(|left, right| left.broker == right.broker);
    Some(found)
}

fn read_queues(queues: &Value, brokers: &[Value]) -> Option<Neighbour> {
    let number = |name: &str| queues[name].as_u64().and_then(|number| u32::try_from(number).ok());
    let name = queues["brokerName"].as_str()?;
    let broker = brokers.iter().find(|broker| broker["brokerName"].as_str() == Some(name))?;
    let address = |(id, address): (&String, &Value)| Some((id.parse().ok()?, address.as_str()?.to_owned()));
    let addresses: BTreeMap<u64, String> = broker["brokerAddrs"].as_object()?.iter().filter_map(address).collect();
    (!addresses.is_empty()).then(|| Neighbour {
        broker: name.to_owned(),
        cluster: broker["cluster"].as_str().unwrap_or_default().to_owned(),
        addresses,
        read_queues: number("readQueueNums").unwrap_or(0),
        write_queues: number("writeQueueNums").unwrap_or(0),
        permissions: number("perm").unwrap_or(0),
        sys_flag: number("topicSysFlag").or_else(|| number("topicSynFlag")).unwrap_or(0),
    })
}

/// Reads a list of topics (206). `None` for what is no list.
#[must_use]
pub fn read_topic_list(body: &[u8]) -> Option<Vec<String>> {
    let body = loose::read(body)?;
    let names = body["topicList"].as_array()?;
    Some(names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
}

/// Appends the body that asks whether this state of a broker's topics is known (322).
pub fn put_data_version(out: &mut BytesMut, version: DataVersion) {
    version.put(&mut Object::begin(out));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::body::{IdStyle, Route};
    use super::*;

    #[test]
    fn a_route_is_read_with_quoted_ids_and_with_bare_ones() {
        let other = Neighbour {
            broker: "b".to_owned(),
            cluster: "c".to_owned(),
            addresses: [(0, "10.0.0.1:10911".to_owned()), (1, "10.0.0.2:10911".to_owned())].into(),
            read_queues: 8,
            write_queues: 4,
            permissions: 6,
            sys_flag: 1,
        };
        let addresses = other.addresses();
        for ids in [IdStyle::Quoted, IdStyle::Bare] {
            let mut body = BytesMut::new();
            let (queues, brokers) = ([other.queues()], [other.with_addresses(&addresses)]);
            Route { queues: &queues, brokers: &brokers }.encode(&mut body, ids);
            assert_eq!(read_route(&body), Some(vec![other.clone()]));
        }
    }

    #[test]
    fn a_broker_without_an_address_is_none() {
        let body = json!({
            "brokerDatas": [{"brokerName": "a", "cluster": "c", "brokerAddrs": {}}],
            "queueDatas": [{"brokerName": "a", "perm": 6}, {"brokerName": "who", "perm": 6}, {"perm": 6}],
        });
        assert_eq!(read_route(body.to_string().as_bytes()), Some(vec![]));
        assert_eq!(read_route(b"{}"), None);
    }

    #[test]
    fn a_list_of_topics_is_read() {
        let body = json!({"brokerAddr": null, "topicList": ["T1", "%RETRY%g"]});
        let names = vec!["T1".to_owned(), "%RETRY%g".to_owned()];
        assert_eq!(read_topic_list(body.to_string().as_bytes()), Some(names));
        assert_eq!(read_topic_list(b"[]"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _route = read_route(&bytes);
            let _list = read_topic_list(&bytes);
        }
    }
}
