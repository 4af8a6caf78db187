//! The keys of this agent's roles, whose own role may change while it runs.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use zeroize::Zeroizing;

use super::RoleKeys;
use crate::Result;

/// What the keys of any role are made of.
#[derive(Default)]
pub struct KeySource {
    /// The cluster's secret.
    pub secret: Zeroizing<Vec<u8>>,
    /// Earlier ones: what was sealed under them stays readable.
    pub previous: Vec<Zeroizing<Vec<u8>>>,
    /// A role keys file; keys are derived from the secret without one.
    pub file: Option<PathBuf>,
    /// More readers: pairs of a reader and a role that it may read.
    pub grants: Vec<(String, String)>,
}

impl KeySource {
    fn keys(&self, role: Option<&str>) -> Result<RoleKeys> {
        let mut keys = match &self.file {
            Some(path) => RoleKeys::from_file(path, &self.secret, role)?,
            None => RoleKeys::derive(&self.secret, role)?,
        };
        for (reader, role) in &self.grants {
            keys.grant(reader, role)?;
        }
        for old in &self.previous {
            keys.add_old_secret(old)?;
        }
        Ok(keys)
    }
}

/// The keys that count now.
pub struct LiveKeys {
    source: KeySource,
    current: RwLock<Arc<RoleKeys>>,
}

impl LiveKeys {
    /// The keys of an agent that begins with this role.
    ///
    /// # Errors
    /// As [`RoleKeys::derive`] and [`RoleKeys::from_file`].
    pub fn new(source: KeySource, role: Option<&str>) -> Result<Self> {
        let current = RwLock::new(Arc::new(source.keys(role)?));
        Ok(Self { source, current })
    }

    /// The keys that count now; whoever has them may finish with them.
    #[must_use]
    pub fn current(&self) -> Arc<RoleKeys> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another role counts from now on. After an error the former one still does.
    ///
    /// # Errors
    /// As [`LiveKeys::new`].
    pub fn set_role(&self, role: Option<&str>) -> Result<()> {
        let keys = Arc::new(self.source.keys(role)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, crypto};

    #[test]
    fn another_role_opens_what_is_its_own_and_no_longer_what_was() {
        let source = || KeySource { secret: Zeroizing::new(vec![7; 32]), ..KeySource::default() };
        let live = LiveKeys::new(source(), Some("developer")).unwrap();
        let author = RoleKeys::derive(&[7; 32], Some("admin")).unwrap();
        let sealed = |role| crypto::seal(&author, Some(role), b"plain").unwrap();
        assert_eq!(crypto::open(&live.current(), &sealed("developer")).unwrap(), b"plain");

        live.set_role(Some("tester")).unwrap();
        assert_eq!(crypto::open(&live.current(), &sealed("tester")).unwrap(), b"plain");
        assert!(matches!(crypto::open(&live.current(), &sealed("developer")), Err(Error::NotPermitted(_))));
        assert!(live.current().reads(Some("tester")) && !live.current().reads(Some("developer")));

        assert!(live.set_role(Some("no role/")).is_err());
        assert!(live.current().reads(Some("tester")));
        live.set_role(None).unwrap();
        assert!(live.current().reads(None) && !live.current().reads(Some("tester")));
    }
}
