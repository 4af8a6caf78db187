//! The libp2p swarm behind a cloneable handle: transport, discovery, gossip, requests and byte streams.
//!
//! One task owns the swarm ([`service`]); everything else talks to it through bounded channels. Requests, byte streams
//! and Raft's lanes run on substreams of their own and meet the swarm only when one is opened.

mod addresses;
mod behaviour;
pub(crate) mod budget;
mod connect;
mod dialer;
mod frame;
mod gossip;
mod gossip_config;
mod gossip_gate;
mod handle;
mod kad;
mod kad_queries;
mod kad_wall;
mod known;
mod lane;
mod mdns;
mod penalty;
mod request;
mod service;
mod serving;
pub(crate) mod shared;
mod slots;
mod stream;
mod subscription;
mod substream;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests;
mod transport;
mod types;
mod wall;

pub use frame::Ask;
pub use handle::NetHandle;
pub use kad::{Closest, KadHandle};
pub use lane::Lane;
pub use penalty::Offence;
pub use stream::PeerStream;
pub use subscription::GossipSubscription;
pub use types::*;
