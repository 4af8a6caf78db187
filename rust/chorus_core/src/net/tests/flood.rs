//! What a flood of gossip costs its receiver, in a process of its own. Figures, not assertions:
//! `cargo test --release net::tests::flood::receiver -- --ignored --nocapture`.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{Multiaddr, gossipsub::IdentTopic, identity::Keypair};

use super::kit::{node, raw_swarm};
use crate::{net::shared::now_ms, wire::Draft};

const TARGET: &str = "FLOOD_TARGET";
const KIND: &str = "FLOOD_KIND";
/// Messages of one flood, and how long a flooder that is kept out tries.
const MESSAGES: usize = 500_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Resident memory of this process, in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures; started by `receiver`"]
async fn flooder() {
    let Ok(target) = std::env::var(TARGET) else { return };
    let stale = std::env::var(KIND).is_ok_and(|kind| kind == "stale");
    let target: Multiaddr = target.parse().unwrap();
    let hostile = Keypair::generate_ed25519();
    let own = hostile.public().to_peer_id().to_string();
    let mut swarm = raw_swarm(&hostile);
    let topic = IdentTopic::new("chorus/tasks");
    swarm.behaviour_mut().gossip.subscribe(&topic).unwrap();
    let (began, mut dialled, mut n, mut ready) = (Instant::now(), Instant::now() - PATIENCE, 0, false);
    while n < MESSAGES && began.elapsed() < PATIENCE {
        if swarm.connected_peers().next().is_none() && dialled.elapsed() > Duration::from_millis(500) {
            dialled = Instant::now();
            let _ = swarm.dial(target.clone());
        }
        let data = format!("{{\"task_id\":\"{n:026}\",\"reason\":\"{}\"}}", "x".repeat(200));
        let message = Draft {
            kind: "task_cancel",
            from: &own,
            timestamp_ms: if stale { now_ms() - 3_600_000 } else { now_ms() },
            data: data.as_bytes(),
            hop_count: None,
            from_role: None,
            priority: None,
            thread_id: None,
        }
        .write()
        .unwrap();
        if ready && swarm.behaviour_mut().gossip.publish(topic.clone(), message).is_ok() {
            n += 1;
            if n % 64 != 0 {
                continue;
            }
        }
        ready = true;
        let _ = tokio::time::timeout(Duration::from_millis(1), swarm.select_next_some()).await;
    }
    println!("sent {n} messages in {:.1} s", began.elapsed().as_secs_f64());
    // What is queued goes out.
    let _ = tokio::time::timeout(Duration::from_secs(3), async {
        loop {
            swarm.select_next_some().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures"]
async fn receiver() {
    let node = node().await;
    // In a mesh, so that the flooder is a stranger.
    node.net.set_members(true, [node.peer()].into());
    let mut heard = node.net.subscribe(&["chorus/tasks".to_owned()], 4096);
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    for kind in ["stale", "fresh"] {
        let before = resident();
        let mut flooder = Command::new(std::env::current_exe().unwrap())
            .args(["net::tests::flood::flooder", "--exact", "--ignored", "--nocapture"])
            .env(TARGET, node.address())
            .env(KIND, kind)
            .stdout(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut most = before;
        while flooder.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            most = most.max(resident());
        }
        let stats = node.net.stats();
        println!(
            "{kind}: resident {before} MiB before, {most} at most; received {}, refused {:?}",
            stats.pubsub_received, stats.rejected
        );
    }
}
