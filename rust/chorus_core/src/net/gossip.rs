//! Topics in the loop: what is joined, what goes out (or waits for listeners), and who hears what the gate let in.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, PublishError, TopicHash};
use tokio::sync::oneshot;

use super::{
    GossipMessage,
    gossip_config::score_topic,
    gossip_gate::GatedGossip,
    shared::{Outgoing, Shared, bump, now_ms},
};
use crate::{
    Error, Result,
    wire::{Draft, Envelope, Topic},
};

/// Own messages that wait for a listener: so many, and so many bytes.
const HELD_MAX: usize = 1024;
const HELD_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The gossip side of the loop.
pub struct Gossip {
    shared: Arc<Shared>,
    joined: BTreeMap<String, (TopicHash, Topic)>,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Published when there was no room; nothing else is taken until it is out.
    parked: Option<Parked>,
    from: String,
}

struct Held {
    topic: TopicHash,
    bytes: Vec<u8>,
    until: Instant,
}

struct Parked {
    topic: Topic,
    bytes: Vec<u8>,
    reply: oneshot::Sender<Result<String>>,
}

/// How long a message is worth keeping until somebody listens. All are well below the tolerance on timestamps.
fn worth(topic: &Topic) -> Duration {
    match topic {
        Topic::Tasks | Topic::Decisions => Duration::from_secs(240),
        Topic::Election | Topic::Health => Duration::from_secs(10),
        _ => Duration::from_secs(60),
    }
}

impl Gossip {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            from: shared.local.to_string(),
            shared,
            joined: BTreeMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            parked: None,
        }
    }

    /// Whether another publication can be taken.
    pub fn ready(&self) -> bool {
        self.parked.is_none()
    }

    /// Joins and leaves topics so that the fixed ones and what local subscribers want are joined, and no others. The
    /// fixed ones are joined whether or not anybody here listens: a member with a single connection hears the whole
    /// mesh only when its one neighbour passes everything on. What nobody here wants ends at `deliver`.
    pub fn sync_topics(&mut self, gossip: &mut GatedGossip) {
        let mut wanted = self.shared.subscribers.topics();
        wanted.extend(Topic::FIXED.iter().map(Topic::to_string));
        let gone: Vec<String> = self.joined.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in gone {
            self.joined.remove(&name);
            gossip.unsubscribe(&IdentTopic::new(name));
        }
        for name in wanted {
            if self.joined.contains_key(&name) {
                continue;
            }
            let Ok(topic) = name.parse::<Topic>() else {
                tracing::warn!(topic = %name.escape_debug(), "a subscription to an unknown topic brings nothing");
                continue;
            };
            let ident = IdentTopic::new(name.clone());
            score_topic(gossip, &ident);
            match gossip.subscribe(&ident) {
                Ok(_) => {
                    self.joined.insert(name, (ident.hash(), topic));
                }
                Err(error) => tracing::warn!(topic = %name, %error, "the topic cannot be joined"),
            }
        }
    }

    /// Publishes what a local process wants to say.
    pub fn publish(&mut self, gossip: &mut GatedGossip, outgoing: Outgoing) {
        let Outgoing { topic, publish, reply } = outgoing;
        let role = self.shared.role();
        let draft = Draft {
            kind: &publish.kind,
            from: &self.from,
            timestamp_ms: now_ms(),
            data: &publish.data,
            hop_count: publish.hop_count,
            from_role: role.as_deref(),
            priority: publish.priority.as_deref(),
            thread_id: publish.thread_id.as_deref(),
        };
        let known = if topic.knows(&publish.kind) {
            draft.write()
        } else {
            Err(Error::Invalid(format!("{topic} carries no messages of type `{}`", publish.kind.escape_debug())))
        };
        match known {
            Ok(bytes) => self.send(gossip, Parked { topic, bytes, reply }),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn send(&mut self, gossip: &mut GatedGossip, parked: Parked) {
        let hash = IdentTopic::new(parked.topic.to_string()).hash();
        let outcome = match gossip.publish(hash.clone(), parked.bytes.clone()) {
            Ok(id) => {
                bump(&self.shared.counters.pubsub_sent);
                Ok(hex::encode(id.0))
            }
            Err(PublishError::AllQueuesFull(_)) => {
                self.parked = Some(parked);
                return;
            }
            Err(PublishError::NoPeersSubscribedToTopic) => Ok(self.hold(hash, parked.bytes, worth(&parked.topic))),
            Err(PublishError::MessageTooLarge) => Err(Error::TooLarge("the message does not fit the network".into())),
            Err(error) => Err(Error::Internal(format!("gossipsub: {error}"))),
        };
        let _ = parked.reply.send(outcome);
    }

    fn hold(&mut self, topic: TopicHash, bytes: Vec<u8>, worth: Duration) -> String {
        let id = format!("held-{}", hex::encode(rand::random::<[u8; 12]>()));
        self.held_bytes += bytes.len();
        self.held.push_back(Held { topic, bytes, until: Instant::now() + worth });
        while self.held.len() > HELD_MAX || self.held_bytes > HELD_MAX_BYTES {
            self.drop_oldest();
        }
        self.count_held();
        id
    }

    fn drop_oldest(&mut self) {
        if let Some(old) = self.held.pop_front() {
            self.held_bytes -= old.bytes.len();
            bump(&self.shared.counters.pubsub_expired);
        }
    }

    fn count_held(&self) {
        self.shared.counters.pubsub_held.store(self.held.len() as u64, Ordering::Relaxed);
    }

    /// Retries what had no room and forgets what waited too long; called often.
    pub fn tick(&mut self, gossip: &mut GatedGossip) {
        if let Some(parked) = self.parked.take() {
            self.send(gossip, parked);
        }
        let now = Instant::now();
        let before = self.held.len();
        self.held.retain(|held| held.until > now);
        if before != self.held.len() {
            self.shared.counters.pubsub_expired.fetch_add((before - self.held.len()) as u64, Ordering::Relaxed);
            self.held_bytes = self.held.iter().map(|held| held.bytes.len()).sum();
            self.count_held();
        }
        self.shared.counters.clock_skew.store(gossip.clock_skew(), Ordering::Relaxed);
    }

    /// Somebody listens to a topic now: what waited for that goes out.
    pub fn on_subscribed(&mut self, gossip: &mut GatedGossip, topic: &TopicHash) {
        if !self.held.iter().any(|held| held.topic == *topic) {
            return;
        }
        let mut left = VecDeque::new();
        for held in std::mem::take(&mut self.held) {
            if held.topic != *topic || gossip.publish(held.topic.clone(), held.bytes.clone()).is_err() {
                left.push_back(held);
            } else {
                bump(&self.shared.counters.pubsub_sent);
            }
        }
        self.held = left;
        self.held_bytes = self.held.iter().map(|held| held.bytes.len()).sum();
        self.count_held();
    }

    /// Hands a message that passed the gate to subscribers, and has gossipsub pass it on.
    pub fn on_message(
        &mut self,
        gossip: &mut GatedGossip,
        forwarder: &libp2p::PeerId,
        id: &gossipsub::MessageId,
        message: gossipsub::Message,
    ) {
        // Without a source it stands for those that the gate ignores.
        let (Some(from), Ok(envelope)) = (message.source, Envelope::read(&message.data)) else {
            gossip.report_message_validation_result(id, forwarder, MessageAcceptance::Ignore);
            return;
        };
        gossip.report_message_validation_result(id, forwarder, MessageAcceptance::Accept);
        bump(&self.shared.counters.pubsub_received);
        let gaps = self.shared.subscribers.deliver(&GossipMessage {
            topic: message.topic.into_string(),
            kind: envelope.kind,
            from,
            timestamp_ms: envelope.timestamp_ms,
            id: hex::encode(&id.0),
            sequence: message.sequence_number.unwrap_or_default(),
            raw: Bytes::from(message.data),
        });
        self.shared.counters.pubsub_gaps.fetch_add(gaps, Ordering::Relaxed);
    }
}
