//! UCXL addresses, the names of everything the mesh remembers: `ucxl://agent:role@project:task/temporal/path`. Owns their
//! grammar, their matching and what a temporal means among versions; what lies at an address is for others.
//! The reference is docs/ucxl.md. Pure.

mod address;
mod error;
mod temporal;

#[cfg(test)]
mod tests;

pub use address::Ucxl;
pub use error::{Field, UcxlError};
pub use temporal::Temporal;
