//! Rules and exceptions from a file.

use super::*;

fn with(file: &str) -> Scanner {
    let file = RuleFile::parse(file).unwrap_or_else(|problems| panic!("{problems:?}"));
    Scanner::with_rules(file, [7; 32]).unwrap()
}

fn problems(file: &str) -> Vec<String> {
    RuleFile::parse(file).err().unwrap_or_default()
}

const ACME: &str = r#"{"rules": [{"id": "acme-token", "pattern": "acme_[a-z0-9]{16}", "keywords": ["acme_"],
    "severity": "critical", "action": "deny", "entropy": 2.5, "found": ["x=acme_0123456789abcdef"],
    "ignored": ["acme_short", "acme_0000000000000000"]}]}"#;

#[test]
fn a_rule_of_a_file_is_one_among_the_others() {
    let scanner = with(ACME);
    let text = b"a acme_q7w8e9r0t1y2u3i4 b\n";
    let (clean, findings) = scanner.redact(text);
    assert_eq!(clean, b"a [REDACTED:acme-token] b\n");
    assert_eq!((findings[0].severity, findings[0].action), (Severity::Critical, Action::Deny));
    assert!(denied(&findings));
    for cut in 0..text.len() {
        let mut redactor = Redactor::new(scanner.clone());
        let mut out = redactor.push(&text[..cut]);
        out.extend(redactor.push(&text[cut..]));
        out.extend(redactor.finish());
        assert_eq!(out, clean, "cut at {cut}");
    }
    let token = rule("github-token").found[0];
    assert_eq!(*scanner.scan(token.as_bytes())[0].rule, *"github-token");
}

#[test]
fn a_group_is_the_secret() {
    let file = r#"{"rules": [{"id": "pin", "pattern": "(?i)pin code: ([0-9]{4})\\b", "keywords": ["pin code"],
        "found": ["PIN code: 4711"], "ignored": ["pin code: 47110"]}]}"#;
    let scanner = with(file);
    assert_eq!(scanner.redact(b"the Pin Code: 4711, please").0, b"the Pin Code: [REDACTED:pin], please");
    let mut redactor = Redactor::new(scanner);
    let mut out = redactor.push(b"the Pi");
    out.extend(redactor.push(b"n Code: 47"));
    out.extend(redactor.push(b"11, please"));
    assert_eq!(out, b"the Pin Code: [REDACTED:pin], please");
}

#[test]
fn all_mistakes_are_told_at_once_by_rule_and_field() {
    let file = r#"{"rules": [
        {"id": "Acme", "pattern": "a(", "keywords": ["ab"], "severity": "huge", "entropy": 9, "colour": 1},
        {"id": "github-token", "pattern": "x{3}", "keywords": ["xxx"], "found": ["xxx"]},
        {"id": "quiet", "pattern": "quiet[0-9]", "keywords": ["quiet"], "found": ["quiet"], "ignored": ["quiet1"]},
        {"id": "huge", "pattern": "(?:[a-z]{1000}){1000}", "keywords": ["huge"], "found": ["huge"]},
        {"id": "empty", "pattern": "(?:empty)?", "keywords": ["empty"], "found": ["empty"]},
        {"id": "twice", "pattern": "twice", "keywords": ["twice"], "found": ["twice"]},
        {"id": "twice", "pattern": "twice", "keywords": ["twice"], "found": ["twice"]},
        7], "allow": [{"rule": "nobody"}, {"regex": "["}, {"reason": "x"}], "more": 1}"#;
    let told = problems(file);
    for expected in [
        "the file: more: unknown",
        "rules[0] (Acme): colour: unknown",
        "rules[0] (Acme): id: expected small letters",
        "rules[0] (Acme): severity: expected one of low, medium, high, critical",
        "rules[0] (Acme): entropy: expected a number",
        "rules[0] (Acme): keywords: expected 3 to 64 bytes",
        "rules[0] (Acme): pattern: unclosed group",
        "rules[0] (Acme): found: missing",
        "rules[1] (github-token): id: a built-in rule has it",
        "rules[2] (quiet): found[0]: the rule finds nothing in it",
        "rules[2] (quiet): ignored[0]: the rule finds a secret in it",
        "rules[3] (huge): pattern: ",
        "rules[4] (empty): pattern: finds a secret where there is nothing",
        "rules[6] (twice): id: given twice",
        "rules[7]: expected a rule",
        "allow[0]: rule: no rule has this id",
        "allow[1]: regex: unclosed character class",
        "allow[2]: expected at least one of rule, literal, regex, path",
    ] {
        assert!(told.iter().any(|problem| problem.starts_with(expected)), "{expected}: {told:#?}");
    }
    assert_eq!(told.len(), 18, "{told:#?}");
    assert_eq!(problems("[]").len(), 1);
    assert_eq!(problems("{").len(), 1);
    assert!(problems("{}").is_empty());
}

#[test]
fn exceptions_hold_for_what_they_name() {
    let token = rule("github-token").found[0];
    let literal = with(&json!({"allow": [{"literal": token, "reason": "of the tests"}]}).to_string());
    assert!(literal.scan(token.as_bytes()).is_empty());
    assert_eq!(literal.scan(format!("{token}x").as_bytes()).len(), 1);
    let by_rule = with(r#"{"allow": [{"rule": "github-token"}]}"#);
    assert!(by_rule.scan(token.as_bytes()).is_empty());
    assert_eq!(by_rule.scan(rule("npm-token").found[0].as_bytes()).len(), 1);
    let regex = with(r#"{"allow": [{"rule": "github-token", "regex": "^gh._x7K"}]}"#);
    assert!(regex.scan(token.as_bytes()).is_empty());
    let path = with(r#"{"allow": [{"path": "tests/**"}]}"#);
    assert!(path.scan_file(token.as_bytes(), Some("tests/a.py")).is_empty());
    assert_eq!(path.scan_file(token.as_bytes(), Some("src/a.py")).len(), 1);
    assert_eq!(path.scan(token.as_bytes()).len(), 1, "text that leaves an agent is in no file");
}

#[test]
fn comments_that_allow_are_not_heard() {
    let token = rule("github-token").found[0];
    let text = format!("token = '{token}'  # gitleaks:allow, pragma: allowlist secret, noqa, chorus:allow\n");
    assert_eq!(scanner().scan(text.as_bytes()).len(), 1);
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(text in "[\\[\\]{}:,\"a-z0-9 \\\\(*+]{0,200}") {
        let _ = RuleFile::parse(&text);
    }
}
