//! The Rust core of CHORUS: a plain library, with a thin Python layer on top (feature `python`).
//!
//! | module | owns |
//! |---|---|
//! | [`identity`] | the agent's Ed25519 key and peer id |
//! | [`crypto`] | key derivation, canonical JSON, signatures, sealing with age |
//! | [`sentinel`] | SHHH: secret detection and redaction, whole and streamed |
//! | [`log`] | the signed append-only log (Hypercore) and its repair at start |
//! | [`ucxl`] | UCXL addresses: their grammar, matching and versions |
//! | [`wire`] | topics, the message envelope and its verdicts |
//! | [`net`] | the libp2p swarm: transport, discovery, gossip, requests, streams |
//! | [`dht`] | signed, sealed records over Kademlia and their disk store |
//! | [`raft`] | the replicated log of signed entries (raft-rs on redb) |
//! | [`hub`] | the Unix socket through which processes reach all of it |
//! | [`trace`] | the core's own log lines, kept for the host to take |
//! | [`core`] | starts the parts, joins them and stops them |

pub mod core;
pub mod crypto;
mod database;
pub mod dht;
pub mod error;
pub mod hub;
pub mod identity;
pub mod log;
pub mod net;
pub mod raft;
pub mod sentinel;
pub mod trace;
pub mod ucxl;
pub mod wire;

#[cfg(feature = "python")]
mod py;

pub use error::{Error, Result};
