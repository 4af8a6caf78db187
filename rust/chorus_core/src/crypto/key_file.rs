//! The role keys file (`CHORUS_ROLE_KEYS_FILE`): the age identities that an agent may read with and the public recipients
//! of all roles, as JSON or as age's own text.
//!
//! ```json
//! {"identities": {"member": ["AGE-SECRET-KEY-1…"], "developer": "AGE-SECRET-KEY-1…"},
//!  "recipients": {"member": "age1…", "developer": "age1…", "admin": "age1…"}}
//! ```
//!
//! ```text
//! # role: member
//! AGE-SECRET-KEY-1…
//! age1…
//! # role: admin
//! age1…
//! ```
//!
//! In the text each key belongs to the last `# role:` above it; other comments and empty lines do not count. A role has one
//! recipient and any number of identities: the older ones keep older values readable. Whoever can read the file can read
//! what is sealed to its roles, so that it must belong to the agent's user alone.

use std::{collections::BTreeMap, fs::File, io::Read, os::unix::fs::MetadataExt, path::Path, str::FromStr};

use age::x25519;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::seal::{ADMIN_ROLE, MEMBER_ROLE, role_name};
use crate::{Error, Result};

/// A larger file is not the one that was meant.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// What each key of a file costs when a value is opened keeps their number down.
const IDENTITIES_MAX: usize = 256;
const IDENTITY_PREFIX: &str = "AGE-SECRET-KEY-";
const RECIPIENT_PREFIX: &str = "age1";
const ROLE_MARK: &str = "role:";

/// Keys as a file gives them.
#[derive(Default)]
pub(super) struct KeyFile {
    /// What this agent may read with, by role, in the file's order.
    pub identities: BTreeMap<String, Vec<x25519::Identity>>,
    /// To whom values are sealed.
    pub recipients: BTreeMap<String, x25519::Recipient>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    identities: BTreeMap<String, OneOrMore>,
    #[serde(default)]
    recipients: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(Identity),
    More(Vec<Identity>),
}

/// An identity's text: wiped when dropped.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Identity(Zeroizing<String>);

impl From<String> for Identity {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Reads a file that only its owner may read.
pub(super) fn load(path: &Path, role: Option<&str>) -> Result<KeyFile> {
    let shown = path.display();
    let invalid = |why: &dyn std::fmt::Display| Error::Invalid(format!("{shown}: {why}"));
    let file = File::open(path).map_err(|error| invalid(&error))?;
    let about = file.metadata().map_err(|error| invalid(&error))?;
    if !about.is_file() {
        return Err(invalid(&"it is no file"));
    }
    if about.mode() & 0o077 != 0 {
        let mode = about.mode() & 0o777;
        return Err(invalid(&format!(
            "others may read or change it (mode {mode:o}); make it private: chmod 600 {shown} (a Docker secret: mode: 0400)"
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| invalid(&error))?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(invalid(&format!("it is larger than {FILE_MAX_BYTES} bytes")));
    }
    let keys = parse(&text).map_err(|error| invalid(&error))?;
    keys.check(role).map_err(|error| invalid(&error))?;
    Ok(keys)
}

/// Reads either form; errors never repeat a key.
pub(super) fn parse(text: &str) -> Result<KeyFile> {
    let mut keys = KeyFile::default();
    if text.trim_start().starts_with('{') {
        // Without serde's text, which could repeat a secret.
        let written: Written = serde_json::from_str(text).map_err(|error| {
            Error::Invalid(format!(
                "expected JSON with the objects identities and recipients; line {}, column {} is something else",
                error.line(),
                error.column()
            ))
        })?;
        for (role, given) in written.identities {
            let given = match given {
                OneOrMore::One(one) => vec![one],
                OneOrMore::More(more) => more,
            };
            for identity in given {
                keys.add_identity(&role, &identity.0, &format!("identities.{role}"))?;
            }
        }
        for (role, recipient) in written.recipients {
            keys.add_recipient(&role, &recipient, &format!("recipients.{role}"))?;
        }
        return Ok(keys);
    }
    let mut role = None;
    for (at, line) in text.lines().enumerate() {
        let (line, place) = (line.trim(), format!("line {}", at + 1));
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(name) = comment.trim_start().strip_prefix(ROLE_MARK) {
                role = Some(name.trim().to_owned());
            }
        } else if !line.is_empty() {
            let role = role.as_deref().ok_or_else(|| {
                Error::Invalid(format!("{place}: a key before any role; write `# role: NAME` above it"))
            })?;
            if line.starts_with(IDENTITY_PREFIX) {
                keys.add_identity(role, line, &place)?;
            } else {
                keys.add_recipient(role, line, &place)?;
            }
        }
    }
    Ok(keys)
}

impl KeyFile {
    fn add_identity(&mut self, role: &str, text: &str, place: &str) -> Result<()> {
        if self.identities.values().map(Vec::len).sum::<usize>() >= IDENTITIES_MAX {
            return Err(Error::Invalid(format!("more than {IDENTITIES_MAX} identities")));
        }
        let identity = x25519::Identity::from_str(text)
            .map_err(|_| Error::Invalid(format!("{place}: expected an age identity ({IDENTITY_PREFIX}1…)")))?;
        self.identities.entry(named(role, place)?).or_default().push(identity);
        Ok(())
    }

    fn add_recipient(&mut self, role: &str, text: &str, place: &str) -> Result<()> {
        let recipient = x25519::Recipient::from_str(text).map_err(|_| {
            Error::Invalid(format!(
                "{place}: expected an age recipient ({RECIPIENT_PREFIX}…) or identity ({IDENTITY_PREFIX}1…); \
                 age-keygen makes both"
            ))
        })?;
        let role = named(role, place)?;
        if self.recipients.contains_key(&role) {
            return Err(Error::Invalid(format!(
                "{place}: role {role} has two recipients; keep the newest and leave older identities in the file"
            )));
        }
        self.recipients.insert(role, recipient);
        Ok(())
    }

    /// Whether an agent with this role can live with these keys.
    fn check(&self, role: Option<&str>) -> Result<()> {
        let role = role_name(role)?;
        for needed in [MEMBER_ROLE, role] {
            if !self.identities.contains_key(needed) {
                return Err(Error::Invalid(format!("no identity for role {needed}, which this agent has; add it")));
            }
        }
        let held = self.identities.keys().map(String::as_str);
        for needed in [MEMBER_ROLE, ADMIN_ROLE].into_iter().chain(held) {
            let Some(recipient) = self.recipients.get(needed) else {
                return Err(Error::Invalid(format!(
                    "no recipient for role {needed}; add the line that age-keygen -y prints for its identity"
                )));
            };
            let own = self.identities.get(needed);
            if own.is_some_and(|own| !own.iter().any(|one| one.to_public().to_string() == recipient.to_string())) {
                return Err(Error::Invalid(format!(
                    "the recipient of role {needed} belongs to none of its identities; they must be a pair"
                )));
            }
        }
        Ok(())
    }
}

fn named(role: &str, place: &str) -> Result<String> {
    role_name(Some(role)).map(str::to_owned).map_err(|error| Error::Invalid(format!("{place}: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use age::secrecy::ExposeSecret;
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{RoleKeys, open, seal};

    const SECRET: &[u8] = b"a cluster secret of some length";

    struct Pair {
        identity: String,
        recipient: String,
    }

    fn pair() -> Pair {
        let identity = x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        Pair { identity: identity.to_string().expose_secret().to_owned(), recipient }
    }

    /// A file in both forms, for an agent that holds the roles in `held`.
    fn texts(pairs: &[(&str, &Pair)], held: &[&str]) -> [String; 2] {
        let mut text = String::from("# made for a test\n");
        let (mut identities, mut recipients) = (serde_json::Map::new(), serde_json::Map::new());
        for (role, pair) in pairs {
            text += &format!("# role: {role}\n{}\n\n", pair.recipient);
            recipients.insert((*role).into(), pair.recipient.clone().into());
            if held.contains(role) {
                text += &format!("{}\n", pair.identity);
                identities.insert((*role).into(), vec![pair.identity.clone()].into());
            }
        }
        [text, serde_json::json!({"identities": identities, "recipients": recipients}).to_string()]
    }

    fn file(folder: &tempfile::TempDir, text: &str, mode: u32) -> std::path::PathBuf {
        let path = folder.path().join("keys");
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn why(path: &Path, role: &str) -> String {
        match load(path, Some(role)).map(|_| ()) {
            Err(Error::Invalid(why)) => why,
            outcome => unreachable!("{outcome:?}"),
        }
    }

    #[test]
    fn roles_are_kept_apart_by_their_keys() {
        let (member, admin, developer, tester) = (pair(), pair(), pair(), pair());
        let pairs = [("member", &member), ("admin", &admin), ("developer", &developer), ("tester", &tester)];
        let folder = tempfile::tempdir().unwrap();
        for form in [0, 1] {
            let keys = |role: &str| {
                let text = &texts(&pairs, &["member", role])[form];
                RoleKeys::from_file(&file(&folder, text, 0o600), SECRET, Some(role)).unwrap()
            };
            let sealed = seal(&keys("tester"), Some("developer"), b"for developers").unwrap();
            for (role, may) in [("developer", true), ("admin", true), ("tester", false)] {
                match open(&keys(role), &sealed) {
                    Ok(plain) => assert!(may && plain == b"for developers", "{role}"),
                    Err(error) => assert!(!may && error.code() == "not_permitted", "{role}: {error}"),
                }
            }
            // The cluster's secret opens nothing of it, unlike keys that are derived from it.
            assert!(open(&RoleKeys::derive(SECRET, Some("developer")).unwrap(), &sealed).is_err());
            let news = seal(&keys("tester"), None, b"news").unwrap();
            assert_eq!(open(&keys("developer"), &news).unwrap(), b"news");
            // A role that the file does not name has nobody to seal to.
            let unknown = seal(&keys("tester"), Some("observer"), b"x").unwrap_err();
            assert!(unknown.to_string().contains("observer") && unknown.code() == "invalid", "{unknown}");
        }
    }

    #[test]
    fn old_identities_and_the_former_secret_keep_old_values_readable() {
        let folder = tempfile::tempdir().unwrap();
        let derived = seal(&RoleKeys::derive(SECRET, Some("developer")).unwrap(), Some("developer"), b"first").unwrap();
        let (member, admin, old, new) = (pair(), pair(), pair(), pair());
        let pairs = [("member", &member), ("admin", &admin), ("developer", &old)];
        let [text, _] = texts(&pairs, &["member", "developer"]);
        let before = RoleKeys::from_file(&file(&folder, &text, 0o600), SECRET, Some("developer")).unwrap();
        let second = seal(&before, Some("developer"), b"second").unwrap();
        let pairs = [("member", &member), ("admin", &admin), ("developer", &new)];
        let [text, _] = texts(&pairs, &["member", "developer"]);
        let rotated = format!("{text}# role: developer\n{}\n", old.identity);
        let after = RoleKeys::from_file(&file(&folder, &rotated, 0o400), SECRET, Some("developer")).unwrap();
        assert_eq!(open(&after, &derived).unwrap(), b"first");
        assert_eq!(open(&after, &second).unwrap(), b"second");
        let third = seal(&after, Some("developer"), b"third").unwrap();
        assert_eq!(open(&after, &third).unwrap(), b"third");
        assert_eq!(open(&before, &third).unwrap_err().code(), "not_permitted");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_remedy_and_without_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (member, admin, developer, other) = (pair(), pair(), pair(), pair());
        let pairs = [("member", &member), ("admin", &admin), ("developer", &developer)];
        let [good, json] = texts(&pairs, &["member", "developer"]);
        assert!(load(&file(&folder, &good, 0o600), Some("developer")).is_ok());
        for mode in [0o640, 0o604, 0o660] {
            assert!(why(&file(&folder, &good, mode), "developer").contains("chmod 600"), "{mode:o}");
        }
        let says = |text: &str, wanted: &str| {
            let said = why(&file(&folder, text, 0o600), "developer");
            assert!(said.contains(wanted), "{said}");
            assert!(!said.contains("AGE-SECRET-KEY-1") || said.contains("AGE-SECRET-KEY-1…"), "{said}");
            assert!(!said.contains(&member.identity[20..]), "{said}");
        };
        says("", "no identity for role member");
        says(&texts(&pairs, &["member"])[0], "no identity for role developer");
        says(&texts(&pairs[..2], &["member"])[0], "no identity for role developer");
        says(&texts(&[("member", &member), ("developer", &developer)], &["member", "developer"])[0], "role admin");
        says(&member.identity, "# role: NAME");
        says(&good.replace(&member.identity, &member.identity[..40]), "line 5: expected an age identity");
        says(&good.replace("# role: member", "# role: a/b"), "line 3: role \"a/b\"");
        says(&format!("{good}# role: admin\n{}\n", other.recipient), "two recipients");
        says(&good.replace(&developer.recipient, &other.recipient), "must be a pair");
        says(&good.replace(&admin.recipient, "ssh-ed25519 AAAA"), "age-keygen");
        says(&json.replace("recipients", "recipient"), "identities and recipients");
        says(&json.replace(&member.identity, "x"), "identities.member");
        says(&format!("{good}{}", "# x".repeat(400_000)), "larger than");
        assert!(why(folder.path(), "developer").contains("no file"));
        assert!(why(&folder.path().join("none"), "developer").contains("No such file"));
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in "\\PC{0,200}", json in any::<bool>()) {
            let _ = parse(&text);
            if json {
                let _ = parse(&format!("{{{text}"));
            }
        }

        #[test]
        fn any_lines_are_safe(lines in proptest::collection::vec(
            prop_oneof!["# role: [a-z/]{0,8}", "AGE-SECRET-KEY-1[A-Z0-9]{0,60}", "age1[a-z0-9]{0,60}", "[ -~]{0,20}"], 0..12)) {
            let _ = parse(&lines.join("\n"));
        }
    }
}
