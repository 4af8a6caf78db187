//! The DHT between real nodes.

use std::sync::Arc;

use libp2p::identity::Keypair;
use tempfile::TempDir;

use super::{Dht, DhtConfig, Sealer, VALUE_MAX_BYTES, key::content_hash, record};
use crate::{
    Error, Result,
    net::{NetConfig, NetHandle},
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

/// Stands in for real sealing: a mask, and a reader without the role is refused.
struct Mask {
    may_read: bool,
}

impl Sealer for Mask {
    fn seal(&self, _: Option<&str>, plain: &[u8]) -> Result<Vec<u8>> {
        Ok([b"mask", &plain.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>()[..]].concat())
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        if !self.may_read {
            return Err(Error::NotPermitted("sealed for another role".into()));
        }
        let masked = sealed.strip_prefix(b"mask").ok_or_else(|| Error::Tampered("no mask".into()))?;
        Ok(masked.iter().map(|byte| byte ^ 0x55).collect())
    }
}

struct Node {
    net: NetHandle,
    dht: Dht,
    keypair: Keypair,
    folder: TempDir,
}

async fn start(keypair: Keypair, folder: TempDir, bootstrap: Vec<String>, dht: bool, may_read: bool) -> Result<Node> {
    let net = NetHandle::start(NetConfig {
        keypair: keypair.clone(),
        network_key: [9; 32],
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        bootstrap,
        mdns: false,
        data_dir: folder.path().to_owned(),
        agent_id: "test".into(),
        role: None,
        dht,
    })
    .await?;
    let config = DhtConfig {
        net: net.clone(),
        keypair: keypair.clone(),
        sealer: Arc::new(Mask { may_read }),
        cache_bytes: 1024 * 1024,
    };
    Ok(Node { dht: Dht::start(config), net, keypair, folder })
}

async fn node(beside: &[&Node]) -> Node {
    let bootstrap: Vec<String> = beside.iter().map(|node| node.net.state().listen[0].clone()).collect();
    let node = start(Keypair::generate_ed25519(), tempfile::tempdir().unwrap(), bootstrap, true, true).await.unwrap();
    for other in beside {
        routed(&node, other).await;
        routed(other, &node).await;
    }
    node
}

/// Waits until one node has the other in its routing table: a provider record for a key of its own reaches it.
async fn routed(node: &Node, other: &Node) {
    let key = format!("/chorus/agent/{}", node.net.local_peer());
    tokio::time::timeout(PATIENCE, async {
        loop {
            node.dht.provide(&key).await.unwrap();
            if other.dht.find(&key).await.unwrap().contains(&node.net.local_peer()) {
                return;
            }
        }
    })
    .await
    .unwrap();
}

fn decision(text: &str) -> (String, Vec<u8>) {
    (content_hash(text.as_bytes()), text.as_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_puts_others_get() {
    let a = node(&[]).await;
    let b = node(&[&a]).await;
    let c = node(&[&b]).await;
    let (name, value) = decision("we use redb");
    let key = a.dht.put("decision", &name, &value, Some("developer")).await.unwrap();
    assert_eq!(key, format!("/chorus/decision/{name}"));
    let got = c.dht.get("decision", &name).await.unwrap();
    assert_eq!(
        (got.author, got.role.as_deref(), &got.bytes[..]),
        (a.net.local_peer().to_string(), Some("developer"), &value[..])
    );
    // The second time it comes from memory.
    let hits = c.net.stats().dht_cache_hits;
    c.dht.get("decision", &name).await.unwrap();
    assert_eq!(c.net.stats().dht_cache_hits, hits + 1);
    assert!(matches!(b.dht.get("decision", &content_hash(b"other")).await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_put_alone_reaches_the_next_peer() {
    let a = node(&[]).await;
    let (name, value) = decision("alone");
    a.dht.put("decision", &name, &value, None).await.unwrap();
    let b = node(&[&a]).await;
    let key = format!("/chorus/decision/{name}");
    tokio::time::timeout(PATIENCE, async {
        while b.net.store().get(key.as_bytes()).is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_own_error() {
    let a = node(&[]).await;
    let (name, value) = decision("x");
    let put = |kind: &'static str, name: String, value: Vec<u8>| {
        let dht = a.dht.clone();
        async move { dht.put(kind, &name, &value, None).await }
    };
    assert!(matches!(put("decision", name.clone(), vec![0; VALUE_MAX_BYTES + 1]).await, Err(Error::TooLarge(_))));
    assert!(matches!(put("decision", name.clone(), b"y".to_vec()).await, Err(Error::Invalid(_))));
    assert!(matches!(put("other", name.clone(), value.clone()).await, Err(Error::Invalid(_))));
    assert!(matches!(
        put("agent", libp2p::PeerId::from(Keypair::generate_ed25519().public()).to_string(), value).await,
        Err(Error::NotPermitted(_))
    ));
    assert!(matches!(a.dht.get("decision", &name).await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn tampered_replicas_are_refused_and_the_next_one_is_tried() {
    let a = node(&[]).await;
    let b = node(&[&a]).await;
    let c = node(&[&a, &b]).await;
    // b holds a record with a broken signature, planted past the filter; a holds nothing at first.
    let (name, value) = decision("truth");
    let key = format!("/chorus/decision/{name}");
    let header = record::Header {
        author: a.net.local_peer().to_string(),
        created_at: 1,
        hash: name.clone(),
        kind: "decision".into(),
        name: name.clone(),
        role: None,
        v: 1,
        version: 1,
    };
    let sealer = Mask { may_read: true };
    let mut broken = record::write(&a.keypair, &header, &sealer.seal(None, &value).unwrap()).unwrap();
    *broken.last_mut().unwrap() ^= 1;
    b.net.store().plant(key.clone().into_bytes(), broken.clone());
    assert!(matches!(c.dht.get("decision", &name).await, Err(Error::Tampered(_))));
    assert!(c.net.stats().dht_refused >= 1);
    // One whose signature is right and whose content is not what it says is refused after opening.
    let lie = record::write(
        &b.keypair,
        &record::Header { author: b.net.local_peer().to_string(), ..header },
        &sealer.seal(None, b"lie").unwrap(),
    );
    b.net.store().plant(key.into_bytes(), lie.unwrap());
    assert!(matches!(c.dht.get("decision", &name).await, Err(Error::Tampered(_))));
    // With one good replica the value is found in spite of the bad one.
    a.dht.put("decision", &name, &value, None).await.unwrap();
    assert_eq!(&c.dht.get("decision", &name).await.unwrap().bytes[..], &value[..]);
    // A peer that is offered a broken record does not keep it.
    let refused = c.net.stats().dht_refused;
    assert!(c.net.store().offer(format!("/chorus/decision/{}", content_hash(b"z")).into_bytes(), broken).is_err());
    assert_eq!(c.net.stats().dht_refused, refused + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_record_has_one_writer_and_never_goes_back() {
    let a = node(&[]).await;
    let b = node(&[&a]).await;
    let name = a.net.local_peer().to_string();
    a.dht.put("agent", &name, b"one", None).await.unwrap();
    let key = format!("/chorus/agent/{name}").into_bytes();
    let first = a.net.store().get(&key).unwrap();
    let one = b.dht.get("agent", &name).await.unwrap();
    a.dht.put("agent", &name, b"two", None).await.unwrap();
    b.dht.flush().await;
    let two = b.dht.get("agent", &name).await.unwrap();
    assert_eq!((&one.bytes[..], &two.bytes[..]), (&b"one"[..], &b"two"[..]));
    assert!(two.version > one.version);
    let stored = a.net.store().get(&key).unwrap();
    assert!(matches!(a.net.store().put(key.clone(), first).await, Err(Error::Refused(_))));
    assert_eq!(a.net.store().get(&key).unwrap(), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_role_a_value_stays_shut() {
    let a = node(&[]).await;
    let address = a.net.state().listen[0].clone();
    let blind =
        start(Keypair::generate_ed25519(), tempfile::tempdir().unwrap(), vec![address], true, false).await.unwrap();
    routed(&a, &blind).await;
    let (name, value) = decision("secret");
    a.dht.put("decision", &name, &value, Some("admin")).await.unwrap();
    assert!(matches!(blind.dht.get("decision", &name).await, Err(Error::NotPermitted(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_records_and_local_mode_works_alone() {
    let node = start(Keypair::generate_ed25519(), tempfile::tempdir().unwrap(), vec![], false, true).await.unwrap();
    let mut names = Vec::new();
    for n in 0..20 {
        let (name, value) = decision(&format!("decision {n}"));
        node.dht.put("decision", &name, &value, None).await.unwrap();
        names.push((name, value));
    }
    assert!(matches!(node.dht.find(&format!("/chorus/decision/{}", names[0].0)).await, Err(Error::Unavailable(_))));
    let Node { net, dht, keypair, folder } = node;
    net.shutdown().await;
    drop((net, dht));
    let again = start(keypair, folder, vec![], false, true).await.unwrap();
    for (name, value) in names {
        assert_eq!(&again.dht.get("decision", &name).await.unwrap().bytes[..], &value[..]);
    }
    assert_eq!(again.net.store().len().unwrap(), 20);
    drop(again.folder);
}
