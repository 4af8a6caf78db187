//! The one error type of the core; its codes are the error codes of the hub (docs/ipc.md).

use thiserror::Error as ThisError;

/// Shorthand used across the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, one variant per code of the hub's ERR frame.
#[derive(Debug, Clone, ThisError)]
pub enum Error {
    /// An argument or message is malformed; names the field and the remedy.
    #[error("{0}")]
    Invalid(String),
    /// Nothing is stored under that name.
    #[error("not found: {0}")]
    NotFound(String),
    /// The peer, service or process cannot be reached now.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The deadline passed; the outcome is unknown.
    #[error("timed out: {0}")]
    Timeout(String),
    /// The other side understood and said no.
    #[error("refused: {0}")]
    Refused(String),
    /// A size limit was exceeded.
    #[error("too large: {0}")]
    TooLarge(String),
    /// This agent is in no mesh yet.
    #[error("this agent is not in a mesh yet")]
    NoMesh,
    /// The mesh has no leader now.
    #[error("the mesh has no leader now")]
    NoLeader,
    /// Only the leader can answer this.
    #[error("this agent does not lead the mesh")]
    NotLeader,
    /// The core is shutting down.
    #[error("closed")]
    Closed,
    /// The keys at hand do not open this value, or the author may not write it.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// A signature or hash does not fit.
    #[error("tampered: {0}")]
    Tampered(String),
    /// Too few replicas answered.
    #[error("quorum failed: {0}")]
    QuorumFailed(String),
    /// A disk or system call failed.
    #[error("internal: {0}")]
    Internal(String),
}

impl Error {
    /// The code that stands for this error in the hub's protocol.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::NotFound(_) => "not_found",
            Self::Unavailable(_) => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::Refused(_) => "refused",
            Self::TooLarge(_) => "too_large",
            Self::NoMesh => "no_mesh",
            Self::NoLeader => "no_leader",
            Self::NotLeader => "not_leader",
            Self::Closed => "closed",
            Self::NotPermitted(_) => "not_permitted",
            Self::Tampered(_) => "tampered",
            Self::QuorumFailed(_) => "quorum_failed",
            Self::Internal(_) => "internal",
        }
    }

    /// The error that a code and message from another process or peer stand for.
    #[must_use]
    pub fn from_code(code: &str, message: String) -> Self {
        match code {
            "invalid" => Self::Invalid(message),
            "not_found" => Self::NotFound(message),
            "unavailable" => Self::Unavailable(message),
            "timeout" => Self::Timeout(message),
            "refused" => Self::Refused(message),
            "too_large" => Self::TooLarge(message),
            "no_mesh" => Self::NoMesh,
            "no_leader" => Self::NoLeader,
            "not_leader" => Self::NotLeader,
            "closed" => Self::Closed,
            "not_permitted" => Self::NotPermitted(message),
            "tampered" => Self::Tampered(message),
            "quorum_failed" => Self::QuorumFailed(message),
            _ => Self::Internal(message),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(error.to_string())
    }
}
