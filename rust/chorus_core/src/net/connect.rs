//! Making connections: carries out the dialer's plan, answers those who asked for a dial, and keeps wishes for substreams
//! to peers that are not connected yet.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::sync::{mpsc, oneshot};

use super::{
    NetEvent,
    addresses::resolve,
    behaviour::{Behaviour, without_peer},
    dialer::{Dialer, Target},
    known::KnownPeers,
    mdns::Found,
    shared::Shared,
};
use crate::{Error, Result};

/// Names being resolved or resolved and not yet dialled.
const RESOLVED_QUEUE: usize = 64;
/// Addresses remembered as leading back to this agent; they are learnt anew when they are forgotten.
const OWN_ADDRESSES_MAX: usize = 256;
/// Peers remembered as having left the mesh.
const LEFT_MAX: usize = 1024;
/// Wishes for substreams to one absent peer.
const WISHES_MAX: usize = 256;

/// A name's addresses, for whom they were wanted.
pub struct Resolved {
    purpose: Purpose,
    written: String,
    outcome: Result<Vec<Multiaddr>>,
}

/// Why something is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Plan(Target),
    /// Somebody waits for it.
    Asked(u64),
}

struct Asked {
    reply: oneshot::Sender<Result<()>>,
    open: usize,
    last: String,
    /// A peer that somebody else's dial is on its way to; its outcome serves as well.
    also: Option<PeerId>,
}

/// How it stands with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// It is this agent's own.
    Own,
    Connected,
    Dialled,
}

type Wish = (StreamProtocol, oneshot::Sender<Result<libp2p::Stream>>);

/// Makes connections.
pub struct Connector {
    local: PeerId,
    dialer: Dialer,
    dialling: HashMap<ConnectionId, (Purpose, Option<Multiaddr>)>,
    asked: HashMap<u64, Asked>,
    next_asked: u64,
    wishes: HashMap<PeerId, Vec<Wish>>,
    /// Addresses that turned out to be our own.
    own: HashSet<Multiaddr>,
    /// Former members, which are not dialled again of this agent's own accord: who comes back comes by itself.
    left: HashSet<PeerId>,
    resolved: mpsc::Sender<Resolved>,
}

impl Connector {
    /// Plans bootstrap addresses and known peers; names come back resolved through the receiver.
    pub fn new(local: PeerId, bootstrap: &[String], known: &KnownPeers) -> (Self, mpsc::Receiver<Resolved>) {
        let (resolved, receiver) = mpsc::channel(RESOLVED_QUEUE);
        let (mut dialer, now) = (Dialer::default(), Instant::now());
        bootstrap.iter().for_each(|address| dialer.add_bootstrap(address, now));
        for (peer, addresses) in known.all().filter(|(peer, _)| *peer != local) {
            addresses.iter().for_each(|address| dialer.add_peer(peer, address, now));
        }
        let connector = Self {
            local,
            dialer,
            dialling: HashMap::new(),
            asked: HashMap::new(),
            next_asked: 0,
            wishes: HashMap::new(),
            own: HashSet::new(),
            left: HashSet::new(),
            resolved,
        };
        (connector, receiver)
    }

    /// Dials what is due.
    pub fn tick(&mut self, swarm: &mut Swarm<Behaviour>) {
        let now = Instant::now();
        for (target, addresses) in self.dialer.due(now, |peer| swarm.is_connected(peer)) {
            match &target {
                Target::Bootstrap(written) => self.resolve(Purpose::Plan(target.clone()), written.clone()),
                Target::Peer(peer) => {
                    let options = DialOpts::peer_id(*peer)
                        .condition(PeerCondition::DisconnectedAndNotDialing)
                        .addresses(addresses)
                        .extend_addresses_through_behaviour()
                        .build();
                    self.dial(swarm, options, Purpose::Plan(target.clone()), None);
                }
            }
        }
        self.wishes.retain(|_, wishes| {
            wishes.retain(|(_, reply)| !reply.is_closed());
            !wishes.is_empty()
        });
    }

    /// Dials for somebody who waits.
    pub fn ask(&mut self, written: &str, reply: oneshot::Sender<Result<()>>) {
        self.next_asked += 1;
        self.asked.retain(|_, asked| !asked.reply.is_closed());
        self.asked.insert(self.next_asked, Asked { reply, open: 1, last: "no address to dial".into(), also: None });
        self.resolve(Purpose::Asked(self.next_asked), written.to_owned());
    }

    /// A peer was found on the local network.
    pub fn on_found(&mut self, found: &Found) {
        if found.peer != self.local {
            self.dialer.add_peer(found.peer, &found.address, Instant::now());
        }
    }

    /// Opens a substream as soon as the peer is connected, dialling it if needed.
    pub fn open_later(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        known: &KnownPeers,
        peer: PeerId,
        protocol: StreamProtocol,
        reply: oneshot::Sender<Result<libp2p::Stream>>,
    ) {
        let wishes = self.wishes.entry(peer).or_default();
        if wishes.len() >= WISHES_MAX {
            let _ = reply.send(Err(Error::Unavailable(format!("too many wait for {peer}"))));
            return;
        }
        wishes.push((protocol, reply));
        let mut addresses = known.addresses(&peer).to_vec();
        addresses.extend(self.dialer.addresses(peer));
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        match swarm.dial(options) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.disappoint(peer, &format!("{peer} is not connected: {}", explain(&error))),
        }
    }

    /// A name was resolved: every address behind it is dialled, but for this agent's own and those connected already.
    pub fn on_resolved(&mut self, swarm: &mut Swarm<Behaviour>, shared: &Shared, resolved: Resolved) {
        let Resolved { purpose, written, outcome } = resolved;
        match outcome {
            Ok(addresses) => {
                let (mut reached, mut others) = (false, false);
                for address in addresses {
                    let stands = self.dial_resolved(swarm, shared, &purpose, address);
                    reached |= stands == Stands::Connected;
                    others |= stands != Stands::Own;
                }
                match &purpose {
                    Purpose::Plan(target) if reached => self.dialer.succeeded(target, Instant::now()),
                    Purpose::Plan(target) if !others => self.dialer.nobody(target, Instant::now(), rand::random()),
                    Purpose::Asked(id) if reached => self.answer(*id, Ok(())),
                    _ => {}
                }
            }
            Err(error) => {
                if let Purpose::Plan(target) = &purpose {
                    self.plan_failed(target, &error.to_string());
                    if matches!(error, Error::Unavailable(_)) {
                        self.dialer.nobody(target, Instant::now(), rand::random());
                    }
                    shared.emit(NetEvent::DialFailed { addr: written, error: error.to_string() });
                } else if let Purpose::Asked(id) = &purpose
                    && let Some(asked) = self.asked.get_mut(id)
                {
                    asked.last = error.to_string();
                }
            }
        }
        if let Purpose::Asked(id) = purpose {
            self.one_less(id);
        }
    }

    /// Dials one address, unless it leads to this agent itself or to a peer that is connected already.
    fn dial_resolved(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        shared: &Shared,
        purpose: &Purpose,
        address: Multiaddr,
    ) -> Stands {
        let (plain, peer) = without_peer(&address);
        if peer == Some(self.local) || self.own.contains(&plain) || shared.view().listen.contains(&plain) {
            return Stands::Own;
        }
        let there = match peer.or_else(|| self.dialer.met(&plain)) {
            Some(peer) => swarm.is_connected(&peer),
            None => {
                let view = shared.view();
                view.peers.values().any(|peer| peer.connections.iter().any(|(_, remote)| *remote == plain))
            }
        };
        let in_hand = self.dialling.values().any(|(other, to)| other == purpose && to.as_ref() == Some(&plain));
        if there || in_hand {
            return if there { Stands::Connected } else { Stands::Dialled };
        }
        let options = match peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(vec![plain.clone()])
                .build(),
            None => DialOpts::unknown_peer_id().address(plain.clone()).build(),
        };
        if let Purpose::Asked(id) = purpose
            && let Some(asked) = self.asked.get_mut(id)
        {
            asked.open += 1;
        }
        self.dial(swarm, options, purpose.clone(), Some(plain));
        Stands::Dialled
    }

    fn dial(&mut self, swarm: &mut Swarm<Behaviour>, options: DialOpts, purpose: Purpose, address: Option<Multiaddr>) {
        let (connection, peer) = (options.connection_id(), options.get_peer_id());
        match swarm.dial(options) {
            Ok(()) => {
                self.dialling.insert(connection, (purpose, address));
            }
            Err(DialError::DialPeerConditionFalse(_)) => {
                if let Purpose::Asked(id) = purpose
                    && let Some(asked) = self.asked.get_mut(&id)
                {
                    asked.also = peer;
                }
            }
            Err(error) => self.note_failure(&purpose, address.as_ref(), &error),
        }
    }

    /// A connection stands.
    pub fn on_connected(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: PeerId,
        connection: ConnectionId,
        dialled: Option<&Multiaddr>,
    ) {
        let now = Instant::now();
        if dialled.is_some() {
            self.left.remove(&peer);
        }
        if let Some((purpose, _)) = self.dialling.remove(&connection) {
            match purpose {
                Purpose::Plan(target) => self.dialer.succeeded(&target, now),
                Purpose::Asked(id) => self.answer(id, Ok(())),
            }
        }
        self.dialer.succeeded(&Target::Peer(peer), now);
        for id in self.asked_also(peer) {
            self.answer(id, Ok(()));
        }
        if let Some(address) = dialled {
            self.dialer.meet(address.clone(), peer);
        }
        for (protocol, reply) in self.wishes.remove(&peer).unwrap_or_default() {
            if let Err(reply) = swarm.behaviour_mut().substreams.open(peer, protocol, reply) {
                let _ = reply.send(Err(Error::Unavailable(format!("{peer} is not connected"))));
            }
        }
    }

    /// A peer has left the mesh: nothing is kept for it.
    pub fn forget(&mut self, peer: PeerId) {
        self.dialer.forget_peer(&peer);
        self.disappoint(peer, &format!("{peer} has left the mesh"));
        if self.left.len() >= LEFT_MAX {
            self.left.clear();
        }
        self.left.insert(peer);
    }

    /// A peer is a member again.
    pub fn welcome(&mut self, peer: &PeerId) {
        self.left.remove(peer);
    }

    /// Whether a peer has left the mesh, and has not been dialled or listed since.
    pub fn has_left(&self, peer: &PeerId) -> bool {
        self.left.contains(peer)
    }

    /// The last connection to a peer closed.
    pub fn on_lost(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        self.dialer.lost(peer, addresses, Instant::now(), rand::random());
    }

    /// A dial failed.
    pub fn on_failed(
        &mut self,
        shared: &Shared,
        connection: ConnectionId,
        peer: Option<PeerId>,
        error: &DialError,
        connected: bool,
    ) {
        if let DialError::LocalPeerId { address } = error {
            if self.own.len() >= OWN_ADDRESSES_MAX {
                self.own.clear();
            }
            self.own.insert(without_peer(address).0);
        }
        if let Some((purpose, address)) = self.dialling.remove(&connection) {
            if let Purpose::Plan(Target::Bootstrap(written)) = &purpose
                && !matches!(error, DialError::LocalPeerId { .. })
            {
                shared.emit(NetEvent::DialFailed { addr: written.clone(), error: explain(error) });
            }
            self.note_failure(&purpose, address.as_ref(), error);
        }
        if let Some(peer) = peer
            && !connected
        {
            self.disappoint(peer, &format!("{peer} cannot be reached: {}", explain(error)));
            for id in self.asked_also(peer) {
                if let Some(asked) = self.asked.get_mut(&id) {
                    asked.also = None;
                    asked.last = explain(error);
                }
                self.one_less(id);
            }
        }
    }

    fn asked_also(&self, peer: PeerId) -> Vec<u64> {
        self.asked.iter().filter(|(_, asked)| asked.also == Some(peer)).map(|(id, _)| *id).collect()
    }

    fn plan_failed(&mut self, target: &Target, error: &str) {
        tracing::debug!(?target, %error, "a dial failed");
        if self.dialer.failed(target, Instant::now(), rand::random())
            && let Target::Bootstrap(address) = target
        {
            tracing::warn!(
                %address, %error,
                "nobody is reached at this address of CHORUS_BOOTSTRAP_PEERS; it is tried again and again"
            );
        }
    }

    fn note_failure(&mut self, purpose: &Purpose, address: Option<&Multiaddr>, error: &DialError) {
        if let Some(address) = address {
            self.dialer.forget(address);
        }
        match purpose {
            // Finding oneself behind a name is no failure of it, and there may be others soon.
            Purpose::Plan(target) if matches!(error, DialError::LocalPeerId { .. }) => {
                self.dialer.nobody(target, Instant::now(), rand::random());
            }
            Purpose::Plan(target) => {
                self.plan_failed(target, &explain(error));
            }
            Purpose::Asked(id) => {
                if let Some(asked) = self.asked.get_mut(id) {
                    asked.last = explain(error);
                }
                self.one_less(*id);
            }
        }
    }

    fn one_less(&mut self, id: u64) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        asked.open = asked.open.saturating_sub(1);
        if asked.open == 0 {
            let last = asked.last.clone();
            self.answer(id, Err(Error::Unavailable(last)));
        }
    }

    fn answer(&mut self, id: u64, outcome: Result<()>) {
        if let Some(asked) = self.asked.remove(&id) {
            let _ = asked.reply.send(outcome);
        }
    }

    fn disappoint(&mut self, peer: PeerId, why: &str) {
        for (_, reply) in self.wishes.remove(&peer).unwrap_or_default() {
            let _ = reply.send(Err(Error::Unavailable(why.to_owned())));
        }
    }

    fn resolve(&self, purpose: Purpose, written: String) {
        let resolved = self.resolved.clone();
        tokio::spawn(async move {
            let outcome = match written.parse::<Multiaddr>() {
                Ok(address) => resolve(&address).await,
                Err(error) => Err(Error::Invalid(format!("`{written}` is no multiaddr: {error}"))),
            };
            let _ = resolved.send(Resolved { purpose, written, outcome }).await;
        });
    }
}

/// A dial error in one line.
fn explain(error: &DialError) -> String {
    match error {
        DialError::Transport(all) => match all.last() {
            Some((address, error)) => format!("{address}: {}", deepest(error)),
            None => "no address answered".into(),
        },
        DialError::NoAddresses => "no address is known".into(),
        other => other.to_string(),
    }
}

fn deepest(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
