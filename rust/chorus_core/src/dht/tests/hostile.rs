//! Peers that answer wrongly, write what they must not, or write without end.

use bytes::Bytes;
use libp2p::identity::Keypair;

use super::kit::{Node, Options, content, give, mesh, node, until};
use crate::{
    Error,
    dht::{Limits, SERVICE, key::content_hash, store::COPIES_PER_NAME},
    net::{Reply, shared::now_ms},
};
use std::time::Duration;

/// Has a node answer every `get` with these records.
fn always(node: &Node, records: Vec<Bytes>) {
    node.behave(move |request| {
        if request.method != "get" {
            return Some(request);
        }
        give(request.reply, &records);
        None
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_peer_answers_the_good_replica_is_found() {
    let [a, bad, reader] = mesh().await;
    let (name, value) = content("truth");
    let key = format!("/chorus/content/{name}");
    a.net.store().keep(key.as_bytes(), a.record("content", &name, now_ms(), None, &value).into()).await.unwrap();
    let (other, _) = content("something else");
    let answers = [
        Bytes::from_static(b"garbage"),
        Bytes::new(),
        vec![0xff; 127 * 1024].into(),
        // Longer than any record.
        vec![0; 200 * 1024].into(),
        // Somebody else's record, and a lie with a good signature.
        a.record("content", &other, 1, None, b"something else").into(),
        bad.record("content", &name, 1, None, b"lie").into(),
        // Sealed for nobody here.
        bad.record("content", &name, 1, Some("observer"), b"lie").into(),
    ];
    for answer in answers {
        always(&bad, vec![answer.clone(); 3]);
        let got = reader.dht.get("content", &name, &[]).await.unwrap();
        assert_eq!((&got.bytes[..], got.author), (&value[..], a.peer().to_string()));
        // The next one has to look again.
        reader.dht.flush().await;
        let away = content_hash(&answer);
        match reader.dht.get("content", &away, &[]).await {
            Err(Error::Tampered(_) | Error::NotFound(_)) => {}
            outcome => unreachable!("{outcome:?}"),
        }
        reader.net.store().plant(key.as_bytes(), &a.peer().to_string(), b"broken", now_ms() - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_are_refused_without_harm() {
    let [bad, reader] = mesh().await;
    let (name, _) = content("nowhere");
    let before = reader.net.stats().dht_refused;
    type Answer = (Bytes, Bytes);
    let answers: [Answer; 6] = [
        (Bytes::from_static(b"no json"), Bytes::new()),
        (Bytes::from_static(b"{}"), Bytes::new()),
        (Bytes::from_static(b"{\"records\":[18446744073709551615]}"), Bytes::from_static(b"x")),
        (Bytes::from_static(b"{\"records\":[1,1,1,1,1,1,1,1,1]}"), Bytes::from_static(b"xxxxxxxxx")),
        (Bytes::from_static(b"{\"records\":[]}"), Bytes::from_static(b"more")),
        // As much as a frame may hold.
        (Bytes::from_static(b"{\"records\":[16777216]}"), vec![1; 16 * 1024 * 1024].into()),
    ];
    let count = answers.len() as u64;
    for (head, payload) in answers {
        bad.behave(move |request| {
            let _ = request.reply.send(Ok(Reply { head: head.clone(), payload: payload.clone() }));
            None
        });
        let outcome = reader.dht.get("content", &name, &[]).await;
        assert!(matches!(outcome, Err(Error::Tampered(_))), "{outcome:?}");
    }
    assert_eq!(reader.net.stats().dht_refused, before + count);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_never_replaces_a_newer_one() {
    let [a, bad, reader] = mesh().await;
    let name = a.peer().to_string();
    let key = format!("/chorus/agent/{name}");
    let old = a.record("agent", &name, now_ms() - 5000, None, b"old");
    a.dht.put("agent", &name, b"new", None).await.unwrap();
    // The put is acknowledged by a quorum, which may be its author and the one that lies from here on.
    until("the reader holds it", || reader.holds(&key)).await;
    always(&bad, vec![old.clone().into()]);
    assert_eq!(&reader.dht.get("agent", &name, &[]).await.unwrap().bytes[..], b"new");
    assert!(matches!(reader.net.store().keep(key.as_bytes(), old.into()).await, Err(Error::Refused(_))));
    // Nobody writes another's record, nor one far in the future.
    let forged = bad.record("agent", &bad.peer().to_string(), now_ms(), None, b"mine");
    assert!(matches!(reader.net.store().keep(key.as_bytes(), forged.into()).await, Err(Error::Tampered(_))));
    let ahead = bad.record("agent", &bad.peer().to_string(), now_ms() + 48 * 3600 * 1000, None, b"ahead");
    let own = format!("/chorus/agent/{}", bad.peer());
    assert!(matches!(reader.net.store().keep(own.as_bytes(), ahead.into()).await, Err(Error::Tampered(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none_are_refused() {
    let [a, b] = mesh().await;
    let (name, value) = content("x");
    let good = a.record("content", &name, 1, None, &value);
    let long = serde_json::json!({"records": vec![serde_json::json!({"key": "k", "author": "a", "version": 1}); 257]});
    let key = |key: &str| serde_json::json!({"key": key}).to_string();
    let asks: [(&str, String, Vec<u8>, &str); 9] = [
        ("put", key(&format!("/chorus/other/{name}")), good.clone(), "invalid"),
        ("put", key("content"), good.clone(), "invalid"),
        ("put", key(&format!("/chorus/decision/{name}")), good.clone(), "tampered"),
        ("put", key(&format!("/chorus/content/{name}")), b"garbage".to_vec(), "tampered"),
        ("put", key(&format!("/chorus/content/{name}")), vec![0; 200 * 1024], "too_large"),
        ("put", "nothing".into(), good.clone(), "invalid"),
        ("get", key("\u{0}"), Vec::new(), "invalid"),
        ("lacks", long.to_string(), Vec::new(), "too_large"),
        ("drop", "{}".into(), Vec::new(), "invalid"),
    ];
    for (method, head, payload, code) in asks {
        let outcome = a
            .net
            .request(b.peer(), SERVICE, method, head.clone().into(), payload.into(), Duration::from_secs(30))
            .await;
        assert_eq!(outcome.unwrap_err().code(), code, "{method} {head:.80}");
    }
    assert_eq!(b.net.store().len().unwrap(), 0);
    let head = key(&format!("/chorus/content/{name}"));
    a.net.request(b.peer(), SERVICE, "put", head.into(), good.into(), Duration::from_secs(30)).await.unwrap();
    assert_eq!(b.net.store().len().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_fills_its_authors_share_and_no_more() {
    let limits = Limits { author_bytes: 20_000, foreign_bytes: 1_000_000 };
    let a = Node::start(Options { limits, ..Options::default() }, &[]).await;
    let flood = node(&[&a]).await;
    let member = node(&[&a]).await;
    a.dht.set_members([a.peer().to_string(), member.peer().to_string()]);
    let put = |author: &Node, text: String| {
        let (name, value) = content(&text);
        let record = author.record("content", &name, 1, None, &value);
        let (store, key) = (a.net.store(), format!("/chorus/content/{name}"));
        async move { store.keep(key.as_bytes(), record.into()).await }
    };
    let mut refused = None;
    for n in 0..200 {
        refused = put(&flood, format!("flood {n}")).await.err();
        if refused.is_some() {
            break;
        }
    }
    match refused {
        Some(Error::Refused(why)) => assert!(why.contains("quota"), "{why}"),
        outcome => unreachable!("{outcome:?}"),
    }
    // Fresh keys do not help: all who are no members share one quota.
    let other = Node::alone(Options { keypair: Keypair::generate_ed25519(), ..Options::default() }, &[]).await;
    // Sealed values differ in length by chance: this one is longer than what the flood may have left.
    assert!(matches!(put(&other, "another author".repeat(100)).await, Err(Error::Refused(_))));
    // A member and this agent itself have their own.
    put(&member, "a member's".into()).await.unwrap();
    for n in 0..100 {
        let (name, value) = content(&format!("own {n}"));
        let key = format!("/chorus/content/{name}");
        a.net.store().put(key.as_bytes(), a.record("content", &name, 1, None, &value).into()).await.unwrap();
    }
    // What is there stays there.
    let (name, value) = content("flood 0");
    assert_eq!(&a.dht.get("content", &name, &[]).await.unwrap().bytes[..], &value[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_cannot_be_occupied() {
    let a = node(&[]).await;
    let (name, value) = content("wanted");
    let key = format!("/chorus/content/{name}");
    for n in 0..10 {
        let squatter = Node::alone(Options::default(), &[]).await;
        let lie = squatter.record("content", &name, 1, None, format!("lie {n}").as_bytes());
        let kept = a.net.store().keep(key.as_bytes(), lie.into()).await;
        assert_eq!(kept.is_ok(), n < COPIES_PER_NAME, "{kept:?}");
    }
    // A member's record takes the place of a stranger's, and the own one needs no place.
    let member = Node::alone(Options::default(), &[]).await;
    a.dht.set_members([member.peer().to_string()]);
    let good = member.record("content", &name, 1, None, &value);
    a.net.store().keep(key.as_bytes(), good.into()).await.unwrap();
    assert_eq!(a.dht.get("content", &name, &[]).await.unwrap().author, member.peer().to_string());
    a.dht.put("content", &name, &value, None).await.unwrap();
    assert_eq!(a.dht.get("content", &name, &[]).await.unwrap().author, a.peer().to_string());
}
