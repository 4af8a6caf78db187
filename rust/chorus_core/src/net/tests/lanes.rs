//! Raft's lanes: order kept, losses counted, senders never held up.

use bytes::Bytes;
use tokio::time::timeout;

use super::kit::{PATIENCE, core, node, node_beside, node_with, until};

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_in_order_from_each_peer() {
    let a = node().await;
    let (b, c) = (node_beside(&a).await, node_beside(&a).await);
    let mut above = core(&a.net);
    let (lane_b, lane_c) = (b.net.lane(), c.net.lane());
    for n in 0..2000u32 {
        lane_b.send(a.peer(), Bytes::copy_from_slice(&n.to_be_bytes()));
        lane_c.send(a.peer(), Bytes::from([&n.to_be_bytes()[..], &[0; 300]].concat()));
    }
    let (mut from_b, mut from_c) = (0u32, 0u32);
    while from_b < 2000 || from_c < 2000 {
        let (peer, frame) = timeout(PATIENCE, above.frames.recv()).await.unwrap().unwrap();
        let next = if peer == b.peer() { &mut from_b } else { &mut from_c };
        assert_eq!(frame[..4], next.to_be_bytes());
        *next += 1;
    }
    assert_eq!(b.net.stats().lane_dropped + c.net.stats().lane_dropped, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_peer_loses_frames_and_is_dialled_when_known() {
    let a = node_with(|config| config.dht = false).await;
    let b = node_with(|config| config.dht = false).await;
    let mut above = core(&b.net);
    let lane = a.net.lane();
    lane.send(b.peer(), Bytes::from_static(b"nobody knows the way"));
    lane.send(a.peer(), Bytes::from_static(b"to myself"));
    until(|| a.net.stats().lane_dropped >= 2).await;
    a.net.dial(&b.address()).await.unwrap();
    let frame = timeout(PATIENCE, async {
        loop {
            lane.send(b.peer(), Bytes::from_static(b"now"));
            if let Ok(Some((peer, frame))) = timeout(std::time::Duration::from_millis(50), above.frames.recv()).await {
                assert_eq!(peer, a.peer());
                return frame;
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(&frame[..], b"now");
}
