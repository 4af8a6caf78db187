//! The distributed hash table: values sealed and signed by their author, checked by every holder and every reader.
//!
//! Kademlia itself runs inside [`crate::net`]; here are the records ([`record`]), their disk store ([`Store`]) and the
//! interface to them ([`Dht`]). Splitting values into blocks is left to the callers' side of this module.

mod cache;
mod facade;
mod kad_store;
pub mod key;
pub mod record;
mod republish;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests;

pub use facade::{Dht, DhtConfig, DhtValue, Sealer, VALUE_MAX_BYTES};
pub use kad_store::KadStore;
pub use store::Store;
