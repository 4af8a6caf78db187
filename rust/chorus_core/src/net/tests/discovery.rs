//! Who finds whom: bootstrap in every form, mDNS, memory of peers, and strangers kept out.

use super::kit::{config, connected, event, meet, node, node_beside, node_with, parted, until};
use crate::{
    Error,
    net::{NetEvent, NetHandle},
};

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_works_without_a_peer_id_and_by_name() {
    let a = node().await;
    let bare = a.bare_address();
    let b = node_with(|config| config.bootstrap = vec![bare.clone()]).await;
    meet(&a, &b).await;
    let named = bare.replace("/ip4/127.0.0.1", "/dns4/localhost");
    let c = node_with(|config| config.bootstrap = vec![named]).await;
    meet(&a, &c).await;
    // Kademlia introduces those who only share a neighbour.
    meet(&b, &c).await;
    let state = a.net.state();
    assert_eq!((state.peer_id, state.peers.len()), (a.peer().to_string(), 2));
    until(|| {
        a.net.state().peers.iter().all(|peer| peer.agent_version.as_deref().is_some_and(|v| v.contains("(test)")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_bootstrap_peer_is_dialled_again() {
    let a = node().await;
    let b = node_beside(&a).await;
    let port: libp2p::Multiaddr = a.bare_address().parse().unwrap();
    a.net.shutdown().await;
    parted(&b.net, a.peer()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut again = config(&a.keypair, &folder);
    again.listen = vec![port];
    let a = NetHandle::start(again).await.unwrap();
    connected(&a, b.peer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_bootstrap_is_told_and_dial_says_why() {
    let a = node_with(|config| config.bootstrap = vec!["/ip4/127.0.0.1/tcp/1".into(), "/bogus".into()]).await;
    let mut events = a.net.events();
    event(&mut events, |event| matches!(event, NetEvent::DialFailed { addr, .. } if addr.contains("tcp/1"))).await;
    assert!(matches!(a.net.dial("/ip4/127.0.0.1/tcp/1").await, Err(Error::Unavailable(_))));
    assert!(matches!(a.net.dial("nonsense").await, Err(Error::Unavailable(_))));
    let own = a.bare_address();
    assert!(a.net.dial(&own).await.is_err());
    let b = node().await;
    b.net.dial(&own).await.unwrap();
    b.net.dial(&own).await.unwrap();
    meet(&a, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_network_key_never_connects() {
    let a = node().await;
    let address = a.address();
    let stranger = node_with(|config| {
        config.network_key = [8; 32];
        config.bootstrap = vec![address];
    })
    .await;
    let mut events = stranger.net.events();
    event(&mut events, |event| matches!(event, NetEvent::DialFailed { .. })).await;
    assert!(stranger.net.dial(&a.bare_address()).await.is_err());
    assert!(a.net.state().peers.is_empty() && stranger.net.state().peers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn known_peers_are_remembered_and_dialled_at_start() {
    let a = node().await;
    let b = node_beside(&a).await;
    b.net.shutdown().await;
    parted(&a.net, b.peer()).await;
    assert!(b.folder.path().join("peers.json").exists());
    let (keypair, folder) = (b.keypair, b.folder);
    drop(b.net);
    let again = NetHandle::start(config(&keypair, &folder)).await.unwrap();
    connected(&again, a.peer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_on_one_machine_find_each_other_by_mdns() {
    let key = rand::random();
    let with_mdns = |config: &mut crate::net::NetConfig| {
        config.mdns = true;
        config.network_key = key;
    };
    let (a, b) = tokio::join!(node_with(with_mdns), node_with(with_mdns));
    assert!(a.net.state().mdns);
    meet(&a, &b).await;
    // One of another cluster is seen and cannot be reached.
    let stranger = node_with(|config| config.mdns = true).await;
    let c = node_with(with_mdns).await;
    meet(&a, &c).await;
    assert!(!stranger.net.connected(&a.peer()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let a = node().await;
    let taken: libp2p::Multiaddr = a.bare_address().parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&a.keypair, &folder);
    config.listen = vec![taken.clone()];
    let error = NetHandle::start(config).await.err().unwrap();
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
}
