//! Requests and byte streams between real nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use tokio::time::timeout;

use super::kit::{Node, PATIENCE, core, node, node_beside, parted, until};
use crate::{
    Error,
    net::{NetHandle, Reply},
};

/// Answers every request with what it brought.
fn echo(net: &NetHandle) {
    let mut requests = net.take_requests().unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let answer = match request.method.as_str() {
                "echo" => Ok(Reply { head: request.head, payload: request.payload }),
                "never" => {
                    tokio::spawn(async move {
                        let _kept = request.payload;
                        let mut reply = request.reply;
                        reply.closed().await;
                    });
                    continue;
                }
                other => Err(Error::NotFound(format!("{} has no {other}", request.service))),
            };
            let _ = request.reply.send(answer);
        }
    });
}

async fn ask(from: &Node, to: &Node, method: &str, payload: &[u8], within: Duration) -> crate::Result<Reply> {
    let head = Bytes::from_static(b"{\"a\":1}");
    from.net.request(to.peer(), "test", method, head, Bytes::copy_from_slice(payload), within).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_both_ways_and_to_oneself() {
    let a = node().await;
    let b = node_beside(&a).await;
    echo(&a.net);
    echo(&b.net);
    for (from, to) in [(&a, &b), (&b, &a), (&a, &a)] {
        let reply = ask(from, to, "echo", b"hello", PATIENCE).await.unwrap();
        assert_eq!((&reply.head[..], &reply.payload[..]), (&b"{\"a\":1}"[..], &b"hello"[..]));
        let error = ask(from, to, "other", b"", PATIENCE).await.unwrap_err();
        assert_eq!((error.code(), error.to_string()), ("not_found", "not found: test has no other".to_owned()));
    }
    assert!(a.net.take_requests().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_answers_for_its_own_services_once_it_is_there() {
    let a = node().await;
    let b = node_beside(&a).await;
    let mut processes = b.net.take_requests().unwrap();
    let ask = |from: &Node, method: &'static str| {
        let (net, peer) = (from.net.clone(), b.peer());
        tokio::spawn(async move { net.request(peer, "_core", method, Bytes::new(), Bytes::new(), PATIENCE).await })
    };
    let early = ask(&a, "early");
    until(|| b.net.stats().requests_received == 1).await;
    let mut above = core(&b.net);
    for (asked, method) in [(early, "early"), (ask(&a, "later"), "later"), (ask(&b, "own"), "own")] {
        assert_eq!(asked.await.unwrap().unwrap().payload, method);
    }
    let waiting = ask(&a, "never");
    until(|| b.net.stats().requests_received == 3).await;
    waiting.abort();
    timeout(PATIENCE, above.given_up.recv()).await.unwrap().unwrap();
    assert!(processes.try_recv().is_err());
    drop(above);
    assert!(matches!(ask(&a, "after").await.unwrap(), Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_requests_share_one_line() {
    let a = node().await;
    let b = node_beside(&a).await;
    echo(&b.net);
    let all = (0..5000u32).map(|n| {
        let (a, b) = (&a, &b);
        async move { (n, ask(a, b, "echo", &n.to_be_bytes(), PATIENCE).await.unwrap()) }
    });
    for (n, reply) in join_all(all).await {
        assert_eq!(reply.payload, Bytes::copy_from_slice(&n.to_be_bytes()));
    }
    assert_eq!(b.net.stats().requests_received, 5000);
    assert_eq!(a.net.stats().requests_in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_fit_up_to_the_ceiling() {
    let a = node().await;
    let b = node_beside(&a).await;
    echo(&b.net);
    let large: Vec<u8> = (0..16 * 1024 * 1024usize).map(|n| n.to_le_bytes()[1]).collect();
    assert_eq!(ask(&a, &b, "echo", &large, PATIENCE).await.unwrap().payload, large);
    let larger = vec![0; 18 * 1024 * 1024];
    assert!(matches!(ask(&a, &b, "echo", &larger, PATIENCE).await, Err(Error::TooLarge(_))));
    assert!(ask(&a, &b, "echo", b"still works", PATIENCE).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_and_cancelled_calls_leave_nothing_behind() {
    let a = node().await;
    let b = node_beside(&a).await;
    let mut requests = b.net.take_requests().unwrap();
    let waiting = tokio::spawn({
        let (net, peer) = (a.net.clone(), b.peer());
        async move { net.request(peer, "test", "never", Bytes::new(), Bytes::new(), PATIENCE).await }
    });
    let mut request = timeout(PATIENCE, requests.recv()).await.unwrap().unwrap();
    waiting.abort();
    // The server learns that nobody waits any more.
    timeout(PATIENCE, request.reply.closed()).await.unwrap();
    let late = ask(&a, &b, "never", b"", Duration::from_millis(50)).await;
    assert!(matches!(late, Err(Error::Timeout(_))));
    assert_eq!(a.net.stats().requests_in_flight, 0);
    drop(requests);
    assert!(matches!(ask(&a, &b, "echo", b"", PATIENCE).await, Err(Error::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_peer_fails_what_waits_and_is_reached_again() {
    let a = node().await;
    let b = node_beside(&a).await;
    let _silent = b.net.take_requests().unwrap();
    let stranger = libp2p::PeerId::random();
    let unknown = a.net.request(stranger, "x", "y", Bytes::new(), Bytes::new(), PATIENCE).await;
    assert!(matches!(unknown, Err(Error::Unavailable(_))), "{unknown:?}");
    let waiting = tokio::spawn({
        let (net, peer) = (a.net.clone(), b.peer());
        async move { net.request(peer, "test", "never", Bytes::new(), Bytes::new(), PATIENCE).await }
    });
    until(|| b.net.stats().requests_received == 1).await;
    b.net.shutdown().await;
    assert!(matches!(waiting.await.unwrap(), Err(Error::Unavailable(_))));
    parted(&a.net, b.peer()).await;
    // The same peer comes back elsewhere.
    let folder = tempfile::tempdir().unwrap();
    let again = NetHandle::start(super::kit::config(&b.keypair, &folder)).await.unwrap();
    echo(&again);
    again.dial(&a.address()).await.unwrap();
    let reply = timeout(PATIENCE, async {
        loop {
            if let Ok(reply) = ask(&a, &b, "echo", b"again", Duration::from_secs(5)).await {
                return reply;
            }
        }
    });
    assert_eq!(&reply.await.unwrap().payload[..], b"again");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_carry_bulk_bytes() {
    const TOTAL: usize = 50 * 1024 * 1024;
    let a = node().await;
    let b = node_beside(&a).await;
    let mut streams = b.net.take_streams().unwrap();
    let received = Arc::new(AtomicUsize::new(0));
    let counter = received.clone();
    let server = tokio::spawn(async move {
        let incoming = streams.recv().await.unwrap();
        assert_eq!(
            (incoming.service.as_str(), incoming.method.as_str(), &incoming.head[..]),
            ("blobs", "put", &b"{}"[..])
        );
        let mut stream = incoming.stream;
        incoming.answer.send(Ok(())).unwrap();
        let (mut buffer, mut sum) = (vec![0; 256 * 1024], 0u64);
        loop {
            let n = stream.read(&mut buffer).await.unwrap();
            if n == 0 {
                break;
            }
            counter.fetch_add(n, Ordering::Relaxed);
            sum = buffer[..n].iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        }
        stream.write_all(&sum.to_be_bytes()).await.unwrap();
        stream.close().await.unwrap();
        streams
    });
    let mut stream = a.net.open_stream(b.peer(), "blobs", "put", Bytes::from_static(b"{}"), PATIENCE).await.unwrap();
    let (mut sum, chunk) =
        (0u64, (0..128 * 1024).map(|n: usize| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect::<Vec<u8>>());
    for _ in 0..TOTAL / chunk.len() {
        stream.write_all(&chunk).await.unwrap();
        sum = chunk.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    }
    stream.close().await.unwrap();
    let mut answer = [0; 8];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!((received.load(Ordering::Relaxed), u64::from_be_bytes(answer)), (TOTAL, sum));
    let mut streams = server.await.unwrap();
    // Refusals come back as what they are; a router that forgets one refuses too.
    let refuser = tokio::spawn(async move {
        let incoming = streams.recv().await.unwrap();
        incoming.answer.send(Err(Error::NotPermitted("not for you".into()))).unwrap();
        drop(streams.recv().await.unwrap());
    });
    let open = || a.net.open_stream(b.peer(), "blobs", "get", Bytes::new(), PATIENCE);
    assert!(matches!(open().await, Err(Error::NotPermitted(_))));
    assert!(matches!(open().await, Err(Error::Unavailable(_))));
    refuser.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_to_oneself_is_a_stream() {
    let a = node().await;
    let mut streams = a.net.take_streams().unwrap();
    let server = tokio::spawn(async move {
        let incoming = streams.recv().await.unwrap();
        incoming.answer.send(Ok(())).unwrap();
        let mut stream = incoming.stream;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.close().await.unwrap();
    });
    let mut stream = a.net.open_stream(a.peer(), "s", "m", Bytes::new(), PATIENCE).await.unwrap();
    stream.write_all(b"to myself").await.unwrap();
    stream.close().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"to myself");
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_opened_at_once_all_arrive() {
    let a = node().await;
    let b = node_beside(&a).await;
    let mut streams = b.net.take_streams().unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = streams.recv().await {
            incoming.answer.send(Ok(())).unwrap();
            let mut stream = incoming.stream;
            tokio::spawn(async move {
                stream.write_all(&incoming.head).await.unwrap();
                stream.close().await.unwrap();
            });
        }
    });
    let all = (0..100u8).map(|n| {
        let (a, b) = (&a, &b);
        async move {
            let mut stream = a.net.open_stream(b.peer(), "s", "m", Bytes::from(vec![n; 3]), PATIENCE).await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, vec![n; 3]);
        }
    });
    timeout(PATIENCE, join_all(all)).await.unwrap();
}
