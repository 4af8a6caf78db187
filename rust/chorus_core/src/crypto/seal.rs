//! Sealing with age (X25519) to the roles that may read a value, and opening with the roles this agent holds.
//!
//! Role keys derived from the one cluster secret keep honest agents apart; they do not stop an agent that breaks the
//! rules, for it could derive the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    str::FromStr,
};

use age::{DecryptError, Decryptor, Encryptor, x25519};
use zeroize::Zeroizing;

use super::{bech32, hkdf32};
use crate::{Error, Result};

/// The role that every agent holds; values for no role in particular are sealed to it.
pub const MEMBER_ROLE: &str = "member";

/// Reads everything.
const ADMIN_ROLE: &str = "admin";

/// Who reads which other roles, besides `admin`.
const READERS: &[(&str, &[&str])] = &[("architect", &["developer", "observer"])];

/// UCXL's words for "no role in particular".
const UNNAMED_ROLES: &[&str] = &["", "agent", "any", MEMBER_ROLE];

const MAX_ROLE_CHARS: usize = 64;
const AGE_SECRET_KEY_PREFIX: &str = "age-secret-key-";

/// An age file grows by its header and 16 bytes for every 64 KiB; this reserves enough for small values.
const SEALED_OVERHEAD_BYTES: usize = 1024;

/// The keys of the roles: private ones of those this agent holds, public ones of all.
pub struct RoleKeys {
    secret: Zeroizing<Vec<u8>>,
    /// The roles held, `member` among them.
    roles: BTreeSet<String>,
    /// Their keys, those of the newest secret first.
    held: Vec<x25519::Identity>,
    /// More readers by configuration: reader to the roles it may read.
    granted: BTreeMap<String, BTreeSet<String>>,
}

impl RoleKeys {
    /// The keys of an agent with `my_role`, derived from the cluster secret.
    ///
    /// # Errors
    /// `Invalid` when the role's name is none.
    pub fn derive(cluster_secret: &[u8], my_role: Option<&str>) -> Result<Self> {
        let mut roles = BTreeSet::from([MEMBER_ROLE.to_owned()]);
        roles.insert(role_name(my_role)?.to_owned());
        let mut keys =
            Self { secret: Zeroizing::new(cluster_secret.to_vec()), roles, held: Vec::new(), granted: BTreeMap::new() };
        keys.hold(cluster_secret)?;
        Ok(keys)
    }

    /// Keeps values readable that were sealed under an earlier cluster secret.
    ///
    /// # Errors
    /// `Internal` when no key can be made of it.
    pub fn add_old_secret(&mut self, cluster_secret: &[u8]) -> Result<()> {
        self.hold(cluster_secret)
    }

    /// Lets `reader` read what is sealed to `role` from now on.
    ///
    /// # Errors
    /// `Invalid` when a role's name is none.
    pub fn grant(&mut self, reader: &str, role: &str) -> Result<()> {
        let (reader, role) = (role_name(Some(reader))?.to_owned(), role_name(Some(role))?.to_owned());
        self.granted.entry(reader).or_default().insert(role);
        Ok(())
    }

    /// The roles this agent holds.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(String::as_str)
    }

    /// The roles whose holders can read a value for `role`, sorted.
    ///
    /// # Errors
    /// `Invalid` when the role's name is none.
    pub fn readers(&self, role: Option<&str>) -> Result<Vec<String>> {
        let role = role_name(role)?;
        if role == MEMBER_ROLE {
            return Ok(vec![role.to_owned()]);
        }
        let mut readers = BTreeSet::from([role.to_owned(), ADMIN_ROLE.to_owned()]);
        let built_in =
            READERS.iter().filter(|(_, reads)| reads.contains(&role)).map(|(reader, _)| (*reader).to_owned());
        let granted = self.granted.iter().filter(|(_, reads)| reads.contains(role)).map(|(reader, _)| reader.clone());
        readers.extend(built_in.chain(granted));
        Ok(readers.into_iter().collect())
    }

    fn hold(&mut self, secret: &[u8]) -> Result<()> {
        for role in &self.roles {
            self.held.push(role_identity(secret, role)?);
        }
        Ok(())
    }
}

impl std::fmt::Debug for RoleKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleKeys").field("roles", &self.roles).finish_non_exhaustive()
    }
}

/// Seals a value to `role` and to every role that may read it; no role means every member.
///
/// # Errors
/// `Invalid` when the role's name is none.
pub fn seal(keys: &RoleKeys, role: Option<&str>, plain: &[u8]) -> Result<Vec<u8>> {
    let recipients = keys
        .readers(role)?
        .iter()
        .map(|reader| Ok(role_identity(&keys.secret, reader)?.to_public()))
        .collect::<Result<Vec<_>>>()?;
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|r| r as &dyn age::Recipient))
        .map_err(|e| Error::Internal(format!("cannot seal: {e}")))?;
    let mut sealed = Vec::with_capacity(plain.len() + SEALED_OVERHEAD_BYTES);
    let mut writer = encryptor.wrap_output(&mut sealed)?;
    writer.write_all(plain)?;
    writer.finish()?;
    Ok(sealed)
}

/// Opens a sealed value with the roles this agent holds.
///
/// # Errors
/// `NotPermitted` when it is sealed to other roles; `Tampered` when it is no sealed value or was altered.
pub fn open(keys: &RoleKeys, sealed: &[u8]) -> Result<Vec<u8>> {
    let tampered = |why: &dyn std::fmt::Display| Error::Tampered(format!("the sealed value cannot be opened: {why}"));
    let decryptor = Decryptor::new_buffered(sealed).map_err(|e| tampered(&e))?;
    let identities = keys.held.iter().map(|key| key as &dyn age::Identity);
    let mut reader = decryptor.decrypt(identities).map_err(|e| match e {
        DecryptError::NoMatchingKeys => {
            Error::NotPermitted("the value is sealed to roles this agent does not hold".into())
        }
        other => tampered(&other),
    })?;
    let mut plain = Vec::with_capacity(sealed.len());
    reader.read_to_end(&mut plain).map_err(|e| tampered(&e))?;
    Ok(plain)
}

/// The key of a role as an age identity: its 32 derived bytes in the textual form that age parses.
fn role_identity(secret: &[u8], role: &str) -> Result<x25519::Identity> {
    let key = Zeroizing::new(hkdf32(secret, &format!("chorus/v1/role/{role}")));
    let mut text = bech32::encode(AGE_SECRET_KEY_PREFIX, key.as_slice());
    text.make_ascii_uppercase();
    x25519::Identity::from_str(&text).map_err(|e| Error::Internal(format!("no key for role {role}: {e}")))
}

fn role_name(role: Option<&str>) -> Result<&str> {
    let role = role.unwrap_or_default();
    if UNNAMED_ROLES.contains(&role) {
        return Ok(MEMBER_ROLE);
    }
    let valid =
        role.len() <= MAX_ROLE_CHARS && role.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if valid {
        Ok(role)
    } else {
        Err(Error::Invalid(format!("role {role:?}: use up to {MAX_ROLE_CHARS} letters, digits, '-' and '_'")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const SECRET: &[u8] = b"a cluster secret of some length";

    fn keys(role: &str) -> RoleKeys {
        RoleKeys::derive(SECRET, Some(role)).unwrap()
    }

    #[test]
    fn each_role_reads_what_it_may() {
        let roles = ["admin", "architect", "developer", "observer", "tester"];
        let may = |reader: &str, role: &str| {
            reader == role || reader == "admin" || (reader == "architect" && ["developer", "observer"].contains(&role))
        };
        for role in roles {
            let sealed = seal(&keys("tester"), Some(role), b"for your eyes").unwrap();
            for reader in roles {
                let opened = open(&keys(reader), &sealed);
                if may(reader, role) {
                    assert_eq!(opened.unwrap(), b"for your eyes", "{reader} reads {role}");
                } else {
                    assert_eq!(opened.unwrap_err().code(), "not_permitted", "{reader} reads {role}");
                }
            }
        }
    }

    #[test]
    fn no_role_means_every_member() {
        for role in [None, Some("agent"), Some("any"), Some("member")] {
            let sealed = seal(&keys("observer"), role, b"news").unwrap();
            assert_eq!(open(&RoleKeys::derive(SECRET, None).unwrap(), &sealed).unwrap(), b"news");
            assert_eq!(open(&keys("developer"), &sealed).unwrap(), b"news");
        }
    }

    #[test]
    fn another_cluster_opens_nothing() {
        let sealed = seal(&keys("admin"), None, b"x").unwrap();
        let stranger = RoleKeys::derive(b"another secret", Some("admin")).unwrap();
        assert_eq!(open(&stranger, &sealed).unwrap_err().code(), "not_permitted");
    }

    #[test]
    fn grants_add_readers() {
        let mut writer = keys("developer");
        writer.grant("tester", "developer").unwrap();
        assert_eq!(writer.readers(Some("developer")).unwrap(), ["admin", "architect", "developer", "tester"]);
        let sealed = seal(&writer, Some("developer"), b"x").unwrap();
        assert_eq!(open(&keys("tester"), &sealed).unwrap(), b"x");
        assert_eq!(open(&keys("observer"), &sealed).unwrap_err().code(), "not_permitted");
    }

    #[test]
    fn old_secrets_keep_old_values_readable() {
        let old = seal(&keys("developer"), Some("developer"), b"then").unwrap();
        let mut now = RoleKeys::derive(b"the new secret", Some("developer")).unwrap();
        assert!(open(&now, &old).is_err());
        now.add_old_secret(SECRET).unwrap();
        assert_eq!(open(&now, &old).unwrap(), b"then");
        let new = seal(&now, Some("developer"), b"now").unwrap();
        assert_eq!(open(&keys("developer"), &new).unwrap_err().code(), "not_permitted");
    }

    #[test]
    fn no_alteration_is_opened() {
        let keys = keys("developer");
        let plain: Vec<u8> = (0..70_000u32).map(|n| n as u8).collect();
        let sealed = seal(&keys, Some("developer"), &plain).unwrap();
        assert_eq!(open(&keys, &sealed).unwrap(), plain);
        let header_end = sealed.windows(4).position(|w| w == b"\n---").unwrap();
        for place in (0..header_end + 64).chain([header_end + 2000, 66_000, sealed.len() - 1]) {
            let mut altered = sealed.clone();
            altered[place] ^= 1;
            let code = open(&keys, &altered).unwrap_err().code();
            assert!(["tampered", "not_permitted"].contains(&code), "byte {place}: {code}");
        }
        for length in [0, 1, 20, header_end, sealed.len() - 17, sealed.len() - 1] {
            assert!(open(&keys, &sealed[..length]).is_err(), "cut to {length}");
        }
        assert_eq!(open(&keys, b"plain text").unwrap_err().code(), "tampered");
    }

    /// The derived identity is the one that any age implementation would make from the same bytes.
    #[test]
    fn role_keys_are_age_keys() {
        use age::secrecy::ExposeSecret;
        let key = role_identity(SECRET, "admin").unwrap();
        assert!(key.to_string().expose_secret().starts_with("AGE-SECRET-KEY-1"));
        let again = role_identity(SECRET, "admin").unwrap();
        assert_eq!(key.to_public(), again.to_public());
        assert_ne!(key.to_public(), role_identity(SECRET, "developer").unwrap().to_public());
    }

    #[test]
    fn strange_role_names_are_refused() {
        for role in ["a/b", "ü", "a b", &"x".repeat(65)] {
            assert_eq!(RoleKeys::derive(SECRET, Some(role)).unwrap_err().code(), "invalid");
            assert_eq!(seal(&keys("admin"), Some(role), b"").unwrap_err().code(), "invalid");
        }
    }
}
