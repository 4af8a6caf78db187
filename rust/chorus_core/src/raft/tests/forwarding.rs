//! Proposals through a member that does not lead.

use serde_json::json;

use super::threads::{Agent, PATIENCE, Wires, mesh};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_is_forwarded_while_the_own_log_is_busy() {
    let wires = Wires::default();
    let agents: Vec<Agent> = (0..3).map(|_| Agent::new(&wires)).collect();
    let handles = mesh(&agents).await;
    let release = handles[1].hold_for_test();
    let body = json!({ "text": "past the own log's thread" }).to_string();
    let proposed = handles[1].propose("note", None, body.as_bytes(), PATIENCE).await.unwrap();
    assert!(proposed.index <= handles[0].status().commit);
    drop(release);
    for agent in &agents {
        agent.stop().await;
    }
}
