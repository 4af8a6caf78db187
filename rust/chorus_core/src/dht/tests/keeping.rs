//! Records outlive restarts, agents that go, and reach agents that come.

use super::kit::{Node, Options, connected, content, mesh, node, routed, until};
use crate::{Error, dht::record::AGENT_KEPT_MS, net::shared::now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn the_third_reads_all_when_two_are_gone_for_good() {
    let [a, b, c] = mesh().await;
    let mut all = Vec::new();
    for (at, node) in [&a, &b, &c].into_iter().enumerate() {
        for n in 0..50 {
            let (name, value) = content(&format!("record {n} of {at}"));
            let kind = if n % 2 == 0 { "decision" } else { "content" };
            let written = node.dht.put(kind, &name, &value, None).await.unwrap();
            assert!(written.replicas >= 1);
            all.push((kind, name, value));
        }
    }
    // Each was acknowledged by one other at least; the last of them may still be on their way to the third.
    until("the third holds all", || c.dht.usage().unwrap().records == 150).await;
    drop((a.stop().await, b.stop().await));
    let c = Node::alone(c.stop().await, &[]).await;
    for (kind, name, value) in all {
        assert_eq!(&c.dht.get(kind, &name, &[]).await.unwrap().bytes[..], &value[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_is_given_what_it_should_hold() {
    let [a, b] = mesh().await;
    let mut keys = Vec::new();
    for n in 0..60 {
        let (name, value) = content(&format!("before {n}"));
        keys.push(a.dht.put("content", &name, &value, None).await.unwrap().key);
    }
    until("both hold all", || b.dht.usage().unwrap().records == 60).await;
    // The author goes: the other one still brings the newcomer up to date.
    a.stop().await;
    let c = node(&[&b]).await;
    until("the newcomer holds all", || keys.iter().all(|key| c.holds(key))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_reaches_agents_that_one_is_not_connected_to() {
    // A row: each knows the one before.
    let a = node(&[]).await;
    let b = node(&[&a]).await;
    let c = node(&[&b]).await;
    let d = node(&[&c]).await;
    let (name, value) = content("far away");
    let key = a.dht.put("content", &name, &value, None).await.unwrap().key;
    a.dht.put("agent", &a.peer().to_string(), b"me", None).await.unwrap();
    assert!(!c.holds(&key) && !d.holds(&key));
    assert_eq!(&d.dht.get("content", &name, &[]).await.unwrap().bytes[..], &value[..]);
    assert_eq!(&d.dht.get("agent", &a.peer().to_string(), &[]).await.unwrap().bytes[..], b"me");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_given_what_it_missed() {
    let [a, b] = mesh().await;
    let gone = b.peer();
    let away = b.stop().await;
    // Until then it counts as one that must take what is written.
    until("it is known to be gone", || !a.net.connected(&gone)).await;
    let mut keys = Vec::new();
    for n in 0..10 {
        let (name, value) = content(&format!("missed {n}"));
        keys.push(a.dht.put("content", &name, &value, None).await.unwrap().key);
    }
    let b = Node::alone(away, &[&a]).await;
    connected(&b, &a).await;
    routed(&a, &b).await;
    until("it holds all", || keys.iter().all(|key| b.holds(key))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_records() {
    let node = Node::start(Options { dht: false, ..Options::default() }, &[]).await;
    let mut all = Vec::new();
    for n in 0..20 {
        let (name, value) = content(&format!("decision {n}"));
        node.dht.put("decision", &name, &value, None).await.unwrap();
        all.push((name, value));
    }
    assert!(matches!(node.dht.find(&format!("/chorus/decision/{}", all[0].0)).await, Err(Error::Unavailable(_))));
    let again = Node::start(Options { dht: false, ..node.stop().await }, &[]).await;
    for (name, value) in all {
        assert_eq!(&again.dht.get("decision", &name, &[]).await.unwrap().bytes[..], &value[..]);
    }
    assert_eq!(again.net.store().len().unwrap(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_of_itself_passes() {
    let [a, b] = mesh().await;
    let name = a.peer().to_string();
    let key = format!("/chorus/agent/{name}");
    let old = a.record("agent", &name, now_ms() - AGENT_KEPT_MS, None, b"old");
    assert!(matches!(b.net.store().keep(key.as_bytes(), old.clone().into()).await, Err(Error::Refused(_))));
    // One that lies on a disk is not given any more, and forgotten by a walk: this one, or that for a newcomer.
    b.net.store().plant(key.as_bytes(), &name, &old, now_ms() - 1);
    assert!(matches!(b.dht.get("agent", &name, &[]).await, Err(Error::NotFound(_))));
    b.net.store().walk(None, 10).unwrap();
    b.dht.flush().await;
    assert_eq!(b.net.store().len().unwrap(), 0);
}
