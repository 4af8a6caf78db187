//! What travels on gossip topics: the closed set of topics, the envelope, and the verdict on each message before it is
//! passed on. Pure: time comes in as an argument, the network lives in [`crate::net`].

mod envelope;
mod gate;
pub mod json;
mod rate;
mod timestamp;
mod topic;

pub use envelope::{Draft, ENVELOPE_MAX_BYTES, Envelope};
pub use gate::{Arrival, Gate, Reason, Verdict};
pub use rate::{ControlRates, Standing};
pub use timestamp::{format_timestamp, parse_timestamp};
pub use topic::Topic;
