//! How many replicas make a write or a read count, what is said when they are too few, and repairs.

use crate::{
    Error,
    dht::record::{self, NEVER},
    net::shared::now_ms,
};

use super::kit::{Node, content, give, mesh, node, refuse, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_enough_and_none_is_not() {
    let [a, b, c] = mesh().await;
    let (name, value) = content("one of two");
    c.behave(|request| {
        refuse(request.reply);
        None
    });
    let written = a.dht.put("content", &name, &value, None).await.unwrap();
    assert_eq!(written.replicas, 1);
    assert!(b.holds(&written.key));
    b.behave(|request| {
        refuse(request.reply);
        None
    });
    let (name, value) = content("none of two");
    match a.dht.put("content", &name, &value, None).await {
        Err(Error::QuorumFailed(why)) => assert!(why.contains("0 of 2") && why.contains("1 are needed"), "{why}"),
        outcome => unreachable!("{outcome:?}"),
    }
    // It is on the own disk all the same, and goes out when there is a chance.
    b.behave_well();
    let d = node(&[&a, &b, &c]).await;
    let key = format!("/chorus/content/{name}");
    until("the newcomer has it", || d.holds(&key)).await;
    until("nothing waits", || a.dht.usage().unwrap().pending == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_say_nothing_are_a_timeout() {
    let [a, b] = mesh().await;
    b.behave(|request| {
        // Kept open, never answered.
        std::mem::forget(request.reply);
        None
    });
    let (name, value) = content("silence");
    match a.dht.put("content", &name, &value, None).await {
        Err(Error::Timeout(why)) => assert!(why.contains("0 of 1"), "{why}"),
        outcome => unreachable!("{outcome:?}"),
    }
    assert!(matches!(a.dht.get("content", &content("unknown").0, &[]).await, Err(Error::Timeout(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_else_holds_is_remembered_across_a_restart() {
    let a = node(&[]).await;
    let (name, value) = content("alone");
    let written = a.dht.put("content", &name, &value, None).await.unwrap();
    assert_eq!(written.replicas, 0);
    assert_eq!(a.dht.usage().unwrap().pending, 1);
    let a = Node::alone(a.stop().await, &[]).await;
    assert_eq!(a.dht.usage().unwrap().pending, 1);
    let b = node(&[&a]).await;
    until("the next agent has it", || b.holds(&written.key)).await;
    until("nothing waits", || a.dht.usage().unwrap().pending == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_among_a_quorum_counts_and_the_rest_is_repaired() {
    let [a, b, c, d] = mesh().await;
    let name = a.peer().to_string();
    let key = format!("/chorus/agent/{name}");
    let now = now_ms();
    let (old, new) = (a.record("agent", &name, now - 1000, None, b"old"), a.record("agent", &name, now, None, b"new"));
    for (node, record) in [(&b, &old), (&c, &new)] {
        node.net.store().keep(key.as_bytes(), record.clone().into()).await.unwrap();
    }
    // Two of three others are a quorum, whichever answer first: the older one alone is not.
    a.behave(|request| {
        refuse(request.reply);
        None
    });
    assert_eq!(&d.dht.get("agent", &name, &[]).await.unwrap().bytes[..], b"new");
    let has = |node: &Node| {
        let records = node.net.store().get(key.as_bytes());
        records.iter().any(|one| record::check(key.as_bytes(), one, now).unwrap().header.version == now)
    };
    until("the older replica and the reader have the newest", || has(&b) && has(&d)).await;
    assert!(d.net.stats().dht_repaired >= 1);
    c.behave(|request| {
        refuse(request.reply);
        None
    });
    d.dht.flush().await;
    match d.dht.get("agent", &name, &[]).await {
        Err(Error::QuorumFailed(why)) => assert!(why.contains("1 of 3") && why.contains("2 are needed"), "{why}"),
        outcome => unreachable!("{outcome:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_tampered_replicas_are_given_the_good_record() {
    let [a, b, c, d] = mesh().await;
    let (name, value) = content("good");
    let key = format!("/chorus/content/{name}");
    let good = a.record("content", &name, now_ms(), None, &value);
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    a.net.store().plant(key.as_bytes(), &a.peer().to_string(), &good, NEVER);
    b.net.store().plant(key.as_bytes(), &a.peer().to_string(), &broken, NEVER);
    let refused = d.net.stats().dht_refused;
    // Both are asked before the one that has it.
    let slow = tokio::runtime::Handle::current();
    let record = bytes::Bytes::from(good.clone());
    a.behave(move |request| {
        if request.method != "get" {
            return Some(request);
        }
        let record = record.clone();
        slow.spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            give(request.reply, &[record]);
        });
        None
    });
    assert_eq!(&d.dht.get("content", &name, &[]).await.unwrap().bytes[..], &value[..]);
    assert!(d.net.stats().dht_refused > refused);
    let has = |node: &Node| node.net.store().get(key.as_bytes()).iter().any(|one| *one == good);
    until("all have the good one", || has(&b) && has(&c) && has(&d)).await;
}
