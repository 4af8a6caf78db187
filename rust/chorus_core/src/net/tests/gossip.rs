//! Gossip between real nodes: delivery, verdicts, what waits for listeners.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use libp2p::gossipsub::IdentTopic;
use tokio::time::timeout;

use super::kit::{PATIENCE, meet, node, node_beside, node_with, raw_swarm, until};
use crate::{
    Error,
    net::{GossipSubscription, NetHandle, Publish},
    wire::Draft,
};

fn tasks(n: usize) -> Publish {
    Publish {
        topic: "chorus/tasks".into(),
        kind: "task_announcement".into(),
        data: Bytes::from(format!("{{\"n\":{n}}}")),
        hop_count: None,
        priority: None,
        thread_id: None,
    }
}

/// A message on a topic that an agent joins only while somebody there listens.
fn to_developers(n: usize) -> Publish {
    Publish { topic: "chorus/role/developer".into(), ..tasks(n) }
}

pub fn listen(net: &NetHandle) -> GossipSubscription {
    net.subscribe(&["chorus/tasks".to_owned()], 4096)
}

async fn next(subscription: &mut GossipSubscription) -> serde_json::Value {
    let (gap, message) = timeout(PATIENCE, subscription.recv()).await.unwrap().unwrap();
    assert_eq!(gap, 0);
    serde_json::from_slice(&message.raw).unwrap()
}

/// Publishes until a subscriber of another node hears it: what goes out before all know who listens goes no further.
pub async fn heard(from: &NetHandle, n: usize, at: &mut GossipSubscription) -> serde_json::Value {
    timeout(PATIENCE, async {
        loop {
            from.publish(tasks(n)).await.unwrap();
            if let Ok(message) = timeout(Duration::from_millis(200), at.recv()).await {
                return serde_json::from_slice(&message.unwrap().1.raw).unwrap();
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_everybody_but_their_author() {
    let a = node().await;
    let (b, c) = (node_beside(&a).await, node_beside(&a).await);
    let (mut at_a, mut at_b, mut at_c) = (listen(&a.net), listen(&b.net), listen(&c.net));
    for subscription in [&mut at_a, &mut at_c] {
        let message = heard(&b.net, 1, subscription).await;
        assert_eq!(message["data"]["n"], 1);
        assert_eq!(message["from"], b.peer().to_string());
        assert_eq!(message["from_role"], "developer");
    }
    // b's own messages never came back: the first that it sees is a's.
    assert_eq!(heard(&a.net, 2, &mut at_b).await["data"]["n"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_beyond_every_queue_arrives_whole() {
    const BURST: usize = 10_000;
    let a = node().await;
    let b = node_beside(&a).await;
    let mut at_b = b.net.subscribe(&["chorus/tasks".to_owned()], 2 * BURST);
    // Before a knows that b listens, only so many messages are kept for it.
    heard(&a.net, BURST, &mut at_b).await;
    for n in 0..BURST {
        a.net.publish(tasks(n)).await.unwrap();
    }
    let mut missing: HashSet<usize> = (0..BURST).collect();
    while !missing.is_empty() {
        let n = usize::try_from(next(&mut at_b).await["data"]["n"].as_u64().unwrap()).unwrap();
        assert!(n == BURST || missing.remove(&n), "{n} came twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_hears_yet_is_kept_for_a_listener() {
    let a = node().await;
    let id = a.net.publish(to_developers(1)).await.unwrap();
    assert!(id.starts_with("held-"));
    assert_eq!(a.net.stats().pubsub_held, 1);
    let b = node_beside(&a).await;
    let mut at_b = b.net.subscribe(&["chorus/role/developer".to_owned()], 8);
    assert_eq!(next(&mut at_b).await["data"]["n"], 1);
    until(|| a.net.stats().pubsub_held == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_at_its_author() {
    let a = node().await;
    let mut wrong = tasks(1);
    wrong.kind = "vote".into();
    assert!(matches!(a.net.publish(wrong).await, Err(Error::Invalid(_))));
    let mut wrong = tasks(1);
    wrong.topic = "elsewhere".into();
    assert!(matches!(a.net.publish(wrong).await, Err(Error::Invalid(_))));
    let mut wrong = tasks(1);
    wrong.data = Bytes::from(format!("\"{}\"", "x".repeat(256 * 1024)));
    assert!(matches!(a.net.publish(wrong).await, Err(Error::TooLarge(_))));
}

/// Data that no reader could read, or that readers would read differently.
const SPOILED: [&[u8]; 5] = [
    b"{\"title\":\"\xff\xfe\"}",
    b"{\"title\":\"\\ud800\"}",
    b"{\"priority\":1e999}",
    b"{\"priority\":123456789012345678901234567890}",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
];

/// A member that speaks gossipsub itself, past our own checks.
#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_counted_by_reason_and_never_delivered() {
    use futures::StreamExt;
    let good = node().await;
    let mut at_good = listen(&good.net);
    let hostile = libp2p::identity::Keypair::generate_ed25519();
    let mut swarm = raw_swarm(&hostile);
    let own = hostile.public().to_peer_id().to_string();
    let topic = IdentTopic::new("chorus/tasks");
    swarm.behaviour_mut().gossip.subscribe(&topic).unwrap();
    swarm.dial(good.address().parse::<libp2p::Multiaddr>().unwrap()).unwrap();
    let now = crate::net::shared::now_ms();
    let draft = |from: &str, kind: &str, at: u64, hops: u32| {
        Draft {
            kind,
            from,
            timestamp_ms: at,
            data: b"{}",
            hop_count: Some(hops),
            from_role: None,
            priority: None,
            thread_id: None,
        }
        .write()
        .unwrap()
    };
    let mut messages = vec![
        b"not json".to_vec(),
        draft(&good.peer().to_string(), "task_cancel", now, 0),
        draft(&own, "task_cancel", now - 3_600_000, 0),
        draft(&own, "task_cancel", now, 9),
        draft(&own, "nonsense", now, 0),
    ];
    // Each of these ended a process of whoever heard it.
    let good_data = draft(&own, "task_cancel", now, 0);
    for data in SPOILED {
        let mut spoiled = good_data.clone();
        let at = spoiled.windows(2).position(|pair| pair == b"{}").unwrap();
        spoiled.splice(at..at + 2, data.iter().copied());
        messages.push(spoiled);
    }
    messages.push(good_data);
    messages.reverse();
    let driver = tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                _ = swarm.select_next_some() => {}
                _ = pause.tick() => {
                    if let Some(message) = messages.last()
                        && swarm.behaviour_mut().gossip.publish(topic.clone(), message.clone()).is_ok()
                    {
                        messages.pop();
                    }
                }
            }
        }
    });
    assert_eq!(next(&mut at_good).await["type"], "task_cancel");
    let stats = good.net.stats();
    assert_eq!(stats.rejected.get("schema"), Some(&(1 + SPOILED.len() as u64)), "{:?}", stats.rejected);
    for reason in ["forged", "clock", "hops", "unknown_type"] {
        assert_eq!(stats.rejected.get(reason), Some(&1), "{reason}: {:?}", stats.rejected);
    }
    assert_eq!(stats.pubsub_received, 1);
    assert!(!good.net.state().clock_skew);
    driver.abort();
}

/// Messages of a flood between two looks at the network.
const FLOOD_BATCH: usize = 50;

/// A raw member of gossipsub that publishes as fast as it can: broken, old, or good messages.
fn flood(at: &super::kit::Node, kind: &'static str) -> tokio::task::JoinHandle<()> {
    use futures::StreamExt;
    let target: libp2p::Multiaddr = at.address().parse().unwrap();
    tokio::spawn(async move {
        let hostile = libp2p::identity::Keypair::generate_ed25519();
        let mut swarm = raw_swarm(&hostile);
        let own = hostile.public().to_peer_id().to_string();
        let topic = IdentTopic::new("chorus/tasks");
        swarm.behaviour_mut().gossip.subscribe(&topic).unwrap();
        swarm.dial(target).unwrap();
        loop {
            let draft = Draft {
                kind: "task_cancel",
                from: &own,
                timestamp_ms: crate::net::shared::now_ms() - if kind == "clock" { 3_600_000 } else { 0 },
                data: b"{}",
                hop_count: None,
                from_role: None,
                priority: None,
                thread_id: None,
            };
            for _ in 0..FLOOD_BATCH {
                let message = if kind == "schema" { b"not json".to_vec() } else { draft.write().unwrap() };
                let _ = swarm.behaviour_mut().gossip.publish(topic.clone(), message);
            }
            let _ = timeout(Duration::from_millis(1), swarm.select_next_some()).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_floods_is_disconnected_and_its_relay_is_not() {
    for kind in ["schema", "clock", "rate"] {
        // Without the DHT nobody introduces the stranger to a: what a hears of it comes through b.
        let a = node_with(|config| config.dht = false).await;
        let address = a.address();
        let b = node_with(|config| {
            config.dht = false;
            config.bootstrap = vec![address];
        })
        .await;
        meet(&a, &b).await;
        let members = HashSet::from([a.peer(), b.peer()]);
        a.net.set_members(true, members.clone());
        b.net.set_members(true, members);
        let mut at_a = listen(&a.net);
        heard(&b.net, 1, &mut at_a).await;
        let flooding = flood(&b, kind);
        until(|| b.net.stats().peer_bans > 0).await;
        flooding.abort();
        // What of the flood was within its rate; then b is heard as before.
        while heard(&b.net, 2, &mut at_a).await["from"] != b.peer().to_string() {}
        assert!(b.net.stats().rejected.contains_key(kind));
        assert_eq!(a.net.stats().peer_bans, 0);
        assert!(a.net.connected(&b.peer()) && b.net.connected(&a.peer()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_topic_ends_its_messages() {
    let a = node().await;
    let b = node_beside(&a).await;
    let role = ["chorus/role/developer".to_owned()];
    let at_b = b.net.subscribe(&role, 10);
    let mut other = b.net.subscribe(&role, 10);
    a.net.publish(to_developers(1)).await.unwrap();
    assert_eq!(next(&mut other).await["data"]["n"], 1);
    drop((at_b, other));
    // Nobody listens any more: what is published now is held.
    timeout(PATIENCE, async {
        loop {
            if a.net.publish(to_developers(2)).await.unwrap().starts_with("held-") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_nodes_forwards() {
    // Without the DHT nobody introduces a to c: b has to pass it on.
    let a = node_with(|config| config.dht = false).await;
    let address = a.address();
    let b = node_with(|config| {
        config.dht = false;
        config.bootstrap = vec![address];
    })
    .await;
    let address = b.address();
    let c = node_with(|config| {
        config.dht = false;
        config.bootstrap = vec![address];
    })
    .await;
    meet(&a, &b).await;
    meet(&b, &c).await;
    // Nobody listens at b: it passes on all the same, and keeps nothing.
    let (_at_a, mut at_c) = (listen(&a.net), listen(&c.net));
    assert_eq!(heard(&a.net, 5, &mut at_c).await["from"], a.peer().to_string());
    assert!(!c.net.connected(&a.peer()));
    let stats = b.net.stats();
    assert!(stats.pubsub_received > 0);
    assert_eq!((stats.pubsub_held, stats.pubsub_gaps), (0, 0));
}
