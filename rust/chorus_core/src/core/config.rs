//! How a core is told what to be: one JSON object, from the node process or from a library user.

use std::{collections::BTreeSet, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    Error, Result, crypto,
    hub::ServiceRules,
    sentinel::{RuleFile, Scanner},
};

/// Memory for opened DHT values when nothing else is said.
const DEFAULT_DHT_CACHE_BYTES: u64 = 100 * 1024 * 1024;
/// The least that a cluster secret may have.
const MIN_SECRET_BYTES: usize = 24;

/// A secret in the configuration: wiped when dropped, never printed.
#[derive(Deserialize)]
#[serde(from = "String")]
pub struct SecretText(Zeroizing<String>);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Configuration of a core; unknown fields are mistakes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreConfig {
    /// Where the key and the stores live; made when missing.
    pub data_dir: PathBuf,
    /// Path of the hub's socket; its directory must be there.
    pub hub: PathBuf,
    /// Multiaddrs to listen on; none: the agent only dials.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Multiaddrs of agents to begin with.
    #[serde(default)]
    pub bootstrap: Vec<String>,
    /// Whether to find agents on the local network.
    #[serde(default)]
    pub mdns: bool,
    /// Whether Kademlia runs; without it records stay on this disk.
    #[serde(default = "yes")]
    pub dht: bool,
    /// Memory for opened DHT values.
    #[serde(default = "default_cache")]
    pub dht_cache_bytes: u64,
    /// The agent's name; made from the peer id when missing.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// The agent's role.
    #[serde(default)]
    pub role: Option<String>,
    /// Keys of the roles; derived from the cluster's secret when missing.
    #[serde(default)]
    pub role_keys_file: Option<PathBuf>,
    /// More readers of roles: pairs of a reader and a role that it may read.
    #[serde(default)]
    pub role_grants: Vec<(String, String)>,
    /// The cluster's secret as text.
    #[serde(default)]
    pub cluster_secret: Option<SecretText>,
    /// The cluster's secret as base64, for secrets that are no text.
    #[serde(default)]
    pub cluster_secret_base64: Option<SecretText>,
    /// Earlier secrets (base64), so that old values stay readable.
    #[serde(default)]
    pub previous_secrets_base64: Vec<SecretText>,
    /// The sentinel's rules and exceptions beside its own, as the JSON form of a rule file.
    #[serde(default)]
    pub shhh_rules: Option<String>,
    /// The types of entries that may be proposed to the mesh's log; any when missing.
    #[serde(default)]
    pub entry_types: Option<BTreeSet<String>>,
    /// Whether strangers are served only what joining takes, also while this agent is in no mesh. In a mesh they always are.
    #[serde(default)]
    pub members_only: bool,
    /// Which process may offer which service, and what of it peers may ask; anything goes when missing.
    #[serde(default)]
    pub services: Option<ServiceRules>,
    /// Threads of the core's runtime; half of the machine's cores, at least one and at most four, when missing.
    #[serde(default)]
    pub threads: Option<usize>,
}

fn yes() -> bool {
    true
}

fn default_cache() -> u64 {
    DEFAULT_DHT_CACHE_BYTES
}

impl CoreConfig {
    /// Reads the JSON text.
    ///
    /// # Errors
    /// `invalid`, naming the field.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::Invalid(format!("core configuration: {error}")))
    }

    /// The cluster's secret as bytes.
    ///
    /// # Errors
    /// `invalid` when it is missing, given twice or too short.
    pub fn secret(&self) -> Result<Zeroizing<Vec<u8>>> {
        let secret = match (&self.cluster_secret, &self.cluster_secret_base64) {
            (Some(text), None) => Zeroizing::new(text.0.as_bytes().to_vec()),
            (None, Some(text)) => decode(text)?,
            _ => {
                return Err(Error::Invalid("give either cluster_secret or cluster_secret_base64".into()));
            }
        };
        if secret.len() < MIN_SECRET_BYTES {
            return Err(Error::Invalid(format!("the cluster secret needs at least {MIN_SECRET_BYTES} bytes")));
        }
        Ok(secret)
    }

    /// The sentinel with this configuration's rules. Its audit hashes are under a key of the cluster: the same secret
    /// has the same hash on every agent and after every start.
    ///
    /// # Errors
    /// `invalid` with a line for each mistake in the rules, or for the secret.
    pub fn scanner(&self) -> Result<Scanner> {
        let key = crypto::audit_key(&self.secret()?);
        match &self.shhh_rules {
            None => Scanner::with_audit_key(key),
            Some(json) => {
                let rules = RuleFile::parse(json).map_err(|problems| Error::Invalid(problems.join("\n")))?;
                Scanner::with_rules(rules, key)
            }
        }
    }

    /// Earlier secrets as bytes.
    ///
    /// # Errors
    /// `invalid` when one is not base64.
    pub fn previous_secrets(&self) -> Result<Vec<Zeroizing<Vec<u8>>>> {
        self.previous_secrets_base64.iter().map(decode).collect()
    }
}

fn decode(text: &SecretText) -> Result<Zeroizing<Vec<u8>>> {
    let bytes =
        STANDARD.decode(text.0.as_bytes()).map_err(|_| Error::Invalid("a cluster secret is not base64".into()))?;
    Ok(Zeroizing::new(bytes))
}
