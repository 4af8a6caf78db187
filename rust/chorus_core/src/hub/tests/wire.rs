//! Who gets in, what a frame must be, and that one bad or slow connection is nobody else's trouble.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{
    backend::Served,
    client::{Client, PATIENCE, frame},
};

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_hub() {
    let served = Served::start();
    let mode = std::fs::metadata(served.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(served.folder.path()).unwrap().count(), 1, "no nest is left behind");
    let mut client = Client::hello(&served.path(), "a").await;
    served.hub.close().await;
    client.closed().await;
    assert!(!served.path().exists());
}

#[tokio::test]
async fn bad_frames_close_their_connection_alone() {
    let served = Served::start();
    let mut good = Client::hello(&served.path(), "good").await;
    let call = frame(1, 9, &json!({"m": "echo"}), b"");
    let mut not_json = call.clone();
    not_json[13] = b'!';
    let mut long_head = call.clone();
    long_head[9] = 0xff;
    let bad: Vec<Vec<u8>> = vec![
        u32::MAX.to_be_bytes().to_vec(),
        (17 * 1024 * 1024 + 1u32).to_be_bytes().to_vec(),
        vec![0, 0, 0, 1, 1],
        frame(0, 1, &Value::Null, b""),
        frame(10, 1, &Value::Null, b""),
        frame(4, 1, &Value::Null, b""),
        frame(5, 1, &json!({"n": -1}), b""),
        frame(1, 1, &json!({"no": "method"}), b""),
        not_json,
        long_head,
    ];
    let count = bad.len() as u64;
    for bytes in bad {
        let mut client = Client::hello(&served.path(), "bad").await;
        client.socket.write_all(&bytes).await.unwrap();
        client.closed().await;
        assert_eq!(good.call(json!({"m": "echo", "x": 1}), b"p").await.payload, b"p");
    }
    assert_eq!(served.hub.stats().hub_bad_connections, count);
}

#[tokio::test]
async fn nothing_goes_before_hello() {
    let served = Served::start();
    for first in [
        frame(1, 1, &json!({"m": "echo"}), b""),
        frame(7, 1, &Value::Null, b""),
        frame(1, 1, &json!({"m": "hello"}), b""),
    ] {
        let mut client = Client::raw(&served.path()).await;
        client.socket.write_all(&first).await.unwrap();
        client.closed().await;
    }
}

#[tokio::test]
async fn unknown_methods_and_missing_parameters_are_answers_not_ends() {
    let served = Served::start();
    let mut client = Client::hello(&served.path(), "a").await;
    for head in [
        json!({"m": "nonsense"}),
        json!({"m": "call"}),
        json!({"m": "subscribe"}),
        json!({"m": "offer", "service": "_x"}),
    ] {
        let got = client.call(head, b"").await;
        assert_eq!((got.op, got.head["code"].as_str()), (3, Some("invalid")));
    }
    let got = client.call(json!({"m": "call", "service": "none", "method": "x"}), b"").await;
    assert_eq!(got.head["code"], "unavailable");
}

#[tokio::test]
async fn payloads_pass_untouched_and_calls_overtake() {
    let served = Served::start();
    let mut client = Client::hello(&served.path(), "a").await;
    let stuck = client.start(json!({"m": "stuck"}), b"").await;
    let payload: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let got = client.call(json!({"m": "echo", "ü": "ß"}), &payload).await;
    assert!(got.payload == payload && got.head["ü"] == "ß");
    client.send(6, stuck, &Value::Null, b"").await;
    assert_eq!(client.call(json!({"m": "echo"}), b"x").await.payload, b"x");
}

#[tokio::test]
async fn a_feed_sends_what_credit_allows() {
    let served = Served::start();
    let mut client = Client::hello(&served.path(), "a").await;
    let sub = client.call(json!({"m": "count", "queue": 3}), b"").await.head["sub"].as_u64().unwrap() as u32;
    for n in 1..=3 {
        assert_eq!(client.event().await.head["n"], n);
    }
    // Whatever would come beyond the credit would be there before this answer.
    client.call(json!({"m": "echo"}), b"").await;
    client.send(5, sub, &json!({"n": 2}), b"").await;
    assert_eq!(client.event().await.head["n"], 4);
    assert_eq!(client.event().await.head["n"], 5);
    assert_eq!(client.call(json!({"m": "unsubscribe", "sub": sub}), b"").await.op, 2);
}

#[tokio::test]
async fn a_feed_that_blocks_holds_up_nobody_and_ends_with_its_subscription() {
    let served = Served::start();
    let mut client = Client::hello(&served.path(), "a").await;
    served.numbers.send(6).unwrap();
    let call = client.start(json!({"m": "block"}), b"").await;
    let first = client.expect(|_| true).await;
    assert_eq!((first.op, first.id), (2, call), "no item comes before the subscription's id");
    let sub = first.head["sub"].as_u64().unwrap();
    assert_eq!(client.event().await.head["n"], 6);
    assert_eq!(client.call(json!({"m": "echo"}), b"x").await.payload, b"x");
    served.numbers.send(7).unwrap();
    assert_eq!(client.event().await.head["n"], 7);
    assert_eq!(client.call(json!({"m": "unsubscribe", "sub": sub}), b"").await.op, 2);
    tokio::task::spawn_blocking(move || {
        // At most one number is waited for; after it the feed is dropped.
        let patience_ends = std::time::Instant::now() + PATIENCE;
        while served.numbers.send(8).is_ok() {
            assert!(std::time::Instant::now() < patience_ends, "the feed is still there");
            std::thread::yield_now();
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_slow_reader_of_a_local_topic_sees_a_counted_gap_and_slows_nobody() {
    let served = Served::start();
    let (mut slow, mut fast) =
        (Client::hello(&served.path(), "slow").await, Client::hello(&served.path(), "fast").await);
    let sub = slow.call(json!({"m": "subscribe", "topics": ["local/t"], "queue": 2}), b"").await.head["sub"]
        .as_u64()
        .unwrap();
    fast.call(json!({"m": "subscribe", "topics": ["local/t"], "queue": 100}), b"").await;
    for n in 0..10u8 {
        assert_eq!(fast.call(json!({"m": "publish", "topic": "local/t"}), &[n]).await.op, 2);
    }
    for n in 0..10u8 {
        let got = fast.event().await;
        assert_eq!((got.payload.as_slice(), got.head["from"].as_str()), (&[n][..], Some("fast")));
    }
    slow.send(5, sub as u32, &json!({"n": 5}), b"").await;
    // The credit is counted when this is answered.
    slow.call(json!({"m": "echo"}), b"").await;
    fast.call(json!({"m": "publish", "topic": "local/t"}), &[10]).await;
    let got: Vec<_> = [slow.event().await, slow.event().await, slow.event().await].into();
    assert_eq!(got.iter().map(|g| g.payload[0]).collect::<Vec<_>>(), [0, 1, 10]);
    assert_eq!(got[2].head["gap"], 8);
    assert_eq!(served.hub.stats().hub_local_gaps, 8);
}
