//! Key derivation, canonical JSON, signatures and sealing. Knows nothing of files, networks or tasks.

mod bech32;
mod canonical;
mod derive;
mod key_file;
mod live_keys;
mod seal;
mod sign;

pub use canonical::canonical_json;
pub use derive::{audit_key, dev_cluster_secret, hkdf32, network_key};
pub use live_keys::{KeySource, LiveKeys};
pub use seal::{MEMBER_ROLE, RoleKeys, open, open_many, seal, seal_many};
pub use sign::{public_key_of, sign_json, verify_bytes, verify_json};
