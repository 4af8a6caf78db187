//! Real nodes on loopback: port 0, temporary folders, every wait on an event with a generous deadline.

mod bench;
mod discovery;
mod flood;
mod gossip;
mod hostile;
mod kit;
mod lanes;
mod requests;
mod wall;
