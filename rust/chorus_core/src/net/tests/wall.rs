//! What strangers and members are served, between real nodes.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use libp2p::{PeerId, identity::Keypair};
use tokio::time::timeout;

use super::kit::{Node, PATIENCE, core, event, meet, node, node_beside, node_with, parted, raw_swarm, until};
use crate::{
    Error,
    net::{NetEvent, NetHandle, Reply},
};

/// A node that serves members only, and one beside it.
async fn walled() -> (Node, Node) {
    let inside = node_with(|config| config.members_only = true).await;
    let outside = node_beside(&inside).await;
    (inside, outside)
}

/// Answers every request and takes every stream, and says who asked for what.
fn serve(net: &NetHandle) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (asked, heard) = tokio::sync::mpsc::unbounded_channel();
    let (mut requests, mut streams) = (net.take_requests().unwrap(), net.take_streams().unwrap());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(request) = requests.recv() => {
                    let _ = asked.send(format!("{}.{}", request.service, request.method));
                    let _ = request.reply.send(Ok(Reply::default()));
                }
                Some(stream) = streams.recv() => {
                    let _ = asked.send(format!("{}.{} stream", stream.service, stream.method));
                    let _ = stream.answer.send(Ok(()));
                }
                else => return,
            }
        }
    });
    heard
}

async fn ask(from: &Node, to: &Node, service: &str, method: &str) -> crate::Result<Reply> {
    from.net.request(to.peer(), service, method, Bytes::new(), Bytes::new(), PATIENCE).await
}

async fn open(from: &Node, to: &Node, service: &str, method: &str) -> crate::Result<crate::net::PeerStream> {
    from.net.open_stream(to.peer(), service, method, Bytes::new(), PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_served_what_joining_takes_and_nothing_else() {
    let (inside, outside) = walled().await;
    let mut heard = serve(&inside.net);
    let refused = |outcome: Option<Error>| assert!(matches!(outcome, Some(Error::NotPermitted(_))), "{outcome:?}");
    // Without a mesh and within one.
    for in_mesh in [false, true] {
        inside.net.set_members(in_mesh, HashSet::from([PeerId::random()]));
        for (service, method) in
            [("output", "artifacts"), ("coordinator", "renew"), ("_raft", "propose"), ("_dht", "get")]
        {
            refused(ask(&outside, &inside, service, method).await.err());
        }
        for (service, method) in [("output", "logs"), ("coordinator", "blobs.get"), ("coordinator", "blobs.put")] {
            refused(open(&outside, &inside, service, method).await.err());
        }
        ask(&outside, &inside, "mesh", "info").await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), "mesh.info");
    }
    // The other way nothing is walled: that node is in no mesh and was not asked to keep strangers out.
    let mut at_outside = serve(&outside.net);
    ask(&inside, &outside, "output", "artifacts").await.unwrap();
    assert_eq!(at_outside.recv().await.unwrap(), "output.artifacts");

    inside.net.set_members(true, HashSet::from([outside.peer()]));
    ask(&outside, &inside, "coordinator", "renew").await.unwrap();
    open(&outside, &inside, "output", "logs").await.unwrap();
    assert_eq!(
        (heard.recv().await.unwrap(), heard.recv().await.unwrap()),
        ("coordinator.renew".into(), "output.logs stream".into())
    );
    // Removed, it is a stranger again.
    inside.net.set_members(true, HashSet::new());
    refused(ask(&outside, &inside, "coordinator", "renew").await.err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_lane_carries_introductions_only() {
    let (inside, outside) = walled().await;
    inside.net.set_members(true, HashSet::new());
    let (mut above, lane) = (core(&inside.net), outside.net.lane());
    lane.send(inside.peer(), Bytes::from(vec![1; 1024 * 1024]));
    lane.send(inside.peer(), Bytes::from_static(b"here I am"));
    let (_, frame) = timeout(PATIENCE, above.frames.recv()).await.unwrap().unwrap();
    assert_eq!(&frame[..], b"here I am");
    inside.net.set_members(true, HashSet::from([outside.peer()]));
    lane.send(inside.peer(), Bytes::from(vec![1; 1024 * 1024]));
    let (_, frame) = timeout(PATIENCE, above.frames.recv()).await.unwrap().unwrap();
    assert_eq!(frame.len(), 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_no_part_of_kademlia_until_it_is_a_member() {
    const KEY: &[u8] = b"/chorus/content/00000000000000000000000000000000000000000000000000000000000000aa";
    let inside = node_with(|config| config.members_only = true).await;
    inside.net.set_members(true, HashSet::from([inside.peer()]));
    let outside = node().await;
    let mut known = outside.net.kad().routed();
    outside.net.dial(&inside.address()).await.unwrap();
    // Connected is not enough: only who has said that it speaks Kademlia is asked.
    assert_eq!(timeout(PATIENCE, known.recv()).await.unwrap().unwrap(), inside.peer());
    meet(&outside, &inside).await;
    inside.net.kad().provide(KEY, PATIENCE).await.unwrap();
    let found = outside.net.kad().find_providers(KEY, PATIENCE).await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    assert!(inside.net.kad().closest(KEY, PATIENCE).await.unwrap().peers.is_empty());
    let mut routed = inside.net.kad().routed();
    inside.net.set_members(true, HashSet::from([inside.peer(), outside.peer()]));
    assert_eq!(timeout(PATIENCE, routed.recv()).await.unwrap().unwrap(), outside.peer());
    let found = outside.net.kad().find_providers(KEY, PATIENCE).await.unwrap();
    assert_eq!(found, vec![inside.peer()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_strangers_yield_to_newcomers_and_members_keep_their_connections() {
    // More than the strangers that may come from one address.
    const CROWD: usize = 70;
    let inside = node_with(|config| config.members_only = true).await;
    let member = node_beside(&inside).await;
    let mut heard = serve(&inside.net);
    inside.net.set_members(true, HashSet::from([member.peer()]));
    let address: libp2p::Multiaddr = inside.address().parse().unwrap();
    for _ in 0..CROWD {
        let keypair = Keypair::generate_ed25519();
        let (mut swarm, peer) = (raw_swarm(&keypair), keypair.public().to_peer_id());
        let mut events = inside.net.events();
        swarm.dial(address.clone()).unwrap();
        tokio::spawn(async move { while swarm.next().await.is_some() {} });
        event(&mut events, |event| matches!(event, NetEvent::PeerUp { peer: up } if *up == peer.to_string())).await;
    }
    until(|| inside.net.stats().connections <= 66).await;
    let newcomer = node_beside(&inside).await;
    ask(&newcomer, &inside, "mesh", "info").await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "mesh.info");
    assert!(inside.net.connected(&member.peer()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_claims_to_join_and_brings_no_proof_is_disconnected() {
    let (inside, outside) = walled().await;
    let _heard = serve(&inside.net);
    let watcher = node_beside(&inside).await;
    inside.net.set_members(true, HashSet::new());
    ask(&watcher, &inside, "mesh", "info").await.unwrap();
    ask(&outside, &inside, "mesh", "challenge").await.unwrap();
    parted(&inside.net, outside.peer()).await;
    assert!(inside.net.connected(&watcher.peer()));
    assert!(inside.net.stats().peer_offences >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_becomes_a_member_in_time_stays() {
    let (inside, outside) = walled().await;
    let _heard = serve(&inside.net);
    let other = node_beside(&inside).await;
    inside.net.set_members(true, HashSet::new());
    for joiner in [&outside, &other] {
        ask(joiner, &inside, "mesh", "challenge").await.unwrap();
    }
    inside.net.set_members(true, HashSet::from([outside.peer()]));
    // Both claims are over when the other's connection is closed.
    parted(&inside.net, other.peer()).await;
    assert!(inside.net.connected(&outside.peer()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_node_meets_another_as_before() {
    let (a, b) = (node().await, node().await);
    a.net.dial(&b.address()).await.unwrap();
    meet(&a, &b).await;
    let _heard = serve(&b.net);
    timeout(Duration::from_secs(60), ask(&a, &b, "any", "thing")).await.unwrap().unwrap();
}
