//! The address itself: read, put together, compared as a pattern.

use std::{fmt, str::FromStr};

use super::{
    error::{Fault, Field, Printable, UcxlError},
    temporal::Temporal,
};

const SCHEME: &str = "ucxl://";

/// What stands for every agent, role, project or task.
const ANY: &str = "any";

/// An agent's id has up to 64 characters, a role up to 128.
const COMPONENT_MAX_BYTES: usize = 128;

/// Room for a deep tree of sources; an address still fits a line of a log and any URL.
const PATH_MAX_BYTES: usize = 1024;

/// An address. It is its text: equal, ordered and hashed by it, and printed exactly as it was read.
// The text comes first, so that it alone decides the order; all else follows from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ucxl {
    text: Box<str>,
    /// Where each part begins; the limits above keep these small.
    role: u16,
    project: u16,
    task: u16,
    time: u16,
    path: u16,
    temporal: Temporal,
}

impl Ucxl {
    /// Reads an address.
    ///
    /// # Errors
    /// The first part that is wrong.
    pub fn parse(text: &str) -> Result<Self, UcxlError> {
        Parts::of(text).and_then(|parts| Self::of(text, &parts)).map_err(|fault| fault.of(text))
    }

    /// Puts an address together; each part is checked by itself.
    ///
    /// # Errors
    /// The first part that is wrong.
    pub fn new(
        agent: &str,
        role: &str,
        project: &str,
        task: &str,
        path: &str,
        temporal: &str,
    ) -> Result<Self, UcxlError> {
        let text = format!("{SCHEME}{agent}:{role}@{project}:{task}/{temporal}/{path}");
        let parts = Parts { agent, role, project, task, temporal, path };
        Self::of(&text, &parts).map_err(|fault| fault.of(&text))
    }

    fn of(text: &str, parts: &Parts<'_>) -> Result<Self, Fault> {
        let mut at = SCHEME.len();
        let mut next = |field, component: &str| {
            check_component(field, component)?;
            at += component.len() + 1;
            // Seven bytes and five parts within their limits.
            u16::try_from(at).map_err(|_| Fault::new(field, "is too long"))
        };
        let role = next(Field::Agent, parts.agent)?;
        let project = next(Field::Role, parts.role)?;
        let task = next(Field::Project, parts.project)?;
        let time = next(Field::Task, parts.task)?;
        let temporal = Temporal::parse(parts.temporal)?;
        check_path(parts.path)?;
        let path = u16::try_from(text.len() - parts.path.len()).map_err(|_| Fault::new(Field::Path, "is too long"))?;
        Ok(Self { text: text.into(), role, project, task, time, path, temporal })
    }

    /// The same place at another time.
    ///
    /// # Errors
    /// When the temporal is none.
    pub fn at(&self, temporal: &str) -> Result<Self, UcxlError> {
        Self::new(self.agent(), self.role(), self.project(), self.task(), self.path(), temporal)
    }

    /// The whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.text[SCHEME.len()..usize::from(self.role) - 1]
    }

    /// The role it was written in.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.text[usize::from(self.role)..usize::from(self.project) - 1]
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.text[usize::from(self.project)..usize::from(self.task) - 1]
    }

    /// The task.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.text[usize::from(self.task)..usize::from(self.time) - 1]
    }

    /// Which version.
    #[must_use]
    pub fn temporal(&self) -> Temporal {
        self.temporal
    }

    /// The name within the task; may be empty.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.path)..]
    }

    fn components(&self) -> [&str; 4] {
        [self.agent(), self.role(), self.project(), self.task()]
    }

    /// Whether it can stand for more than one thing: a component is `any`, or the temporal is `*~`.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.temporal == Temporal::Any || self.components().contains(&ANY)
    }

    /// Whether `other` is one of the places this one stands for as a pattern. `any` stands for every component; the path
    /// for itself and, when it is empty or ends in `/`, for all that begins with it. Temporals do not matter.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let path = self.path();
        let below = path.is_empty() || path.ends_with('/');
        (if below { other.path().starts_with(path) } else { other.path() == path })
            && self.components().iter().zip(other.components()).all(|(own, theirs)| *own == ANY || *own == theirs)
    }

    /// The version that the temporal means among versions 1 to `latest`.
    ///
    /// # Errors
    /// In the field `temporal`: past the ends, and for `*~`.
    pub fn resolve(&self, latest: u32) -> Result<u32, UcxlError> {
        self.temporal.resolve(latest).map_err(|fault| fault.of(&self.text))
    }
}

impl fmt::Display for Ucxl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Ucxl {
    type Err = UcxlError;

    fn from_str(text: &str) -> Result<Self, UcxlError> {
        Self::parse(text)
    }
}

/// An address taken apart, unchecked.
struct Parts<'a> {
    agent: &'a str,
    role: &'a str,
    project: &'a str,
    task: &'a str,
    temporal: &'a str,
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, Fault> {
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| Fault::new(Field::Scheme, format!("an address begins with `{SCHEME}`")))?;
        let (agent, rest) = cut(rest, Field::Agent, ':')?;
        let (role, rest) = cut(rest, Field::Role, '@')?;
        let (project, rest) = cut(rest, Field::Project, ':')?;
        let (task, rest) = cut(rest, Field::Task, '/')?;
        let (temporal, path) = cut(rest, Field::Temporal, '/')?;
        Ok(Self { agent, role, project, task, temporal, path })
    }
}

fn cut(rest: &str, field: Field, end: char) -> Result<(&str, &str), Fault> {
    rest.split_once(end).ok_or_else(|| Fault::new(field, format!("must be followed by `{end}`")))
}

fn check_component(field: Field, text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(Fault::new(field, "is empty"));
    }
    check_length(field, text, COMPONENT_MAX_BYTES)?;
    match text.chars().find(|c| !matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-')) {
        Some(c) => Err(Fault::new(field, format!("may not contain `{}`: only A-Z a-z 0-9 _ -", Printable(c)))),
        None => Ok(()),
    }
}

/// Segments with a name each, none of which leads upwards or nowhere; a `/` may stand at the end.
fn check_path(path: &str) -> Result<(), Fault> {
    check_length(Field::Path, path, PATH_MAX_BYTES)?;
    if let Some(c) = path.chars().find(|c| !matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' | '/' | '.')) {
        return Err(Fault::new(Field::Path, format!("may not contain `{}`: only A-Z a-z 0-9 _ - / .", Printable(c))));
    }
    if path.is_empty() {
        return Ok(());
    }
    for segment in path.strip_suffix('/').unwrap_or(path).split('/') {
        match segment {
            "" => return Err(Fault::new(Field::Path, "has an empty segment")),
            "." | ".." => {
                return Err(Fault::new(Field::Path, format!("may not climb: it has the segment `{segment}`")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_length(field: Field, text: &str, most: usize) -> Result<(), Fault> {
    if text.len() > most {
        return Err(Fault::new(field, format!("is {} bytes long; at most {most}", text.len())));
    }
    Ok(())
}
