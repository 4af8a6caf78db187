//! Tokens of version control hosts and package registries.

use super::{Behind, Form, Rule};
use crate::sentinel::{Action, Severity};

/// GitHub's classic tokens: `ghp_`, `gho_`, `ghu_`, `ghs_`, `ghr_` and at least 36 letters and digits ("Behind GitHub's
/// new authentication token formats", 2021).
pub(super) const GITHUB_TOKEN: Rule = Rule {
    id: "github-token",
    keywords: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "gh[pousr]_[A-Za-z0-9]{36,}",
        alphabet: "A-Za-z0-9_",
        max_bytes: 512,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.0),
    check: None,
    found: &[
        concat!("gh", "p_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
        concat!("https://gh", "s_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw@github.com/o/r"),
        concat!("\x1b[32mgh", "o_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw\x1b[0m"),
        concat!(r"token\ngh", "u_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
    ],
    ignored: &["ghp_short", "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "highp_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"],
};

/// GitHub's fine-grained tokens: `github_pat_`, 22 characters, `_`, 59 characters (GitHub changelog, October 2022).
pub(super) const GITHUB_FINE_GRAINED: Rule = Rule {
    id: "github-fine-grained-token",
    keywords: &["github_pat_"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "github_pat_[A-Za-z0-9_]{36,}",
        alphabet: "A-Za-z0-9_",
        max_bytes: 512,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.5),
    check: None,
    found: &[concat!("github", "_pat_11ABCDEFG0x7Kq2LmV9nRt_4WzY8bCd1FgH6jPs3TuE5aQwX2cV7nM9kL0pJ4hG8fD6sA3qW1eR5tY")],
    ignored: &["github_pat_", "github_pat_example_token_goes_here"],
};

/// GitLab personal, project, deploy, runner and CI job tokens (GitLab docs, "Token overview: token prefixes").
pub(super) const GITLAB_TOKEN: Rule = Rule {
    id: "gitlab-token",
    keywords: &["glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "gl(?:pat|dt|rt|cbt|ptt)-[A-Za-z0-9_-]{20,}",
        alphabet: "A-Za-z0-9_-",
        max_bytes: 512,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.0),
    check: None,
    found: &[concat!("PRIVATE-TOKEN: gl", "pat-x7Kq2LmV9nRt4WzY8bCd")],
    ignored: &["glpat-xxxxxxxxxxxxxxxxxxxx", "glpat-", "glrt-short"],
};

/// npm access tokens: `npm_` and 36 letters and digits, six of them a checksum (GitHub blog, "npm's new token format").
pub(super) const NPM_TOKEN: Rule = Rule {
    id: "npm-token",
    keywords: &["npm_"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "(npm_[A-Za-z0-9]{36})(?:[^A-Za-z0-9_]|$)",
        alphabet: "A-Za-z0-9_",
        max_bytes: 128,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.5),
    check: None,
    found: &[concat!("//registry.npmjs.org/:_authToken=np", "m_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw")],
    ignored: &["npm_config_registry", "npm_lifecycle_event", "npm_package_dependencies_typescript_version_range"],
};

/// PyPI upload tokens: `pypi-` before a base64 macaroon whose location is pypi.org or test.pypi.org (PyPI help, "API tokens").
pub(super) const PYPI_TOKEN: Rule = Rule {
    id: "pypi-token",
    keywords: &["pypi-AgEIcHlwaS5vcmc", "pypi-AgENdGVzdC5weXBpLm9yZ"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "pypi-AgE(?:IcHlwaS5vcmc|NdGVzdC5weXBpLm9yZ)[A-Za-z0-9_-]{50,}",
        alphabet: "A-Za-z0-9_-",
        max_bytes: 1024,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: None,
    check: None,
    found: &[concat!(
        "py",
        "pi-AgEIcHlwaS5vcmcCJDU0ZjY2ZjMzLTk1YjQtNGE2Ny1hMjVlLWQ4ZjU5OTk3MTExMgACKlszLCJx7Kq2LmV9nRt4"
    )],
    ignored: &["pypi-AgEIcHlwaS5vcmc", "pypi-server"],
};
