//! The DHT between real nodes.

mod basics;
mod blocks;
mod hostile;
mod keeping;
mod kit;
mod modes;
mod quorum;
