//! A log and its copies, whatever the network does.

use crate::cluster::{Cluster, sync};

#[test]
fn what_is_acknowledged_is_on_both_machines_byte_for_byte() {
    let cluster = Cluster::started(&["one", "two"], sync(2));
    for number in 0..50_u8 {
        cluster.send(0, &[number; 1000]);
    }
    let letters = cluster.agree();
    assert_eq!(letters.len(), 50);
}
