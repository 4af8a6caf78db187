//! What is wrong with an address: the part, why, and the address as it may be shown.

use std::fmt::{self, Write};

/// Of an address in an error no more than this is shown; a usual one is shorter.
const RAW_MAX_BYTES: usize = 512;

/// A part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `ucxl://`.
    Scheme,
    /// Who.
    Agent,
    /// In which role.
    Role,
    /// For what.
    Project,
    /// The piece of work.
    Task,
    /// Which version.
    Temporal,
    /// The name within the task.
    Path,
}

impl Field {
    /// The part's name in errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheme => "scheme",
            Self::Agent => "agent",
            Self::Role => "role",
            Self::Project => "project",
            Self::Task => "task",
            Self::Temporal => "temporal",
            Self::Path => "path",
        }
    }
}

/// An address that is none, or a temporal that means no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("UCXL address validation error in {}: {message} (address: {raw})", .field.name())]
pub struct UcxlError {
    /// The part that is wrong.
    pub field: Field,
    /// Why.
    pub message: String,
    /// The address, at most 512 bytes of it and what cannot be printed escaped.
    pub raw: String,
}

/// What is wrong with a part, before it is known which address it belongs to.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) field: Field,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(field: Field, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }

    pub(super) fn of(self, address: &str) -> UcxlError {
        UcxlError { field: self.field, message: self.message, raw: shown(address) }
    }
}

/// The text, bounded, with everything escaped that would not show or would disturb a terminal.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(RAW_MAX_BYTES));
    for c in text.chars() {
        let plain = Printable(c).to_string();
        if out.len() + plain.len() > RAW_MAX_BYTES {
            out.push('…');
            break;
        }
        out.push_str(&plain);
    }
    out
}

/// A character as it may be shown.
pub(super) struct Printable(pub(super) char);

impl fmt::Display for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.0, ' '..='~') { f.write_char(self.0) } else { self.0.escape_debug().fmt(f) }
    }
}
