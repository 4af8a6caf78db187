//! Peers that fill memory or send what no agent would: stopped, refused, at last kept out.

use std::collections::HashSet;

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::StreamProtocol;
use tokio::time::timeout;

use super::{
    gossip::{heard, listen},
    kit::{Node, PATIENCE, core, event, meet, node, node_beside, parted, until},
};
use crate::{
    Error,
    net::{
        NetEvent, NetHandle, Reply,
        frame::{Ask, FRAME_MAX_BYTES, Frame, HEAD_MAX_BYTES, check_head},
        handle::STREAM_PROTOCOL,
        lane::{LANE_FRAME_MAX_BYTES, LANE_PROTOCOL},
        request::REQUEST_PROTOCOL,
    },
};

/// A request frame with any head, as bytes on the wire.
fn request(id: u32, method: &str, head: &[u8], payload: usize) -> Vec<u8> {
    let ask = Ask {
        service: "s".into(),
        method: method.into(),
        head: Bytes::new(),
        payload: Bytes::from(vec![7; payload]),
        // Nothing waits for the deadline of a request whose peer is gone.
        timeout: 10 * PATIENCE,
    };
    let whole = Frame::Request(id, ask).encode().unwrap();
    let at = whole.len() - payload;
    let mut bytes = ((whole.len() - 4 + head.len()) as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&whole[4..at - 4]);
    bytes.extend_from_slice(&(head.len() as u32).to_be_bytes());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(&whole[at..]);
    bytes
}

/// Answers `echo`; `large` with a megabyte; keeps everything else without an answer.
fn serve(net: &NetHandle) {
    let mut requests = net.take_requests().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(request) = requests.recv().await {
            match request.method.as_str() {
                "echo" => drop(request.reply.send(Ok(Reply { head: request.head, payload: request.payload }))),
                "large" => {
                    drop(request.reply.send(Ok(Reply { head: Bytes::new(), payload: vec![1; 1024 * 1024].into() })));
                }
                _ => kept.push(request.reply),
            }
        }
    });
}

async fn echo(from: &Node, to: &Node) {
    let asked = from.net.request(to.peer(), "s", "echo", Bytes::new(), Bytes::from_static(b"x"), PATIENCE).await;
    assert_eq!(&asked.unwrap().payload[..], b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_answers_are_read_up_to_a_budget_and_others_are_served() {
    let good = node().await;
    let (hostile, honest) = (node_beside(&good).await, node_beside(&good).await);
    serve(&good.net);
    let mut floods = Vec::new();
    for _ in 0..4 {
        let mut stream = hostile.net.open_raw(good.peer(), REQUEST_PROTOCOL).await.unwrap();
        floods.push(tokio::spawn(async move {
            for id in 0..100 {
                if stream.write_all(&request(id, "keep", b"", 1024 * 1024)).await.is_err() {
                    return;
                }
            }
        }));
    }
    until(|| good.net.stats().peer_bytes > 16 * 1024 * 1024).await;
    for _ in 0..100 {
        echo(&honest, &good).await;
        assert!(good.net.stats().peer_bytes < 24 * 1024 * 1024);
    }
    // It was slowed down, not blamed.
    assert!(floods.iter().all(|flood| !flood.is_finished()));
    assert_eq!(good.net.stats().peer_offences, 0);
    floods.iter().for_each(tokio::task::JoinHandle::abort);
    hostile.net.shutdown().await;
    until(|| good.net.stats().peer_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let good = node().await;
    let (hostile, honest) = (node_beside(&good).await, node_beside(&good).await);
    serve(&good.net);
    let mut stream = hostile.net.open_raw(good.peer(), REQUEST_PROTOCOL).await.unwrap();
    for id in 0..300 {
        stream.write_all(&request(id, "large", b"", 0)).await.unwrap();
    }
    stream.flush().await.unwrap();
    until(|| good.net.stats().requests_received == 300).await;
    for _ in 0..100 {
        echo(&honest, &good).await;
        assert!(good.net.stats().peer_bytes < 40 * 1024 * 1024);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raft_frames_that_nobody_takes_are_read_up_to_a_budget() {
    let good = node().await;
    let hostile = node_beside(&good).await;
    let mut above = core(&good.net);
    let lane = hostile.net.lane();
    for _ in 0..60 {
        lane.send(good.peer(), Bytes::from(vec![1; 1024 * 1024]));
    }
    until(|| good.net.stats().peer_bytes > 12 * 1024 * 1024).await;
    for _ in 0..50 {
        assert!(good.net.stats().peer_bytes < 18 * 1024 * 1024);
        timeout(PATIENCE, above.frames.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_no_agent_sends_end_the_line_and_at_last_the_connection() {
    let announced = |bytes: usize| (bytes as u32).to_be_bytes().to_vec();
    let deep = [b"{\"a\":".repeat(33), b"1".to_vec(), b"}".repeat(33)].concat();
    let cases: [(StreamProtocol, Vec<u8>); 7] = [
        (REQUEST_PROTOCOL, announced(FRAME_MAX_BYTES + 1)),
        (REQUEST_PROTOCOL, request(1, "echo", &vec![b' '; HEAD_MAX_BYTES + 1], 0)),
        (REQUEST_PROTOCOL, request(1, "echo", &deep, 0)),
        (REQUEST_PROTOCOL, [announced(3), vec![9; 3]].concat()),
        (STREAM_PROTOCOL, request(1, "echo", &deep, 0)),
        (STREAM_PROTOCOL, [announced(3), vec![9; 3]].concat()),
        (LANE_PROTOCOL, announced(LANE_FRAME_MAX_BYTES + 1)),
    ];
    for (protocol, bytes) in cases {
        let good = node().await;
        let hostile = node_beside(&good).await;
        serve(&good.net);
        while good.net.stats().peer_bans == 0 {
            let Ok(mut stream) = hostile.net.open_raw(good.peer(), protocol.clone()).await else { break };
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            // The line ends.
            let _ = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
        }
        until(|| good.net.stats().peer_bans == 1).await;
        parted(&good.net, hostile.peer()).await;
        // It comes back at once and is not let in; another is.
        let mut events = good.net.events();
        let _ = hostile.net.dial(&good.address()).await;
        let honest = node_beside(&good).await;
        let up = event(&mut events, |event| matches!(event, NetEvent::PeerUp { .. })).await;
        assert!(matches!(up, NetEvent::PeerUp { peer } if peer == honest.peer().to_string()));
        echo(&honest, &good).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_the_limits_is_refused_where_it_is_made() {
    let a = node().await;
    let b = node_beside(&a).await;
    meet(&a, &b).await;
    serve(&b.net);
    let ask = |head: Vec<u8>| a.net.request(b.peer(), "s", "echo", head.into(), Bytes::new(), PATIENCE);
    assert!(matches!(ask(vec![b' '; HEAD_MAX_BYTES + 1]).await, Err(Error::TooLarge(_))));
    assert!(matches!(ask(b"[".repeat(33)).await, Err(Error::Invalid(_))));
    assert_eq!(b.net.stats().peer_offences, 0);
    ask(vec![b' '; HEAD_MAX_BYTES]).await.unwrap();
}

#[test]
fn brackets_in_texts_do_not_count_as_nesting() {
    let text = serde_json::json!({"a": "[".repeat(100), "b\"[[": ["\\", "\"{"], "c": {"d": "{{{{"}}).to_string();
    check_head(text.as_bytes()).unwrap();
    let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    check_head(&nested(32)).unwrap();
    assert!(check_head(&nested(33)).is_err());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
        let _ = check_head(&bytes);
        for kind in 0..6 {
            let _ = Frame::decode([&[kind][..], &bytes].concat().into());
        }
    }
}

/// A gossipsub frame: its length, then the id of a message that its sender does not want to be sent.
fn unwanted(number: u16) -> Vec<u8> {
    // A varint of two bytes: for 128 to 16,383.
    let sized = |body: &[u8]| [&[body.len() as u8 | 0x80, (body.len() >> 7) as u8], body].concat();
    let field = |tag: u8, body: &[u8]| [&[tag << 3 | 2], &sized(body)[..]].concat();
    // RPC.control (3) holds idontwant (5), which holds messageIDs (1).
    let mut id = vec![7; 200];
    id[..2].copy_from_slice(&number.to_be_bytes());
    sized(&field(3, &field(5, &field(1, &id))))
}

/// Sends them until it is enough, on a stream that takes the place of the node's own gossip.
async fn refuse_by_name(hostile: &Node, good: &Node, enough: impl Fn(u16) -> bool) {
    // The node's own stream is open once something came over it.
    heard(&hostile.net, 0, &mut listen(&good.net)).await;
    let mut stream = hostile.net.open_raw(good.peer(), StreamProtocol::new("/meshsub/1.2.0")).await.unwrap();
    for number in (0..u16::MAX).take_while(|number| !enough(*number)) {
        if stream.write_all(&unwanted(number)).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_messages_of_gossip_have_a_rate_and_their_flooder_is_kept_out() {
    let good = node().await;
    let hostile = node_beside(&good).await;
    good.net.set_members(true, HashSet::from([good.peer()]));
    // It is a rate: how many are too many depends on how fast they are sent.
    refuse_by_name(&hostile, &good, |_| good.net.stats().peer_bans == 1).await;
    until(|| good.net.stats().peer_bans == 1).await;
    parted(&good.net, hostile.peer()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_sends_too_many_control_messages_keeps_its_connection() {
    let good = node().await;
    let hostile = node_beside(&good).await;
    serve(&good.net);
    good.net.set_members(true, HashSet::from([good.peer(), hostile.peer()]));
    refuse_by_name(&hostile, &good, |number| number == 3_000).await;
    echo(&hostile, &good).await;
    assert_eq!((good.net.stats().peer_bans, good.net.stats().peer_offences), (0, 0));
}
