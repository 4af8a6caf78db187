//! Sealing with age (X25519) to the roles that may read a value, and opening with the roles this agent holds.
//!
//! Role keys derived from the one cluster secret keep honest agents apart; they do not stop an agent that breaks the
//! rules, for it could derive the others. Keys of a role keys file make it cryptographic.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    path::Path,
    str::FromStr,
    sync::{PoisonError, RwLock},
};

use age::{DecryptError, Decryptor, Encryptor, x25519};
use zeroize::Zeroizing;

use super::{bech32, hkdf32, key_file};
use crate::{Error, Result};

/// The role that every agent holds; values for no role in particular are sealed to it.
pub const MEMBER_ROLE: &str = "member";

/// Reads everything.
pub(super) const ADMIN_ROLE: &str = "admin";

/// Who reads which other roles, besides `admin`.
const READERS: &[(&str, &[&str])] = &[("architect", &["developer", "observer"])];

/// UCXL's words for "no role in particular".
const UNNAMED_ROLES: &[&str] = &["", "agent", "any", MEMBER_ROLE];

/// Derived public keys kept in memory, more than a cluster has roles.
const RECIPIENTS_KEPT: usize = 1024;

const MAX_ROLE_CHARS: usize = 64;
const AGE_SECRET_KEY_PREFIX: &str = "age-secret-key-";

/// An age file grows by its header and 16 bytes for every 64 KiB; this reserves enough for small values.
const SEALED_OVERHEAD_BYTES: usize = 1024;

/// Batches smaller than this for each thread are not worth one.
const PER_THREAD_LEAST: usize = 8;

/// The keys of the roles: private ones of those this agent holds, public ones of all.
pub struct RoleKeys {
    source: Source,
    /// The roles held, `member` among them.
    roles: BTreeSet<String>,
    /// Their keys, the newest first.
    held: Vec<x25519::Identity>,
    /// More readers by configuration: reader to the roles it may read.
    granted: BTreeMap<String, BTreeSet<String>>,
}

/// Where public keys come from.
enum Source {
    /// From the cluster secret; those made so far are kept, making one costs more than sealing to it.
    Secret { secret: Zeroizing<Vec<u8>>, made: RwLock<BTreeMap<String, x25519::Recipient>> },
    /// From a role keys file.
    File(BTreeMap<String, x25519::Recipient>),
}

impl RoleKeys {
    /// The keys of an agent with `my_role`, derived from the cluster secret.
    ///
    /// # Errors
    /// `Invalid` when the role's name is none.
    pub fn derive(cluster_secret: &[u8], my_role: Option<&str>) -> Result<Self> {
        let source = Source::Secret { secret: Zeroizing::new(cluster_secret.to_vec()), made: RwLock::default() };
        let roles = BTreeSet::from([MEMBER_ROLE.to_owned(), role_name(my_role)?.to_owned()]);
        let mut keys = Self { source, roles, held: Vec::new(), granted: BTreeMap::new() };
        keys.hold(cluster_secret)?;
        Ok(keys)
    }

    /// The keys of an agent with `my_role` out of a role keys file ([`super::key_file`] has its forms). What was sealed
    /// with keys derived from the cluster secret stays readable.
    ///
    /// # Errors
    /// `Invalid`, naming the file, what is wrong with it and the remedy.
    pub fn from_file(path: &Path, cluster_secret: &[u8], my_role: Option<&str>) -> Result<Self> {
        let mut file = key_file::load(path, my_role)?;
        let roles: BTreeSet<String> = file.identities.keys().cloned().collect();
        // As in `hold`: the own role's first.
        let own = file.identities.remove(role_name(my_role)?);
        let held = own.into_iter().chain(file.identities.into_values()).flatten().collect();
        let mut keys = Self { source: Source::File(file.recipients), roles, held, granted: BTreeMap::new() };
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

    /// Which kind of keys these are, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.source {
            Source::Secret { .. } => "derived from the cluster secret",
            Source::File(_) => "role keys file",
        }
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

    /// Whether this agent can read a value for `role`.
    #[must_use]
    pub fn reads(&self, role: Option<&str>) -> bool {
        self.readers(role).is_ok_and(|readers| readers.iter().any(|reader| self.roles.contains(reader)))
    }

    /// To whom a value for `role` is sealed.
    fn recipients(&self, role: Option<&str>) -> Result<Vec<x25519::Recipient>> {
        let readers = self.readers(role)?;
        match &self.source {
            Source::Secret { secret, made } => readers.iter().map(|reader| derived(secret, made, reader)).collect(),
            Source::File(recipients) => {
                let role = role_name(role)?;
                if !recipients.contains_key(role) {
                    return Err(Error::Invalid(format!(
                        "the role keys file has no recipient for role {role}: add it on every agent"
                    )));
                }
                // A role that may read it and is nobody's in this cluster has no key.
                Ok(readers.iter().filter_map(|reader| recipients.get(reader)).cloned().collect())
            }
        }
    }

    /// Holds the keys of all own roles that follow from a secret. Opening tries one after the other, which is most of
    /// what it costs: a role of the agent's own comes before the one that all hold.
    fn hold(&mut self, secret: &[u8]) -> Result<()> {
        let (common, own): (Vec<_>, Vec<_>) = self.roles.iter().partition(|role| *role == MEMBER_ROLE);
        for role in own.into_iter().chain(common) {
            self.held.push(role_identity(secret, role)?);
        }
        Ok(())
    }
}

fn derived(secret: &[u8], made: &RwLock<BTreeMap<String, x25519::Recipient>>, role: &str) -> Result<x25519::Recipient> {
    if let Some(recipient) = made.read().unwrap_or_else(PoisonError::into_inner).get(role) {
        return Ok(recipient.clone());
    }
    let recipient = role_identity(secret, role)?.to_public();
    let mut made = made.write().unwrap_or_else(PoisonError::into_inner);
    // Role names come from callers: their number is bounded by forgetting all.
    if made.len() >= RECIPIENTS_KEPT {
        made.clear();
    }
    made.insert(role.to_owned(), recipient.clone());
    Ok(recipient)
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
    seal_to(&keys.recipients(role)?, plain)
}

fn seal_to(recipients: &[x25519::Recipient], plain: &[u8]) -> Result<Vec<u8>> {
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
            let held = keys.roles().collect::<Vec<_>>().join(", ");
            Error::NotPermitted(format!("the value is sealed to roles this agent does not hold (it holds {held})"))
        }
        other => tampered(&other),
    })?;
    let mut plain = Vec::with_capacity(sealed.len());
    reader.read_to_end(&mut plain).map_err(|e| tampered(&e))?;
    Ok(plain)
}

/// Seals many values for one role, on as many threads as there are cores.
///
/// # Errors
/// As [`seal`].
pub fn seal_many(keys: &RoleKeys, role: Option<&str>, plains: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
    let recipients = keys.recipients(role)?;
    in_parallel(plains, |plain| seal_to(&recipients, plain)).into_iter().collect()
}

/// Opens many values, on as many threads as there are cores; each has its own outcome.
#[must_use]
pub fn open_many(keys: &RoleKeys, sealed: &[&[u8]]) -> Vec<Result<Vec<u8>>> {
    in_parallel(sealed, |sealed| open(keys, sealed))
}

fn in_parallel(values: &[&[u8]], work: impl Fn(&[u8]) -> Result<Vec<u8>> + Sync) -> Vec<Result<Vec<u8>>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = values.len().div_ceil(cores).max(PER_THREAD_LEAST);
    let some = |values: &[&[u8]]| values.iter().map(|value| work(value)).collect::<Vec<_>>();
    if values.len() <= share {
        return some(values);
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = values.chunks(share).map(|part| (part.len(), scope.spawn(|| some(part)))).collect();
        let broken = |count| vec![Err(Error::Internal("a thread broke off".into())); count];
        parts.into_iter().flat_map(|(count, part)| part.join().unwrap_or_else(|_| broken(count))).collect()
    })
}

/// The key of a role as an age identity: its 32 derived bytes in the textual form that age parses.
fn role_identity(secret: &[u8], role: &str) -> Result<x25519::Identity> {
    let key = Zeroizing::new(hkdf32(secret, &format!("chorus/v1/role/{role}")));
    let mut text = bech32::encode(AGE_SECRET_KEY_PREFIX, key.as_slice());
    text.make_ascii_uppercase();
    x25519::Identity::from_str(&text).map_err(|e| Error::Internal(format!("no key for role {role}: {e}")))
}

pub(super) fn role_name(role: Option<&str>) -> Result<&str> {
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
    fn batches_are_what_their_parts_would_be() {
        let (writer, reader) = (keys("developer"), keys("architect"));
        let plains: Vec<Vec<u8>> = (0..200u32).map(|n| n.to_be_bytes().repeat(n as usize)).collect();
        let plains: Vec<&[u8]> = plains.iter().map(Vec::as_slice).collect();
        let sealed = seal_many(&writer, Some("developer"), &plains).unwrap();
        let mut given: Vec<&[u8]> = sealed.iter().map(Vec::as_slice).collect();
        given[3] = b"no such thing";
        for (at, outcome) in open_many(&reader, &given).into_iter().enumerate() {
            match outcome {
                Ok(plain) => assert!(at != 3 && plain == plains[at], "{at}"),
                Err(error) => assert!(at == 3 && error.code() == "tampered", "{at}: {error}"),
            }
        }
        assert!(
            open_many(&keys("tester"), &given[4..])
                .iter()
                .all(|one| one.as_ref().is_err_and(|e| e.code() == "not_permitted"))
        );
        assert!(seal_many(&writer, None, &[]).unwrap().is_empty());
        assert_eq!(seal_many(&writer, Some("a/b"), &[]).unwrap_err().code(), "invalid");
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
