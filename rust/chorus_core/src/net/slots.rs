//! Who has a connection: most slots are kept for members; some serve strangers, where the longest idle one yields to a
//! newcomer. A stranger that claims to join and brings no proof is closed. [`Slots`] is pure and decides;
//! [`Behaviour`] asks it for each connection and closes what has to yield.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::{addresses::ip_of, penalty::Offence, shared::Shared};

/// Connections in all.
const CONNECTIONS_MAX: usize = 1024;
/// Those of strangers, once there are members to keep the others for.
const STRANGERS_MAX: usize = 128;
/// Those of strangers from one IP address.
const STRANGERS_PER_IP_MAX: usize = 64;
/// How long a stranger that said it would join may take to become a member.
const PROOF_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// What a peer is to this agent when it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    Member,
    Stranger,
    /// Kept out for a time.
    Banned,
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Take,
    /// The connections of this peer are closed for it.
    TakeInsteadOf(PeerId),
    Refuse(Refusal),
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Banned,
    Full,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Banned => "the peer misbehaved and is kept out for a time",
            Self::Full => "all connections are taken, by members",
        })
    }
}

impl std::error::Error for Refusal {}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub all: usize,
    pub strangers: usize,
    pub strangers_per_ip: usize,
}

impl Room {
    /// With members to keep slots for, or without.
    fn new(in_mesh: bool) -> Self {
        if in_mesh {
            Self { all: CONNECTIONS_MAX, strangers: STRANGERS_MAX, strangers_per_ip: STRANGERS_PER_IP_MAX }
        } else {
            Self { all: CONNECTIONS_MAX, strangers: CONNECTIONS_MAX, strangers_per_ip: CONNECTIONS_MAX }
        }
    }
}

/// What a peer did last, noted by the tasks that serve it. Times are milliseconds since the node's start.
#[derive(Debug, Default)]
pub struct Activity {
    last_ms: AtomicU64,
    /// When it claimed to join; 0 when it has not.
    claimed_ms: AtomicU64,
    /// Calls of `join` that are in work: their proof is there and waits to be judged.
    joining: AtomicU32,
}

impl Activity {
    fn touch(&self, now_ms: u64) {
        self.last_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// A call that claims to join begins; it ends when the answer is dropped.
    fn claim(self: &Arc<Self>, now_ms: u64) -> Claim {
        let _ = self.claimed_ms.compare_exchange(0, now_ms.max(1), Ordering::Relaxed, Ordering::Relaxed);
        self.joining.fetch_add(1, Ordering::Relaxed);
        Claim(Arc::clone(self))
    }

    fn claim_is_over(&self, now_ms: u64) -> bool {
        let claimed = self.claimed_ms.load(Ordering::Relaxed);
        let patience = u64::try_from(PROOF_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        claimed > 0 && now_ms.saturating_sub(claimed) >= patience && self.joining.load(Ordering::Relaxed) == 0
    }
}

/// A call that claims to join, in work.
#[derive(Debug)]
pub struct Claim(Arc<Activity>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.joining.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The clock of activities, and the activities of connected peers.
#[derive(Debug)]
pub struct Activities {
    start: Instant,
    peers: Mutex<HashMap<PeerId, Arc<Activity>>>,
}

impl Default for Activities {
    fn default() -> Self {
        Self { start: Instant::now(), peers: Mutex::default() }
    }
}

impl Activities {
    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Activity>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The activity of a connected peer; one of its own for a peer that has just gone.
    pub fn of(&self, peer: &PeerId) -> Arc<Activity> {
        self.lock().get(peer).cloned().unwrap_or_default()
    }

    /// The peer has done something of use.
    pub fn touch(&self, activity: &Activity) {
        activity.touch(self.now_ms());
    }

    /// The peer claims to join.
    pub fn claim(&self, activity: &Arc<Activity>) -> Claim {
        activity.claim(self.now_ms())
    }
}

#[derive(Debug)]
struct Slot {
    peer: PeerId,
    ip: Option<IpAddr>,
}

/// The connections there are.
#[derive(Debug, Default)]
pub struct Slots {
    taken: HashMap<ConnectionId, Slot>,
}

impl Slots {
    /// Decides over a new connection. `rank` tells members from strangers, `idle_since` which stranger yields.
    pub fn judge(
        &self,
        peer: PeerId,
        ip: Option<IpAddr>,
        room: Room,
        rank: impl Fn(&PeerId) -> Rank,
        idle_since: impl Fn(&PeerId) -> u64,
    ) -> Verdict {
        let newcomer = rank(&peer);
        if newcomer == Rank::Banned {
            return Verdict::Refuse(Refusal::Banned);
        }
        let strangers: Vec<&Slot> = self.taken.values().filter(|slot| rank(&slot.peer) != Rank::Member).collect();
        // A peer that is connected already does not push out another by connecting again.
        let others = || strangers.iter().filter(|slot| slot.peer != peer);
        let longest_idle = |slots: Vec<&&Slot>| slots.into_iter().map(|slot| slot.peer).min_by_key(&idle_since);
        let crowded = |count: usize, limit: usize| newcomer == Rank::Stranger && count >= limit;
        let neighbours = strangers.iter().filter(|slot| ip.is_some() && slot.ip == ip).count();
        let yielding = if crowded(neighbours, room.strangers_per_ip) {
            longest_idle(others().filter(|slot| slot.ip == ip).collect())
        } else if crowded(strangers.len(), room.strangers) || self.taken.len() >= room.all {
            longest_idle(others().collect())
        } else {
            return Verdict::Take;
        };
        yielding.map_or(Verdict::Refuse(Refusal::Full), Verdict::TakeInsteadOf)
    }

    fn insert(&mut self, connection: ConnectionId, peer: PeerId, ip: Option<IpAddr>) {
        self.taken.insert(connection, Slot { peer, ip });
    }

    fn remove(&mut self, connection: ConnectionId) {
        self.taken.remove(&connection);
    }

    /// Counts a peer's connections no longer: they are being closed.
    fn forget(&mut self, peer: &PeerId) {
        self.taken.retain(|_, slot| slot.peer != *peer);
    }
}

/// Takes and refuses the swarm's connections.
pub struct Behaviour {
    shared: Arc<Shared>,
    slots: Slots,
    closing: VecDeque<PeerId>,
}

impl Behaviour {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, slots: Slots::default(), closing: VecDeque::new() }
    }

    /// Closes the strangers that claimed to join and brought no proof; called often.
    pub fn tick(&mut self) {
        let activities = &self.shared.activities;
        let now = activities.now_ms();
        let mut unproven = Vec::new();
        for (peer, activity) in activities.lock().iter().filter(|(_, activity)| activity.claim_is_over(now)) {
            activity.claimed_ms.store(0, Ordering::Relaxed);
            if !self.shared.wall.permits(peer) {
                unproven.push(*peer);
            }
        }
        for peer in unproven {
            tracing::info!(%peer, "a stranger that wanted to join brought no proof in time and is disconnected");
            self.shared.blame(peer, Offence::Unproven);
            self.closing.push_back(peer);
        }
        self.closing.extend(self.shared.take_condemned());
    }

    fn admit(&mut self, peer: PeerId, address: &Multiaddr) -> Result<(), ConnectionDenied> {
        let shared = &self.shared;
        let rank = |peer: &PeerId| {
            if shared.wall.is_member(peer) { Rank::Member } else { Rank::Stranger }
        };
        let newcomer = |of: &PeerId| if *of == peer && shared.is_banned(of) { Rank::Banned } else { rank(of) };
        let peers = shared.activities.lock();
        let idle_since = |peer: &PeerId| peers.get(peer).map_or(0, |activity| activity.last_ms.load(Ordering::Relaxed));
        let room = Room::new(shared.wall.in_mesh());
        match self.slots.judge(peer, ip_of(address), room, newcomer, idle_since) {
            Verdict::Take => Ok(()),
            Verdict::TakeInsteadOf(other) => {
                tracing::debug!(%peer, %other, "a stranger yields its connection to a newcomer");
                drop(peers);
                self.slots.forget(&other);
                self.closing.push_back(other);
                Ok(())
            }
            Verdict::Refuse(why) => Err(ConnectionDenied::new(why)),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(peer, remote)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(peer, remote)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let activities = &self.shared.activities;
        match event {
            FromSwarm::ConnectionEstablished(made) => {
                self.slots.insert(made.connection_id, made.peer_id, ip_of(made.endpoint.get_remote_address()));
                let mut peers = activities.lock();
                peers.entry(made.peer_id).or_default().touch(activities.now_ms());
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.slots.remove(closed.connection_id);
                if closed.remaining_established == 0 {
                    activities.lock().remove(&closed.peer_id);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Woken by the swarm after every call that can queue something, and by the loop's call of `tick`.
        match self.closing.pop_front() {
            Some(peer_id) => Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::All }),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    const ROOM: Room = Room { all: 6, strangers: 3, strangers_per_ip: 2 };

    /// A world of members `m0…`, strangers `s0…` and banned ones `b0…`; each is idle since its number.
    struct World {
        names: HashMap<PeerId, &'static str>,
        ids: HashMap<&'static str, PeerId>,
        slots: Slots,
    }

    impl World {
        fn new(connected: &[(&'static str, u8)]) -> Self {
            let mut world = Self { names: HashMap::new(), ids: HashMap::new(), slots: Slots::default() };
            for (at, (name, ip)) in connected.iter().enumerate() {
                let peer = world.id(name);
                world.slots.insert(ConnectionId::new_unchecked(at), peer, Some([10, 0, 0, *ip].into()));
            }
            world
        }

        fn id(&mut self, name: &'static str) -> PeerId {
            let id = *self.ids.entry(name).or_insert_with(PeerId::random);
            self.names.insert(id, name);
            id
        }

        fn judge(&mut self, name: &'static str, ip: u8) -> &'static str {
            let peer = self.id(name);
            let rank = |peer: &PeerId| match &self.names[peer][..1] {
                "m" => Rank::Member,
                "s" => Rank::Stranger,
                _ => Rank::Banned,
            };
            let idle = |peer: &PeerId| self.names[peer][1..].parse().unwrap();
            match self.slots.judge(peer, Some([10, 0, 0, ip].into()), ROOM, rank, idle) {
                Verdict::Take => "take",
                Verdict::TakeInsteadOf(other) => self.names[&other],
                Verdict::Refuse(Refusal::Full) => "full",
                Verdict::Refuse(Refusal::Banned) => "banned",
            }
        }
    }

    #[test]
    fn members_find_room_and_the_longest_idle_stranger_yields() {
        let crowd = [("s2", 1), ("s1", 2), ("s3", 3)];
        type Connected = (&'static str, u8);
        let cases: [(&[Connected], Connected, &str); 11] = [
            (&[], ("s1", 1), "take"),
            (&[], ("b1", 1), "banned"),
            // Strangers have three slots, whatever else is free; a member is not kept by that.
            (&crowd, ("s9", 4), "s1"),
            (&crowd, ("m9", 4), "take"),
            // Two of one address: another from there pushes out one of its own, not an older one from elsewhere.
            (&[("s2", 1), ("s3", 1), ("s1", 2)], ("s9", 1), "s2"),
            (&[("s2", 1), ("s3", 1)], ("s9", 2), "take"),
            // A second connection of one that is there pushes out another, never itself.
            (&crowd, ("s1", 2), "s2"),
            // All taken: a stranger yields to a member, a member to nobody.
            (&[("m1", 1), ("m2", 1), ("m3", 1), ("m4", 1), ("s7", 1), ("s6", 1)], ("m9", 4), "s6"),
            (&[("m1", 1), ("m2", 1), ("m3", 1), ("m4", 1), ("m5", 1), ("m6", 1)], ("m9", 4), "full"),
            (&[("m1", 1), ("m2", 1), ("m3", 1), ("m4", 1), ("m5", 1), ("m6", 1)], ("s9", 4), "full"),
            (&[("m1", 1), ("m2", 1), ("m3", 1), ("m4", 1), ("m5", 1), ("s6", 1)], ("s9", 4), "s6"),
        ];
        for (connected, (name, ip), expected) in cases {
            assert_eq!(World::new(connected).judge(name, ip), expected, "{name} to {connected:?}");
        }
    }

    #[test]
    fn a_claim_without_proof_ends_after_its_time_but_not_while_a_proof_is_judged() {
        let activity = Arc::new(Activity::default());
        assert!(!activity.claim_is_over(1_000_000));
        let call = activity.claim(1_000);
        assert!(!activity.claim_is_over(1_000_000), "the call is in work");
        drop(call);
        let over = 1_000 + PROOF_TIMEOUT.as_millis() as u64;
        assert!(!activity.claim_is_over(over - 1));
        // Another call does not begin the time anew.
        drop(activity.claim(over - 10));
        assert!(activity.claim_is_over(over));
    }
}
