//! Figures, not assertions: `cargo test --release raft::tests::bench -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::threads::{Agent, PATIENCE, Wires, mesh, settings, wait_for};
use crate::raft::RaftHandle;

/// What one write that reaches the disk costs here and now; every commit takes at least one.
fn sync_latency() -> Duration {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0; 65_536]).unwrap();
    let mut spans = Vec::new();
    for _ in 0..200 {
        file.rewind().unwrap();
        file.write_all(&[1; 4096]).unwrap();
        let start = Instant::now();
        file.sync_data().unwrap();
        spans.push(start.elapsed());
    }
    spans.sort();
    spans[100]
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn latencies(handle: &RaftHandle, count: usize) -> Vec<Duration> {
    let body = json!({ "text": "x".repeat(200) }).to_string();
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        handle.propose("note", None, body.as_bytes(), PATIENCE).await.unwrap();
        spans.push(start.elapsed());
    }
    spans.sort();
    spans
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a benchmark"]
async fn commit_latency_and_throughput_of_three_members() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..3).map(|_| Agent::new(&wires)).collect();
    let handles = mesh(&agents).await;
    println!("fdatasync of one page: p50 {:?}", sync_latency());
    for (name, handle) in [("leader", &handles[0]), ("follower", &handles[1])] {
        latencies(handle, 50).await;
        let spans = latencies(handle, 500).await;
        println!("commit through the {name}: p50 {:?}, p99 {:?}", spans[250], spans[495]);
    }
    let body = json!({ "text": "x".repeat(200) }).to_string();
    let (start, cpu_before) = (Instant::now(), cpu());
    let proposers = (0..64).map(|number| {
        let (handle, body) = (handles[number % 3].clone(), body.clone());
        tokio::spawn(async move {
            for _ in 0..100 {
                handle.propose("note", None, body.as_bytes(), PATIENCE).await.unwrap();
            }
        })
    });
    futures::future::join_all(proposers).await;
    println!(
        "64 proposers: {:.0} entries/s, {:?} of CPU an entry on all three",
        6400.0 / start.elapsed().as_secs_f64(),
        (cpu() - cpu_before) / 6400
    );
    let start = Instant::now();
    for _ in 0..500 {
        let _ = handles[0].read_index().await;
    }
    println!("read_index: {:?} each", start.elapsed() / 500);
    let start = Instant::now();
    agents[0].stop().await;
    wait_for(&handles[1], |status| status.leader.as_ref().is_some_and(|peer| *peer != agents[0].peer.to_string()))
        .await;
    println!("failover at {}: {:?}", settings(), start.elapsed());
    for agent in &agents[1..] {
        agent.stop().await;
    }
}
