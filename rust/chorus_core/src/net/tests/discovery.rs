//! Who finds whom: bootstrap in every form, mDNS, memory of peers, and strangers kept out.

use super::kit::{config, connected, core, event, meet, node, node_beside, node_with, parted, until};
use crate::{
    Error,
    net::{NetEvent, NetHandle, addresses::names},
};
use bytes::Bytes;

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
async fn names_that_resolve_late_lead_to_all_behind_them() {
    let a = node().await;
    let (own, name) = (a.bare_address(), "late.test");
    let port = own.rsplit('/').next().unwrap();
    // All listen on one port, as the replicas of a service do, each on an address of its own.
    let here = |ip: &str| format!("/ip4/{ip}/tcp/{port}").parse().unwrap();
    let by_name = format!("/dns4/{name}/tcp/{port}");
    names::set(name, &[]);
    let b = node_with(|config| {
        config.listen = vec![here("127.0.0.2")];
        config.bootstrap = vec![by_name.clone()];
    })
    .await;
    let mut events = b.net.events();
    event(&mut events, |event| matches!(event, NetEvent::DialFailed { error, .. } if error.contains(name))).await;
    // It finds itself alone behind the name, and then others beside itself.
    names::set(name, &["127.0.0.2"]);
    let c = node_with(|config| config.listen = vec![here("127.0.0.3")]).await;
    names::set(name, &["127.0.0.2", "127.0.0.1", "127.0.0.3"]);
    meet(&b, &a).await;
    meet(&b, &c).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_member_that_was_removed_nothing_is_kept() {
    let a = node().await;
    let (b, c) = (node_beside(&a).await, node_beside(&a).await);
    // Both have said where they listen.
    until(|| a.net.state().peers.iter().filter(|peer| peer.agent_version.is_some()).count() == 2).await;
    a.net.set_members(true, [a.peer(), b.peer(), c.peer()].into());
    for peer in [b.peer(), c.peer()] {
        a.net.lane().send(peer, Bytes::from_static(b"frame"));
    }
    assert_eq!(a.net.lane().peers().len(), 2);
    a.net.set_members(true, [a.peer(), c.peer()].into());
    assert_eq!(a.net.lane().peers(), [c.peer()]);
    // Who is connected stays so, as a stranger, and is not looked for when it goes.
    assert!(a.net.connected(&b.peer()));
    b.net.shutdown().await;
    parted(&a.net, b.peer()).await;
    a.net.shutdown().await;
    let kept = std::fs::read_to_string(a.folder.path().join("peers.json")).unwrap_or_default();
    assert!(!kept.contains(&b.peer().to_string()), "{kept}");
    assert!(kept.contains(&c.peer().to_string()), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_may_come_back_by_itself() {
    let a = node().await;
    let b = node_beside(&a).await;
    a.net.set_members(true, [a.peer(), b.peer()].into());
    a.net.set_members(true, [a.peer()].into());
    let (keypair, folder) = (b.keypair.clone(), tempfile::tempdir().unwrap());
    b.net.shutdown().await;
    parted(&a.net, b.peer()).await;
    let mut again = config(&keypair, &folder);
    again.bootstrap = vec![a.address()];
    let again = NetHandle::start(again).await.unwrap();
    connected(&again, a.peer()).await;
    connected(&a.net, again.local_peer()).await;
    a.net.set_members(true, [a.peer(), again.local_peer()].into());
    a.net.lane().send(again.local_peer(), Bytes::from_static(b"frame"));
    let (from, frame) = core(&again).frames.recv().await.unwrap();
    assert_eq!((from, &frame[..]), (a.peer(), &b"frame"[..]));
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
