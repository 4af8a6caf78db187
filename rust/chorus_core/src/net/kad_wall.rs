//! Kademlia behind the wall: what a stranger sends on Kademlia's own protocol never reaches it, and the routing table
//! holds members alone, so that records are kept and looked for among them.

use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    kad,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};

use super::shared::Shared;
use crate::dht::KadStore;

type Kademlia = kad::Behaviour<KadStore>;

/// Kademlia that hears members only, while the wall stands.
pub struct Behaviour {
    inner: Kademlia,
    shared: Arc<Shared>,
}

impl Behaviour {
    pub fn new(inner: Kademlia, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl Deref for Behaviour {
    type Target = Kademlia;

    fn deref(&self) -> &Kademlia {
        &self.inner
    }
}

impl DerefMut for Behaviour {
    fn deref_mut(&mut self) -> &mut Kademlia {
        &mut self.inner
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Kademlia as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        // An unanswered request of a stranger ends at the stranger's own deadline; its handler keeps a few at most.
        if self.shared.wall.permits(&peer) {
            self.inner.on_connection_handler_event(peer, id, event);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

/// Connected peers that speak Kademlia, and which of them are in the routing table.
#[derive(Debug, Default)]
pub struct Routable(HashMap<PeerId, Route>);

#[derive(Debug)]
struct Route {
    addresses: Vec<Multiaddr>,
    added: bool,
}

impl Routable {
    /// A connected peer said that it speaks Kademlia, and where it listens. What it said before is replaced: addresses
    /// do not add up. Who says the same again is made known again, for those who wait for it.
    pub fn note(&mut self, kademlia: &mut Kademlia, peer: PeerId, addresses: Vec<Multiaddr>) {
        match self.0.get_mut(&peer) {
            Some(route) if route.addresses == addresses => route.added = false,
            known => {
                if known.is_some_and(|route| route.added) {
                    kademlia.remove_peer(&peer);
                }
                self.0.insert(peer, Route { addresses, added: false });
            }
        }
    }

    /// The last connection to a peer closed. The routing table keeps it: it may come back.
    pub fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Brings the routing table up to who is permitted now. Called often; costs something only when that changed.
    pub fn route(&mut self, kademlia: &mut Kademlia, shared: &Shared) {
        for (peer, route) in &mut self.0 {
            let permitted = shared.wall.permits(peer);
            if permitted && !route.added {
                for address in &route.addresses {
                    kademlia.add_address(peer, address.clone());
                }
                kademlia.set_mode(Some(kad::Mode::Server));
                // Nobody listening is no error.
                let _ = shared.routed.send(*peer);
            } else if !permitted && route.added {
                kademlia.remove_peer(peer);
            }
            route.added = permitted;
        }
    }
}
