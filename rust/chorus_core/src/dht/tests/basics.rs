//! Puts and gets as they should be, and each refusal with its own error.

use libp2p::{PeerId, identity::Keypair};

use super::kit::{Node, Options, content, mesh, node};
use crate::{Error, dht::key::content_hash};

#[tokio::test(flavor = "multi_thread")]
async fn what_one_puts_others_get() {
    let [a, b, c] = mesh().await;
    let (name, value) = content("we use redb");
    let written = a.dht.put("decision", &name, &value, Some("developer")).await.unwrap();
    assert_eq!(written.key, format!("/chorus/decision/{name}"));
    assert!((1..=2).contains(&written.replicas));
    let got = c.dht.get("decision", &name, &[]).await.unwrap();
    assert_eq!(
        (got.author, got.role.as_deref(), &got.bytes[..]),
        (a.peer().to_string(), Some("developer"), &value[..])
    );
    assert!(matches!(b.dht.get("decision", &content_hash(b"other"), &[]).await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_get_is_a_hit_or_a_miss() {
    let a = node(&[]).await;
    let (name, value) = content("counted");
    let count = || (a.net.stats().dht_cache_hits, a.net.stats().dht_cache_misses);
    assert!(a.dht.get("content", &name, &[]).await.is_err());
    assert_eq!(count(), (0, 1));
    a.dht.put("content", &name, &value, None).await.unwrap();
    for hits in 1..4 {
        a.dht.get("content", &name, &[]).await.unwrap();
        assert_eq!(count(), (hits, 1));
    }
    a.dht.flush().await;
    a.dht.get("content", &name, &[]).await.unwrap();
    assert_eq!(count(), (3, 2));
    // What cannot be a key is neither.
    assert!(a.dht.get("other", &name, &[]).await.is_err());
    assert_eq!(count(), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_own_error() {
    let a = node(&[]).await;
    let (name, value) = content("x");
    let put = |kind: &'static str, name: String, value: Vec<u8>| {
        let dht = a.dht.clone();
        async move { dht.put(kind, &name, &value, None).await }
    };
    let large = vec![0; crate::dht::VALUE_MAX_BYTES + 1];
    assert!(matches!(put("decision", content_hash(&large), large).await, Err(Error::TooLarge(_))));
    let block = vec![0; crate::dht::manifest::BLOCK_BYTES + 1];
    assert!(matches!(put("block", content_hash(&block), block).await, Err(Error::TooLarge(_))));
    assert!(matches!(put("decision", name.clone(), b"y".to_vec()).await, Err(Error::Invalid(_))));
    assert!(matches!(put("other", name.clone(), value.clone()).await, Err(Error::Invalid(_))));
    let stranger = PeerId::from(Keypair::generate_ed25519().public()).to_string();
    assert!(matches!(put("agent", stranger, value).await, Err(Error::NotPermitted(_))));
    assert!(matches!(a.dht.get("decision", &name, &[]).await, Err(Error::NotFound(_))));
    let many = vec![PeerId::random(); crate::dht::HINTS_MAX + 1];
    assert!(matches!(a.dht.get("decision", &name, &many).await, Err(Error::Invalid(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_record_has_one_writer_and_never_goes_back() {
    let [a, b] = mesh().await;
    let name = a.peer().to_string();
    a.dht.put("agent", &name, b"one", None).await.unwrap();
    let key = format!("/chorus/agent/{name}").into_bytes();
    let first = a.net.store().get(&key)[0].clone();
    let one = b.dht.get("agent", &name, &[]).await.unwrap();
    a.dht.put("agent", &name, b"two", None).await.unwrap();
    b.dht.flush().await;
    let two = b.dht.get("agent", &name, &[]).await.unwrap();
    assert_eq!((&one.bytes[..], &two.bytes[..]), (&b"one"[..], &b"two"[..]));
    assert!(two.version > one.version);
    for node in [&a, &b] {
        let stored = node.net.store().get(&key);
        assert!(matches!(node.net.store().keep(&key, first.clone()).await, Err(Error::Refused(_))));
        assert_eq!(node.net.store().get(&key), stored);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_role_a_value_stays_shut() {
    let a = node(&[]).await;
    let other = Node::start(Options { role: "observer", ..Options::default() }, &[&a]).await;
    let (name, value) = content("for developers");
    a.dht.put("decision", &name, &value, Some("developer")).await.unwrap();
    match other.dht.get("decision", &name, &[]).await {
        Err(Error::NotPermitted(why)) => assert!(why.contains("developer"), "{why}"),
        outcome => unreachable!("{outcome:?}"),
    }
    let architect = Node::start(Options { role: "architect", ..Options::default() }, &[&a, &other]).await;
    assert_eq!(&architect.dht.get("decision", &name, &[]).await.unwrap().bytes[..], &value[..]);
}
