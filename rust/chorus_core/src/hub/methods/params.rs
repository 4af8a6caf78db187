//! Reading the parameters of a method out of its head, with errors that name the parameter.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The head of a call, as parameters.
#[derive(Debug)]
pub(super) struct Params(pub Map<String, Value>);

impl Params {
    pub fn text(&self, name: &str) -> Result<&str> {
        self.optional_text(name)?.ok_or_else(|| Error::Invalid(format!("{name}: a string is needed")))
    }

    pub fn optional_text(&self, name: &str) -> Result<Option<&str>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::Invalid(format!("{name}: a string is needed"))),
        }
    }

    pub fn number(&self, name: &str) -> Result<u64> {
        self.optional_number(name)?.ok_or_else(|| Error::Invalid(format!("{name}: a whole number is needed")))
    }

    pub fn optional_number(&self, name: &str) -> Result<Option<u64>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                value.as_u64().map(Some).ok_or_else(|| Error::Invalid(format!("{name}: a whole number is needed")))
            }
        }
    }

    /// A JSON value; `null` when it is missing.
    pub fn take(&mut self, name: &str) -> Value {
        self.0.remove(name).unwrap_or(Value::Null)
    }

    /// A list of peer ids; none when it is missing.
    pub fn peers(&self, name: &str) -> Result<Vec<libp2p::PeerId>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(all)) => all.iter().map(|one| peer(one.as_str().unwrap_or_default())).collect(),
            Some(_) => Err(Error::Invalid(format!("{name}: a list of peer ids is needed"))),
        }
    }

    pub fn peer(&self, name: &str) -> Result<libp2p::PeerId> {
        peer(self.text(name)?)
    }
}

/// A peer id out of text.
pub(super) fn peer(text: &str) -> Result<libp2p::PeerId> {
    text.parse().map_err(|_| Error::Invalid(format!("{text:?} is no peer id")))
}
