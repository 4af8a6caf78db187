//! The closed set of gossip topics, their parser, and the message types that each one knows.

use std::{fmt, str::FromStr};

use crate::Error;

/// Longest role, expertise or supervisor in a topic's name.
const NAME_MAX_BYTES: usize = 128;

/// A gossip topic of CHORUS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// `chorus/tasks`: tasks offered and cancelled.
    Tasks,
    /// `chorus/coordination/v1`: news of tasks in work.
    Coordination,
    /// `hmmm/meta-discussion/v1`: HMMM, the agents' collaborative reasoning.
    Discussion,
    /// `chorus/election/v1`: leaders and candidates.
    Election,
    /// `chorus/decisions`: decision records published and voted on.
    Decisions,
    /// `chorus/health`: how agents are.
    Health,
    /// `chorus/role/{role}`.
    Role(String),
    /// `chorus/expertise/{expertise}`.
    Expertise(String),
    /// `chorus/reports/{supervisor}`.
    Reports(String),
}

const TASKS: &[&str] = &["task_announcement", "task_cancel"];
const COORDINATION: &[&str] = &[
    "task_claim",
    "task_award",
    "task_decline",
    "task_progress",
    "task_complete",
    "task_failed",
    "availability_broadcast",
    "capability_broadcast",
    "coordination_request",
    "coordination_complete",
    "dependency_alert",
];
const DISCUSSION: &[&str] = &["hmmm.message", "task_help_request", "task_help_response", "escalation_trigger"];
const ELECTION: &[&str] = &["heartbeat", "candidacy", "vote", "leader", "resign", "member_change"];
const DECISIONS: &[&str] = &["decision_published", "decision_vote"];
const HEALTH: &[&str] = &["health_status"];
const EVERY: &[&[&str]] = &[TASKS, COORDINATION, DISCUSSION, ELECTION, DECISIONS, HEALTH];

impl Topic {
    /// The topics that every agent takes part in.
    pub const FIXED: [Self; 6] =
        [Self::Tasks, Self::Coordination, Self::Discussion, Self::Election, Self::Decisions, Self::Health];

    /// Whether the topic carries messages of this type; topics for a role, expertise or supervisor carry all types.
    #[must_use]
    pub fn knows(&self, kind: &str) -> bool {
        match self {
            Self::Tasks => TASKS.contains(&kind),
            Self::Coordination => COORDINATION.contains(&kind),
            Self::Discussion => DISCUSSION.contains(&kind),
            Self::Election => ELECTION.contains(&kind),
            Self::Decisions => DECISIONS.contains(&kind),
            Self::Health => HEALTH.contains(&kind),
            Self::Role(_) | Self::Expertise(_) | Self::Reports(_) => EVERY.iter().any(|kinds| kinds.contains(&kind)),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tasks => f.write_str("chorus/tasks"),
            Self::Coordination => f.write_str("chorus/coordination/v1"),
            Self::Discussion => f.write_str("hmmm/meta-discussion/v1"),
            Self::Election => f.write_str("chorus/election/v1"),
            Self::Decisions => f.write_str("chorus/decisions"),
            Self::Health => f.write_str("chorus/health"),
            Self::Role(name) => write!(f, "chorus/role/{name}"),
            Self::Expertise(name) => write!(f, "chorus/expertise/{name}"),
            Self::Reports(name) => write!(f, "chorus/reports/{name}"),
        }
    }
}

impl FromStr for Topic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let topic = match text {
            "chorus/tasks" => Self::Tasks,
            "chorus/coordination/v1" => Self::Coordination,
            "hmmm/meta-discussion/v1" => Self::Discussion,
            "chorus/election/v1" => Self::Election,
            "chorus/decisions" => Self::Decisions,
            "chorus/health" => Self::Health,
            _ => {
                let named = text.strip_prefix("chorus/").and_then(|rest| rest.split_once('/'));
                match named {
                    Some(("role", name)) if is_name(name) => Self::Role(name.into()),
                    Some(("expertise", name)) if is_name(name) => Self::Expertise(name.into()),
                    Some(("reports", name)) if is_name(name) => Self::Reports(name.into()),
                    _ => {
                        return Err(Error::Invalid(format!(
                            "unknown topic `{}`; docs/protocol.md lists them",
                            text.escape_debug()
                        )));
                    }
                }
            }
        };
        Ok(topic)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX_BYTES && !name.chars().any(|c| c == '/' || c.is_control())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_contract_topic_parses_to_itself() {
        for name in [
            "chorus/tasks",
            "chorus/coordination/v1",
            "hmmm/meta-discussion/v1",
            "chorus/election/v1",
            "chorus/decisions",
            "chorus/health",
            "chorus/role/developer",
            "chorus/expertise/rust",
            "chorus/reports/lead-1",
        ] {
            assert_eq!(name.parse::<Topic>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn topics_know_their_types_and_no_others() {
        assert!(Topic::Tasks.knows("task_announcement"));
        assert!(!Topic::Tasks.knows("task_award"));
        assert!(Topic::Role("x".into()).knows("hmmm.message"));
        assert!(!Topic::Role("x".into()).knows("nonsense"));
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was(text in "(chorus/(role|expertise|reports|x)/)?[a-z/ \\n]{0,20}") {
            if let Ok(topic) = text.parse::<Topic>() {
                prop_assert_eq!(topic.to_string(), text);
            }
        }
    }
}
