//! Values above one record.

use super::kit::{Node, Options, content, mesh, node, roles};
use crate::{
    Error,
    dht::{
        Sealer, VALUE_MAX_BYTES,
        key::content_hash,
        manifest::{BLOCK_BYTES, Manifest},
        record::{self, Header},
    },
    net::shared::now_ms,
};

/// Bytes of which no block is like another.
fn large(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 ^ (at / BLOCK_BYTES) as u8).collect()
}

fn block_keys(value: &[u8]) -> Vec<String> {
    Manifest::of(value).blocks.iter().map(|hash| format!("/chorus/block/{}", hex::encode(hash))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_value_travels_whole() {
    let [a, b] = mesh().await;
    let value = large(VALUE_MAX_BYTES);
    let name = content_hash(&value);
    let written = a.dht.put("content", &name, &value, Some("developer")).await.unwrap();
    assert_eq!((written.key, written.replicas), (format!("/chorus/content/{name}"), 1));
    let got = b.dht.get("content", &name, &[]).await.unwrap();
    assert_eq!(got.role.as_deref(), Some("developer"));
    assert!(got.bytes == value);
    // Blocks are sealed like their value.
    let key = &block_keys(&value)[3];
    let record = b.net.store().get(key.as_bytes())[0].clone();
    let checked = record::check(key.as_bytes(), &record, now_ms()).unwrap();
    assert_eq!((checked.header.role.as_deref(), checked.header.of.as_deref()), (Some("developer"), None));
    let sealed = checked.sealed(&record);
    assert!(roles("developer").open(sealed).is_ok());
    assert!(matches!(roles("observer").open(sealed), Err(Error::NotPermitted(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_block_may_be_a_piece_of_values_for_different_roles() {
    let a = node(&[]).await;
    let b = Node::start(Options { role: "observer", ..Options::default() }, &[&a]).await;
    let (one, two) = (large(3 * BLOCK_BYTES), large(2 * BLOCK_BYTES));
    a.dht.put("content", &content_hash(&one), &one, Some("developer")).await.unwrap();
    a.dht.put("content", &content_hash(&two), &two, Some("observer")).await.unwrap();
    assert!(b.dht.get("content", &content_hash(&two), &[]).await.unwrap().bytes == two);
    assert!(matches!(b.dht.get("content", &content_hash(&one), &[]).await, Err(Error::NotPermitted(_))));
    // A value itself may be put for one role more.
    a.dht.put("content", &content_hash(&one), &one, None).await.unwrap();
    assert!(b.dht.get("content", &content_hash(&one), &[]).await.unwrap().bytes == one);
    let c = Node::start(Options { role: "observer", ..Options::default() }, &[&a, &b]).await;
    super::kit::until("a newcomer is given all of them", || {
        c.dht.usage().unwrap().records == a.dht.usage().unwrap().records
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_around_a_block_is_read_as_written() {
    let [a, b] = mesh().await;
    for bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 1] {
        let value = large(bytes);
        let name = content_hash(&value);
        a.dht.put("content", &name, &value, None).await.unwrap();
        assert!(b.dht.get("content", &name, &[]).await.unwrap().bytes == value, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blocks_of_a_passing_record_pass_with_it() {
    let [a, b] = mesh().await;
    let (name, value) = (a.peer().to_string(), large(3 * BLOCK_BYTES));
    a.dht.put("agent", &name, &value, None).await.unwrap();
    assert!(b.dht.get("agent", &name, &[]).await.unwrap().bytes == value);
    let key = &block_keys(&value)[0];
    let of = |node: &Node| {
        let record = node.net.store().get(key.as_bytes())[0].clone();
        record::check(key.as_bytes(), &record, now_ms()).unwrap().header.of
    };
    assert_eq!(of(&a).as_deref(), Some("agent"));
    // As a piece of something lasting the same block stays.
    let hash = content_hash(&value);
    a.dht.put("content", &hash, &value, None).await.unwrap();
    assert_eq!(of(&a), None);
    super::kit::until("the other has the lasting one too", || of(&b).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_tampered_block_is_named() {
    // Only this node holds anything, so that what is taken away is gone.
    let a = Node::start(Options { dht: false, ..Options::default() }, &[]).await;
    let value = large(5 * BLOCK_BYTES);
    let name = content_hash(&value);
    a.dht.put("content", &name, &value, None).await.unwrap();
    let key = block_keys(&value)[2].clone();
    let author = a.peer().to_string();
    let whole = a.net.store().get(key.as_bytes())[0].clone();
    a.dht.flush().await;
    let mut broken = whole.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    a.net.store().plant(key.as_bytes(), &author, &broken, record::NEVER);
    match a.dht.get("content", &name, &[]).await {
        Err(Error::Tampered(why)) => assert!(why.contains("block 3 of 5") && why.contains(&key), "{why}"),
        outcome => unreachable!("{outcome:?}"),
    }
    a.net.store().plant(key.as_bytes(), &author, &broken, now_ms() - 1);
    match a.dht.get("content", &name, &[]).await {
        Err(Error::NotFound(why)) => assert!(why.contains("block 3 of 5") && why.contains(&key), "{why}"),
        outcome => unreachable!("{outcome:?}"),
    }
    // Its author puts it again: all is well.
    a.dht.put("content", &name, &value, None).await.unwrap();
    a.dht.flush().await;
    assert!(a.dht.get("content", &name, &[]).await.unwrap().bytes == value);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_lies_does_not_hide_the_true_one() {
    let [a, liar] = mesh().await;
    let value = large(3 * BLOCK_BYTES);
    let name = content_hash(&value);
    let key = format!("/chorus/content/{name}");
    // The liar is first: its own blocks, in the name of the value.
    let other = large(4 * BLOCK_BYTES);
    let put = liar.dht.put("content", &content_hash(&other), &other, None).await;
    put.unwrap();
    let header = Header {
        author: liar.peer().to_string(),
        blocks: Some(4),
        created_at: 1,
        hash: name.clone(),
        kind: "content".into(),
        name: name.clone(),
        of: None,
        role: None,
        v: 1,
        version: 1,
    };
    let sealed = roles("developer").seal(None, &Manifest::of(&other).encode()).unwrap();
    let lie = record::write(&liar.keypair, &header, &sealed).unwrap();
    for node in [&a, &liar] {
        node.net.store().keep(key.as_bytes(), lie.clone().into()).await.unwrap();
    }
    assert!(matches!(liar.dht.get("content", &name, &[]).await, Err(Error::Tampered(_))));
    a.dht.put("content", &name, &value, None).await.unwrap();
    let c = node(&[&a, &liar]).await;
    for node in [&liar, &c] {
        assert!(node.dht.get("content", &name, &[]).await.unwrap().bytes == value);
    }
    // A value in one record that is not what its name says is passed over likewise.
    let (name, value) = content("small truth");
    let lie = liar.record("content", &name, 1, None, b"small lie");
    let key = format!("/chorus/content/{name}");
    c.net.store().keep(key.as_bytes(), lie.into()).await.unwrap();
    a.dht.put("content", &name, &value, None).await.unwrap();
    assert_eq!(&c.dht.get("content", &name, &[]).await.unwrap().bytes[..], &value[..]);
}
