//! The hub over its real socket, with a raw client and a backend that stands in for the core.

mod backend;
mod client;
mod routing;
mod wire;
