//! Calls, requests and streams between processes.

use serde_json::{Value, json};

use super::{backend::Served, client::Client};

async fn offer(served: &Served, name: &str, peers: bool) -> Client {
    let mut client = Client::hello(&served.path(), name).await;
    assert_eq!(client.call(json!({"m": "offer", "service": "s", "peers": peers}), b"").await.op, 2);
    client
}

#[tokio::test]
async fn calls_reach_the_process_that_offers_and_answers_come_back() {
    let served = Served::start();
    let mut server = offer(&served, "server", false).await;
    let mut caller = Client::hello(&served.path(), "caller").await;
    let call = caller
        .start(json!({"m": "call", "service": "s", "method": "m", "head": {"a": [1]}, "timeout_ms": 5000}), b"in")
        .await;
    let asked = server.serve().await;
    assert_eq!(asked.payload, b"in");
    assert_eq!(
        asked.head,
        json!({"m": "serve", "service": "s", "method": "m", "head": {"a": [1]}, "timeout_ms": 5000, "peer": null, "process": "caller"})
    );
    server.send(2, asked.id, &json!({"b": 2}), b"out").await;
    let got = caller.answer(call).await;
    assert_eq!((got.head, got.payload.as_slice()), (json!({"head": {"b": 2}}), &b"out"[..]));

    let call = caller.start(json!({"m": "call", "service": "s", "method": "m"}), b"").await;
    let asked = server.serve().await;
    server.send(3, asked.id, &json!({"code": "refused", "message": "busy"}), b"").await;
    assert_eq!(caller.answer(call).await.head, json!({"code": "refused", "message": "busy"}));
}

#[tokio::test]
async fn deadlines_cancels_and_deaths_end_calls() {
    let served = Served::start();
    let mut server = offer(&served, "server", false).await;
    let mut caller = Client::hello(&served.path(), "caller").await;
    let ask = |ms: u64| json!({"m": "call", "service": "s", "method": "m", "timeout_ms": ms});

    let call = caller.start(ask(1), b"").await;
    let asked = server.serve().await;
    assert_eq!(caller.answer(call).await.head["code"], "timeout");
    assert_eq!(server.expect(|got| got.op == 6).await.id, asked.id);
    // Too late: nobody minds.
    server.send(2, asked.id, &Value::Null, b"").await;

    let call = caller.start(ask(60_000), b"").await;
    let asked = server.serve().await;
    caller.send(6, call, &Value::Null, b"").await;
    assert_eq!(server.expect(|got| got.op == 6).await.id, asked.id);

    let call = caller.start(ask(60_000), b"").await;
    server.serve().await;
    drop(server);
    assert_eq!(caller.answer(call).await.head["code"], "unavailable");
    assert_eq!(caller.call(ask(60_000), b"").await.head["code"], "unavailable");

    let mut newer = offer(&served, "newer", false).await;
    let call = caller.start(ask(60_000), b"").await;
    let asked = newer.serve().await;
    newer.send(2, asked.id, &Value::Null, b"").await;
    assert_eq!(caller.answer(call).await.op, 2);

    // No call waits any more: the next one has its deadline looked after all the same.
    let call = caller.start(ask(1), b"").await;
    newer.serve().await;
    assert_eq!(caller.answer(call).await.head["code"], "timeout");
}

#[tokio::test]
async fn a_garbled_answer_ends_its_server_and_tells_the_caller() {
    let served = Served::start();
    let mut server = offer(&served, "server", false).await;
    let mut caller = Client::hello(&served.path(), "caller").await;
    let call = caller.start(json!({"m": "call", "service": "s", "method": "m"}), b"").await;
    let asked = server.serve().await;
    server.send(2, asked.id, &json!([1]), b"").await;
    server.closed().await;
    assert_eq!(caller.answer(call).await.head["code"], "internal");
}

#[tokio::test]
async fn peers_reach_only_what_is_offered_to_peers() {
    let served = Served::start();
    let mut caller = Client::hello(&served.path(), "caller").await;
    let ask =
        |service: &str| json!({"m": "request", "peer": "other", "service": service, "method": "m", "head": {"x": 1}});
    let mut server = offer(&served, "server", false).await;
    assert_eq!(caller.call(ask("s"), b"").await.head["code"], "unavailable");
    assert_eq!(server.call(json!({"m": "offer", "service": "s", "peers": true}), b"").await.op, 2);
    let call = caller.start(ask("s"), b"in").await;
    let asked = server.serve().await;
    assert!(asked.head["peer"].is_string() && asked.head["process"].is_null() && asked.head["head"]["x"] == 1);
    server.send(2, asked.id, &json!({"y": 2}), b"out").await;
    let got = caller.answer(call).await;
    assert_eq!((&got.head["head"]["y"], got.payload.as_slice()), (&json!(2), &b"out"[..]));
    assert_eq!(caller.call(ask("_core"), b"").await.head["code"], "unavailable", "no process offers it");
}

#[tokio::test]
async fn a_service_belongs_to_the_process_that_the_rules_name() {
    let rules = serde_json::from_value(json!({
        "s": {"process": "server", "peers": ["open"]}, "own": {"process": "server"},
    }));
    let served = Served::with_rules(Some(rules.unwrap()));
    let mut server = offer(&served, "server", true).await;
    assert_eq!(server.call(json!({"m": "offer", "service": "own", "peers": true}), b"").await.op, 2);
    let mut other = Client::hello(&served.path(), "other").await;
    for service in ["s", "own", "unheard of"] {
        let refused = other.call(json!({"m": "offer", "service": service, "peers": true}), b"").await;
        assert_eq!(refused.head["code"], "not_permitted");
    }
    // Siblings reach everything, peers what is listed, whatever the process offers.
    for (service, method) in [("s", "open"), ("s", "own"), ("own", "any")] {
        let call = other.start(json!({"m": "call", "service": service, "method": method}), b"").await;
        let asked = server.serve().await;
        server.send(2, asked.id, &Value::Null, b"").await;
        assert_eq!(other.answer(call).await.op, 2);
    }
    let ask = |service: &str, method: &str| json!({"m": "request", "peer": "p", "service": service, "method": method});
    for (service, method) in [("s", "own"), ("s", ""), ("own", "any"), ("own", "open")] {
        assert_eq!(other.call(ask(service, method), b"").await.head["code"], "not_permitted");
    }
    let call = other.start(ask("s", "open"), b"").await;
    let asked = server.serve().await;
    server.send(2, asked.id, &Value::Null, b"").await;
    assert_eq!(other.answer(call).await.op, 2);
    // The same process, connected anew, takes its service over.
    let mut again = offer(&served, "server", true).await;
    let call = other.start(ask("s", "open"), b"").await;
    let asked = again.serve().await;
    again.send(2, asked.id, &Value::Null, b"").await;
    assert_eq!(other.answer(call).await.op, 2);
}

#[tokio::test]
async fn streams_carry_bytes_windows_ends_and_resets() {
    let served = Served::start();
    let mut server = offer(&served, "server", false).await;
    let mut caller = Client::hello(&served.path(), "caller").await;
    let open = |id: u32| json!({"m": "stream", "service": "s", "method": "m", "stream": id});

    let call = caller.start(open(1), b"").await;
    let asked = server.serve().await;
    let far = asked.head["stream"].as_u64().unwrap() as u32;
    assert_eq!((asked.head["m"].as_str(), far % 2), (Some("stream"), 0));
    server.send(2, asked.id, &Value::Null, b"").await;
    assert_eq!(caller.answer(call).await.head["stream"], 1);

    caller.send(7, 1, &Value::Null, b"abc").await;
    let data = server.expect(|got| got.op == 7).await;
    assert_eq!((data.id, data.payload.as_slice()), (far, &b"abc"[..]));
    server.send(8, far, &json!({"n": 3}), b"").await;
    assert_eq!(caller.expect(|got| got.op == 8).await.head["n"], 3);
    caller.send(9, 1, &Value::Null, b"").await;
    assert_eq!(server.expect(|got| got.op == 9).await.head, json!({}));
    server.send(7, far, &Value::Null, b"back").await;
    assert_eq!(caller.expect(|got| got.op == 7).await.payload, b"back");
    server.send(9, far, &json!({"code": "refused", "message": "enough"}), b"").await;
    assert_eq!(caller.expect(|got| got.op == 9).await.head["code"], "refused");

    // Refused at the door, and a server that dies in the middle.
    let call = caller.start(open(3), b"").await;
    let asked = server.serve().await;
    server.send(3, asked.id, &json!({"code": "not_found", "message": "no"}), b"").await;
    assert_eq!(caller.answer(call).await.head["code"], "not_found");
    let call = caller.start(open(5), b"").await;
    let asked = server.serve().await;
    server.send(2, asked.id, &Value::Null, b"").await;
    caller.answer(call).await;
    drop(server);
    let end = caller.expect(|got| got.op == 9).await;
    assert_eq!((end.id, end.head["code"].as_str()), (5, Some("closed")));
}

#[tokio::test]
async fn more_than_the_window_closes_the_connection() {
    let served = Served::start();
    let mut server = offer(&served, "server", false).await;
    let mut caller = Client::hello(&served.path(), "caller").await;
    let call = caller.start(json!({"m": "stream", "service": "s", "method": "m", "stream": 1}), b"").await;
    let asked = server.serve().await;
    server.send(2, asked.id, &Value::Null, b"").await;
    caller.answer(call).await;
    caller.send(7, 1, &Value::Null, &vec![0; 1024 * 1024]).await;
    caller.send(7, 1, &Value::Null, b"x").await;
    caller.closed().await;
    assert_eq!(server.expect(|got| got.op == 9).await.head["code"], "closed");
}

#[tokio::test]
async fn what_waits_for_a_peer_that_reads_nothing_is_bounded_over_all_its_streams() {
    const STREAMS: u32 = 40;
    let served = Served::start();
    let mut caller = Client::hello(&served.path(), "caller").await;
    let open =
        |peer: &str, id: u32| json!({"m": "stream", "peer": peer, "service": "unread", "method": "m", "stream": id});
    for id in (1..2 * STREAMS).step_by(2) {
        let call = caller.start(open("stuck", id), b"").await;
        assert_eq!(caller.answer(call).await.op, 2);
        caller.send(7, id, &Value::Null, &vec![7; 1024 * 1024]).await;
    }
    // 32 MiB wait: every stream beyond is given up by name, the others stay.
    for _ in 32..STREAMS {
        let end = caller.expect(|got| got.op == 9).await;
        assert_eq!(end.head["code"], "unavailable");
        assert!(end.head["message"].as_str().unwrap().contains("does not read"));
    }
    assert_eq!(served.hub.stats().hub_waiting_bytes, 32 * 1024 * 1024);
    let call = caller.start(open("another", 201), b"").await;
    assert_eq!(caller.answer(call).await.op, 2);
    caller.send(7, 201, &Value::Null, &vec![7; 1024 * 1024]).await;
    assert_eq!(caller.call(json!({"m": "echo"}), b"x").await.payload, b"x");
    assert_eq!(served.hub.stats().hub_waiting_bytes, 33 * 1024 * 1024);
}
