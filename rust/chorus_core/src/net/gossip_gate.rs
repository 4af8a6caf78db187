//! The gate in front of gossipsub: every message of another peer gets its verdict before gossipsub puts it, or its id,
//! into a cache. The verdict itself is [`crate::wire::Gate`]'s; here it is tied to who passed the message on.
//!
//! gossipsub shows a message first to its data transform, which may refuse it (reject), but has no word for "ignore".
//! A message to be ignored is therefore turned into one without a signer, and all of those have one id: after the first
//! gossipsub takes every other for a duplicate, and keeps nothing of it.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub::{
        self, DataTransform, MaxCountSubscriptionFilter, Message, RawMessage, TopicHash, TopicSubscriptionFilter,
    },
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};

use super::{
    Offence,
    gossip_config::GRAYLIST_THRESHOLD,
    shared::{Shared, now_ms},
};
use crate::wire::{Arrival, ControlRates, Gate, Reason, Standing, Topic, Verdict};

/// Topics that one peer may follow: the fixed ones, and many more roles and skills than an agent has.
const SUBSCRIPTIONS_MAX: usize = 256;

type Inner = gossipsub::Behaviour<Transform, Filter>;
type Filter = MaxCountSubscriptionFilter<KnownTopics>;

/// gossipsub behind the gate.
pub struct GatedGossip {
    inner: Inner,
    judge: Arc<Judge>,
}

impl GatedGossip {
    /// Puts the gate in front of what `build` makes of the transform and the filter.
    pub fn new(
        shared: &Arc<Shared>,
        build: impl FnOnce(Transform, Filter) -> crate::Result<Inner>,
    ) -> crate::Result<Self> {
        let judge = Arc::new(Judge { shared: Arc::clone(shared), state: Mutex::default() });
        let filter = MaxCountSubscriptionFilter {
            filter: KnownTopics,
            max_subscribed_topics: SUBSCRIPTIONS_MAX,
            max_subscriptions_per_request: 2 * SUBSCRIPTIONS_MAX,
        };
        Ok(Self { inner: build(Transform(Arc::clone(&judge)), filter)?, judge })
    }

    /// Whether more than half of the clocks heard lately disagree with ours.
    pub fn clock_skew(&self) -> bool {
        self.judge.state().gate.clock_skew(now_ms())
    }

    /// Connected peers that gossipsub does not listen to any more, because of what they sent.
    pub fn graylisted(&self) -> Vec<PeerId> {
        let below = |peer: &&PeerId| self.inner.peer_score(peer).is_some_and(|score| score < GRAYLIST_THRESHOLD);
        self.inner.all_peers().map(|(peer, _)| peer).filter(below).copied().collect()
    }
}

impl Deref for GatedGossip {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for GatedGossip {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

/// Judges messages as they arrive.
struct Judge {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gate: Gate,
    control: ControlRates,
    /// Who sent what gossipsub is looking at now.
    forwarder: Option<PeerId>,
    /// Whether a message with a valid signature was in it.
    signed: bool,
}

impl Judge {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether gossipsub is to see what the peer sent. What it is, is gossipsub's secret: only afterwards it shows whether
    /// there was a message in it. A peer that sent too much without one is not heard until it has room again.
    fn opens(&self, peer: PeerId) -> bool {
        let mut state = self.state();
        let open = state.control.has_room(now_ms(), &peer, self.shared.standing(&peer));
        state.forwarder = Some(peer);
        state.signed = false;
        drop(state);
        if !open {
            self.shared.blame_for_gossip(peer, Offence::Chatty);
        }
        open
    }

    /// gossipsub has seen it.
    fn closes(&self, peer: PeerId) {
        let mut state = self.state();
        if !state.signed {
            state.control.note(now_ms(), &peer, self.shared.standing(&peer));
        }
    }

    fn judge(&self, message: &RawMessage) -> Answer {
        let mut state = self.state();
        state.signed = true;
        let (Some(signer), Some(forwarder)) = (message.source, state.forwarder) else {
            return Answer::Reject;
        };
        if signer == self.shared.local {
            // gossipsub knows what it published itself, and refuses what others say in our name.
            return Answer::Pass;
        }
        let topic = message.topic.as_str().parse::<Topic>().ok();
        let standing = self.shared.standing(&signer);
        let verdict = state.gate.judge(
            now_ms(),
            Arrival {
                topic: topic.as_ref(),
                signer: &signer,
                forwarder: &forwarder,
                standing,
                sequence: message.sequence_number.unwrap_or_default(),
                data: &message.data,
            },
        );
        let (answer, reason, offence) = match verdict {
            Verdict::Accept(_) => return Answer::Pass,
            Verdict::Reject(reason) => (Answer::Reject, reason, Some(Offence::Rejected)),
            Verdict::Ignore(reason) => {
                let own = signer == forwarder && standing == Standing::Stranger && reason != Reason::UnknownType;
                (Answer::Drop, reason, own.then_some(Offence::Ignored))
            }
        };
        if let Some(offence) = offence {
            self.shared.blame_for_gossip(forwarder, offence);
        }
        self.shared.counters.reject(reason);
        tracing::debug!(%forwarder, reason = reason.as_str(), "a gossip message did not pass");
        answer
    }
}

/// What gossipsub is to do.
enum Answer {
    Pass,
    Drop,
    Reject,
}

/// Shows gossipsub what it may see of a message.
pub struct Transform(Arc<Judge>);

impl DataTransform for Transform {
    fn inbound_transform(&self, raw: RawMessage) -> io::Result<Message> {
        match self.0.judge(&raw) {
            Answer::Pass => Ok(Message {
                source: raw.source,
                data: raw.data,
                sequence_number: raw.sequence_number,
                topic: raw.topic,
            }),
            Answer::Drop => Ok(Message { source: None, data: Vec::new(), sequence_number: None, topic: raw.topic }),
            Answer::Reject => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(data)
    }
}

/// Only topics of CHORUS are followed, whoever asks.
pub struct KnownTopics;

impl TopicSubscriptionFilter for KnownTopics {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        topic.as_str().parse::<Topic>().is_ok()
    }
}

impl NetworkBehaviour for GatedGossip {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = gossipsub::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        if self.judge.opens(peer) {
            self.inner.on_connection_handler_event(peer, connection, event);
            self.judge.closes(peer);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;
    use crate::wire::Draft;

    /// The judge of an agent whose mesh has one other member.
    fn judge() -> (Judge, PeerId) {
        let (local, member) = (PeerId::random(), PeerId::random());
        let shared = Arc::new(Shared::new(local, false, None));
        shared.wall.set_members(true, [local, member].into());
        (Judge { shared, state: Mutex::default() }, member)
    }

    fn raw(signer: PeerId, sequence: u64, kind: &str, at: u64) -> RawMessage {
        let from = signer.to_string();
        let draft = Draft {
            kind,
            from: &from,
            timestamp_ms: at,
            data: b"{}",
            hop_count: None,
            from_role: None,
            priority: None,
            thread_id: None,
        };
        RawMessage {
            source: Some(signer),
            data: draft.write().unwrap(),
            sequence_number: Some(sequence),
            topic: TopicHash::from_raw("chorus/tasks"),
            signature: None,
            key: None,
            validated: false,
        }
    }

    /// Whether a message is held against its forwarder.
    fn blames(judge: &Judge, forwarder: PeerId, message: &RawMessage) -> bool {
        judge.state().forwarder = Some(forwarder);
        let before = judge.shared.counters.stats().peer_offences;
        judge.judge(message);
        judge.shared.counters.stats().peer_offences > before
    }

    #[test]
    fn who_is_blamed_for_what() {
        let ((judge, member), stranger) = (judge(), PeerId::random());
        let (now, kind) = (now_ms(), "task_cancel");
        let stale = now - 3_600_000;
        for (what, signer, forwarder, kind, at, blamed) in [
            ("good", stranger, stranger, kind, now, false),
            ("its own old message", stranger, stranger, kind, stale, true),
            ("another's old message", stranger, member, kind, stale, false),
            ("a stranger's relay of a member's old message", member, stranger, kind, stale, false),
            ("a member's wrong clock", member, member, kind, stale, false),
            ("an unknown type", stranger, stranger, "nonsense", now, false),
        ] {
            assert_eq!(blames(&judge, forwarder, &raw(signer, rand::random(), kind, at)), blamed, "{what}");
        }
        let mut broken = raw(stranger, 1, kind, now);
        broken.data = b"{\"\xff\"".to_vec();
        assert!(blames(&judge, stranger, &broken));
        // An older member passes on what a newer one rejects.
        assert!(!blames(&judge, member, &broken));
    }

    #[test]
    fn what_is_ignored_has_one_id_and_no_content() {
        let ((judge, _), stranger) = (judge(), PeerId::random());
        let transform = Transform(Arc::new(judge));
        transform.0.state().forwarder = Some(stranger);
        let stale = now_ms() - 3_600_000;
        for sequence in 0..3 {
            let message = transform.inbound_transform(raw(stranger, sequence, "task_cancel", stale)).unwrap();
            assert_eq!((message.source, message.data.len(), message.sequence_number), (None, 0, None));
        }
        let good = raw(stranger, 4, "task_cancel", now_ms());
        assert_eq!(transform.inbound_transform(good.clone()).unwrap().data, good.data);
    }

    #[test]
    fn only_topics_of_the_protocol_are_followed() {
        let known = |topic: &str| KnownTopics.can_subscribe(&TopicHash::from_raw(topic));
        assert!(known("chorus/tasks") && known("chorus/role/developer"));
        assert!(!known("anything") && !known(&format!("chorus/role/{}", "x".repeat(1000))));
    }
}
