//! What is no secret here although a rule says so: exceptions of an operator, by rule, value and file.

use std::sync::Arc;

use regex::bytes::Regex;

/// One exception; all that it names must fit.
#[derive(Debug, Default)]
pub(super) struct Allow {
    /// Only findings of this rule.
    pub(super) rule: Option<Arc<str>>,
    /// Only this very secret.
    pub(super) literal: Option<Vec<u8>>,
    /// Only secrets in which this is found.
    pub(super) regex: Option<Regex>,
    /// Only in these files.
    pub(super) path: Option<Regex>,
}

impl Allow {
    /// Whether the exception holds for a secret that a rule has found. Text that is no file's has no path.
    pub(super) fn holds(&self, rule: &str, secret: &[u8], path: Option<&str>) -> bool {
        self.rule.as_ref().is_none_or(|id| **id == *rule)
            && self.literal.as_ref().is_none_or(|literal| literal == secret)
            && self.path.as_ref().is_none_or(|files| path.is_some_and(|path| files.is_match(path.as_bytes())))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(secret))
    }
}

/// The pattern of paths that a glob means: `*` and `?` within a name, `**` across folders; a glob without a slash means
/// files of that name anywhere.
pub(super) fn glob(glob: &str) -> String {
    let mut pattern = String::from(if glob.contains('/') { r"\A" } else { r"(?:\A|/)" });
    let mut rest = glob.strip_prefix('/').unwrap_or(glob);
    while let Some(first) = rest.chars().next() {
        let (length, means) = match first {
            '*' if rest.starts_with("**/") => (3, "(?:.*/)?".to_owned()),
            '*' if rest.starts_with("**") => (2, ".*".to_owned()),
            '*' => (1, "[^/]*".to_owned()),
            '?' => (1, "[^/]".to_owned()),
            other => (other.len_utf8(), regex::escape(&other.to_string())),
        };
        pattern.push_str(&means);
        rest = &rest[length..];
    }
    pattern + r"\z"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn globs_mean_paths() {
        let fits = |glob: &str, path: &str| Regex::new(&super::glob(glob)).unwrap().is_match(path.as_bytes());
        assert!(fits("*.pem", "a/b/x.pem") && fits("*.pem", "x.pem") && !fits("*.pem", "x.pem.txt"));
        assert!(fits("tests/**", "tests/a/b") && !fits("tests/**", "src/tests/a"));
        assert!(fits("**/tests/*.py", "a/b/tests/x.py") && fits("**/tests/*.py", "tests/x.py"));
        assert!(!fits("a/*", "a/b/c") && fits("a/?", "a/b") && !fits("a.b", "axb"));
    }
}
