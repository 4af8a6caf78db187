//! The libp2p swarm behind a cloneable handle: transport, discovery, gossip, requests and byte streams.

mod types;

pub use types::*;
