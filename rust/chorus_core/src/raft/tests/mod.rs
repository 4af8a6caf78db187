//! Tests of the replicated log: entries, hostile frames, seeded simulations of whole meshes with power
//! cuts, and real threads with real files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;
mod disk;
mod entries;
mod forwarding;
mod hostile;
mod sim;
mod simulation;
mod threads;
