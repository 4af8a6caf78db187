//! How gossipsub runs: signed, strictly checked, validated by us, scored without punishing small or quiet meshes.

use std::{sync::Arc, time::Duration};

use libp2p::{
    gossipsub::{
        Behaviour, ConfigBuilder, IdentTopic, Message, MessageAuthenticity, MessageId, PeerScoreParams,
        PeerScoreThresholds, TopicScoreParams, ValidationMode,
    },
    identity::Keypair,
};

use super::{gossip_gate::GatedGossip, shared::Shared};
use crate::{Error, Result, wire::ENVELOPE_MAX_BYTES};

/// An envelope with signature, key, topic and framing around it.
const TRANSMIT_MAX_BYTES: usize = ENVELOPE_MAX_BYTES + 4096;
/// How long gossipsub remembers ids, at some 250 bytes each: far longer than peers offer messages to each other (a few
/// heartbeats). What comes later than that the gate knows, which remembers 11 minutes in 9 bytes each.
const DUPLICATE_CACHE: Duration = Duration::from_secs(60);
/// Ids in one offer of messages, and asked for of one peer per heartbeat: what fits the 16 KiB of control messages that
/// receivers take at once.
const OFFERED_IDS_MAX: usize = 300;
/// The id of all messages that the gate ignores.
const IGNORED_ID: &[u8] = b"ignored";
/// Messages waiting to be written to one peer; when every peer's queue is full, publishers wait.
const PEER_QUEUE: usize = 4096;
/// How long a message may wait there. Only a bound: a peer that takes nothing is found dead by ping long before.
const PEER_QUEUE_TIME: Duration = Duration::from_secs(60);
/// Messages this large are worth telling others that they need not send them.
const IDONTWANT_BYTES: usize = 16 * 1024;
/// How long a peer that sent rubbish is remembered for it.
const MEMORY: Duration = Duration::from_secs(10 * 60);
/// What one invalid message costs (squared with their number): 20 of them end all dealings for a while.
const INVALID_WEIGHT: f64 = -10.0;

/// From here on nothing of a peer is listened to.
pub const GRAYLIST_THRESHOLD: f64 = -4000.0;

/// gossipsub behind its gate, subscribed to nothing yet.
pub fn behaviour(keypair: &Keypair, shared: &Arc<Shared>) -> Result<GatedGossip> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(message_id)
        .max_transmit_size(TRANSMIT_MAX_BYTES)
        .duplicate_cache_time(DUPLICATE_CACHE)
        .max_control_messages_sent(OFFERED_IDS_MAX)
        .flood_publish(true)
        .heartbeat_initial_delay(Duration::from_millis(200))
        .heartbeat_interval(Duration::from_secs(1))
        .connection_handler_queue_len(PEER_QUEUE)
        .publish_queue_duration(PEER_QUEUE_TIME)
        .forward_queue_duration(PEER_QUEUE_TIME)
        .idontwant_message_size_threshold(IDONTWANT_BYTES)
        // A peer that lost its connection and comes back must not wait a minute for its place in the mesh.
        .prune_backoff(Duration::from_secs(10))
        .unsubscribe_backoff(Duration::from_secs(1))
        .graft_flood_threshold(Duration::from_secs(1))
        .build()
        .map_err(|e| Error::Internal(format!("gossipsub: {e}")))?;
    let author = MessageAuthenticity::Signed(keypair.clone());
    let mut gossip = GatedGossip::new(shared, |transform, filter| {
        Behaviour::new_with_subscription_filter_and_transform(author, config, filter, transform)
            .map_err(|e| Error::Internal(format!("gossipsub: {e}")))
    })?;
    gossip.with_peer_score(peer_score(), thresholds()).map_err(|e| Error::Internal(format!("gossipsub: {e}")))?;
    Ok(gossip)
}

/// Scores a topic once it is joined; unscored topics would forgive everything.
pub fn score_topic(gossip: &mut GatedGossip, topic: &IdentTopic) {
    if let Err(error) = gossip.set_topic_params(topic.clone(), topic_score()) {
        tracing::warn!(%topic, %error, "the topic is not scored");
    }
}

/// Signer and sequence number, as the specification has it, so that go-libp2p asks for messages by the same ids.
fn message_id(message: &Message) -> MessageId {
    let Some(source) = message.source else { return MessageId::from(IGNORED_ID) };
    let mut id = source.to_bytes();
    id.extend_from_slice(&message.sequence_number.unwrap_or_default().to_be_bytes());
    MessageId::from(id)
}

fn peer_score() -> PeerScoreParams {
    PeerScoreParams {
        // Several agents on one machine share an address; that is no offence.
        ip_colocation_factor_weight: 0.0,
        app_specific_weight: 0.0,
        // Mesh churn at start-up (grafts before a backoff is over) is normal up to the threshold. So are messages that a
        // neighbour offers, sends when asked, and we ignore because their signer is beyond its rate here: gossipsub
        // takes that for a broken promise, ten times a second's worth of them at most.
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 10_000.0,
        behaviour_penalty_decay: 0.9,
        // A slow reader already loses messages; it is not to lose the mesh too.
        slow_peer_weight: 0.0,
        retain_score: MEMORY,
        topic_score_cap: 100.0,
        ..PeerScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -500.0,
        publish_threshold: -1000.0,
        graylist_threshold: GRAYLIST_THRESHOLD,
        accept_px_threshold: 100.0,
        opportunistic_graft_threshold: 1.0,
    }
}

fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 300.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_cap: 100.0,
        // Delivering little is no fault where little is said: no penalties for quiet peers.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: INVALID_WEIGHT,
        invalid_message_deliveries_decay: 0.99,
        ..TopicScoreParams::default()
    }
}
