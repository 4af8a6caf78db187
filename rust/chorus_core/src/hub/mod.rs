//! The Unix socket through which the agent's processes reach the core and each other (docs/ipc.md).
//!
//! The hub carries and routes: frames, calls, services, streams, subscriptions. What the core itself
//! can do lies behind [`Backend`]; [`methods`] puts the core's parts there.

mod backend;
mod bridge;
mod connection;
mod dispatch;
mod frame;
pub mod methods;
mod outbox;
mod serve;
mod server;
mod services;
mod streams;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use backend::{Answer, Backend, Feed, FeedItem, Pipe, Source};
pub use frame::FRAME_MAX_BYTES;
pub use server::{Hub, HubStats};
pub use services::{ServiceRule, ServiceRules};
