//! The distributed hash table: values sealed and signed by their author, checked by every holder and every reader.
//!
//! Kademlia inside [`crate::net`] says who should hold a key. The records ([`record`]) travel between agents as requests to
//! the core's own service [`SERVICE`], which answers from the disk: what it acknowledges is there. Here are their disk
//! store ([`Store`]), how many replicas make a write or a read count, and the interface to all of it ([`Dht`]).

mod blocks;
mod cache;
mod facade;
mod kad_store;
pub mod key;
pub mod manifest;
mod reading;
pub mod record;
mod replicas;
mod republish;
mod search;
mod serve;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests;
mod writing;

pub use facade::{Dht, DhtConfig, DhtValue, HINTS_MAX, Sealer, Written};
pub use kad_store::KadStore;
pub use replicas::SERVICE;
pub use store::{Limits, Store, Usage};

/// Largest value.
pub const VALUE_MAX_BYTES: usize = 16 * 1024 * 1024;
