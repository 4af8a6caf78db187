//! The replicated log of signed entries: raft-rs on redb, driven by one thread. It orders and stores
//! entries and keeps the members' votes; what entries mean is left to the table.

mod changes;
mod driver;
mod election;
mod entry;
mod follow;
mod frames;
mod handle;
mod leading;
mod machine;
mod members;
#[cfg(test)]
mod planted;
mod proposals;
mod requests;
mod shared;
mod storage;
#[cfg(test)]
mod tests;
mod types;
mod vote_file;

pub use follow::Follower;
pub use handle::RaftHandle;
pub use types::{
    Added, Committed, MAX_ENTRY_BYTES, MemberStatus, Proposed, RaftConfig, RaftEvent, RaftStatus, RaftTransport, Role,
    Timings,
};
pub use vote_file::{VoteFile, read_log};
