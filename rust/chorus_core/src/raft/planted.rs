//! Mistakes that a test plants in the machine, to show that the simulation would find them.

use super::machine::Machine;

/// A mistake in the handling of member changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A member that was removed is counted as a voter.
    RemovedVotes,
    /// A leader makes a change before the one before is applied.
    TwoChanges,
    /// A change counts as soon as it is in the log, committed or not.
    BeforeCommit,
}

impl Machine {
    pub(super) fn has(&self, bug: Bug) -> bool {
        self.parts.bug == Some(bug)
    }
}
