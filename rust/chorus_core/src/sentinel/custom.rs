//! Rules and exceptions of an operator's own: read from the JSON form of a rule file, with every mistake in it named by
//! rule and field, and every rule tried on the samples it brings.

use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::{
    Action, RULE_ID_MAX_BYTES, Severity, TASK_SECRET_RULE,
    allow::{Allow, glob},
    alphabet::alphabet_of,
    is_rule_id,
    probe::{Prober, REGEX_SIZE_LIMIT_BYTES, compile},
    rules,
    scan::{Engine, Keyworded},
};

/// More rules than this are no longer looked after by anybody.
const MAX_RULES: usize = 1000;
/// More exceptions than this cost time at every finding.
const MAX_ALLOWS: usize = 1000;
/// A pattern is a line of text.
const MAX_PATTERN_BYTES: usize = 4096;
/// A keyword; longer ones say no more.
const MAX_KEYWORD_BYTES: usize = 64;
/// Shorter keywords are everywhere.
const MIN_KEYWORD_BYTES: usize = 3;
/// Keywords and samples of one rule.
const MAX_ITEMS: usize = 100;
/// Longest secret of a rule that does not say so, and the most that one may say: a stream holds as much back.
const DEFAULT_SECRET_BYTES: u64 = 512;
const MAX_SECRET_BYTES: u64 = 8192;

const RULE_FIELDS: &[&str] =
    &["id", "description", "pattern", "keywords", "severity", "action", "entropy", "max_bytes", "found", "ignored"];
const ALLOW_FIELDS: &[&str] = &["rule", "literal", "regex", "path", "reason"];

/// The rules and exceptions of a file, checked.
#[derive(Default)]
pub struct RuleFile {
    pub(super) rules: Vec<Keyworded>,
    pub(super) allows: Vec<Allow>,
}

impl RuleFile {
    /// Reads `{"rules": […], "allow": […]}`.
    ///
    /// # Errors
    /// A sentence for each mistake, naming the rule and the field.
    pub fn parse(json: &str) -> Result<Self, Vec<String>> {
        let mut problems = Problems::default();
        let file = match serde_json::from_str(json) {
            Ok(Value::Object(file)) => file,
            Ok(_) => return Err(vec!["the file: expected `rules:` and `allow:`, each a list".into()]),
            Err(error) => return Err(vec![format!("the file: not JSON: {error}")]),
        };
        problems.unknown("the file", &file, &["rules", "allow"]);
        let mut parsed = Self::default();
        let mut ids: Vec<Arc<str>> = Vec::new();
        for (index, rule) in problems.list("rules", file.get("rules"), MAX_RULES).iter().enumerate() {
            let name = name_of(rule, index);
            if let Some(rule) = read_rule(&name, rule, &mut problems) {
                if ids.contains(&rule.prober.id) {
                    problems.say(&name, "id", "given twice");
                }
                ids.push(rule.prober.id.clone());
                parsed.rules.push(rule);
            }
        }
        for (index, allow) in problems.list("allow", file.get("allow"), MAX_ALLOWS).iter().enumerate() {
            let name = format!("allow[{index}]");
            if let Some(allow) = read_allow(&name, allow, &ids, &mut problems) {
                parsed.allows.push(allow);
            }
        }
        if problems.0.is_empty() { Ok(parsed) } else { Err(problems.0) }
    }
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn say(&mut self, name: &str, field: &str, what: &str) {
        self.0.push(format!("{name}: {field}: {what}"));
    }

    fn unknown(&mut self, name: &str, fields: &Map<String, Value>, known: &[&str]) {
        for field in fields.keys().filter(|field| !known.contains(&field.as_str())) {
            self.say(name, &field.escape_debug().to_string(), &format!("unknown; there is {}", known.join(", ")));
        }
    }

    fn list<'a>(&mut self, name: &str, value: Option<&'a Value>, most: usize) -> &'a [Value] {
        match value {
            None | Some(Value::Null) => &[],
            Some(Value::Array(items)) if items.len() <= most => items,
            Some(Value::Array(items)) => {
                self.0.push(format!("{name}: at most {most}; there are {}", items.len()));
                &[]
            }
            Some(_) => {
                self.0.push(format!("{name}: expected a list"));
                &[]
            }
        }
    }

    fn text<'a>(&mut self, name: &str, fields: &'a Map<String, Value>, field: &str, most: usize) -> Option<&'a str> {
        match fields.get(field)? {
            Value::String(text) if !text.is_empty() && text.len() <= most => return Some(text),
            Value::String(text) if text.is_empty() => self.say(name, field, "empty"),
            Value::String(_) => self.say(name, field, &format!("longer than {most} bytes")),
            _ => self.say(name, field, "expected text"),
        }
        None
    }

    fn texts<'a>(&mut self, name: &str, fields: &'a Map<String, Value>, field: &str) -> Vec<&'a str> {
        let Some(value) = fields.get(field) else { return Vec::new() };
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
        if texts.len() != items.len() || !value.is_array() || items.len() > MAX_ITEMS {
            self.say(name, field, &format!("expected a list of at most {MAX_ITEMS} texts"));
        }
        texts
    }

    fn regex(&mut self, name: &str, field: &str, pattern: &str, size: usize) -> Option<Regex> {
        let built = RegexBuilder::new(pattern).unicode(false).size_limit(size).build();
        built.map_err(|error| self.say(name, field, &first_line(&error))).ok()
    }
}

/// A message of the pattern's compiler in one line: what is wrong stands in its last.
fn first_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn name_of(rule: &Value, index: usize) -> String {
    match rule.get("id").and_then(Value::as_str) {
        Some(id) if id.len() <= RULE_ID_MAX_BYTES => format!("rules[{index}] ({})", id.escape_debug()),
        _ => format!("rules[{index}]"),
    }
}

fn read_rule(name: &str, rule: &Value, problems: &mut Problems) -> Option<Keyworded> {
    let Value::Object(fields) = rule else {
        problems.0.push(format!("{name}: expected a rule with fields {}", RULE_FIELDS.join(", ")));
        return None;
    };
    let before = problems.0.len();
    problems.unknown(name, fields, RULE_FIELDS);
    let id = read_id(name, fields, problems);
    let severity = one_of(name, fields, "severity", &Severity::ALL, Severity::name, Severity::High, problems);
    let action = one_of(name, fields, "action", &Action::ALL, Action::name, Action::Redact, problems);
    let entropy = match fields.get("entropy") {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_f64() {
            Some(bits) if (0.0..=8.0).contains(&bits) => Some(bits),
            _ => {
                problems.say(name, "entropy", "expected a number from 0 to 8, in bits for each byte");
                None
            }
        },
    };
    let max_bytes = match fields.get("max_bytes") {
        None | Some(Value::Null) => DEFAULT_SECRET_BYTES,
        Some(value) => value.as_u64().filter(|n| (1..=MAX_SECRET_BYTES).contains(n)).unwrap_or_else(|| {
            problems.say(name, "max_bytes", &format!("expected a whole number from 1 to {MAX_SECRET_BYTES}"));
            DEFAULT_SECRET_BYTES
        }),
    };
    let keywords = read_keywords(name, fields, problems);
    let pattern = read_pattern(name, fields, problems);
    let (found, ignored) = (problems.texts(name, fields, "found"), problems.texts(name, fields, "ignored"));
    if found.is_empty() {
        problems.say(name, "found", "missing: at least one text in which the rule finds a secret");
    }
    let (Some(id), Some(pattern), true) = (id, pattern, problems.0.len() == before) else { return None };
    let max_bytes = usize::try_from(max_bytes).ok()?;
    let make = || Prober::custom(id.into(), severity, action, entropy, pattern, max_bytes);
    try_samples(name, Keyworded { prober: make(), keywords: keywords.clone() }, &found, &ignored, problems);
    Some(Keyworded { prober: make(), keywords })
}

fn read_id<'a>(name: &str, fields: &'a Map<String, Value>, problems: &mut Problems) -> Option<&'a str> {
    if !fields.contains_key("id") {
        problems.say(name, "id", "missing");
        return None;
    }
    let id = problems.text(name, fields, "id", RULE_ID_MAX_BYTES)?;
    if !id.bytes().all(is_rule_id) {
        problems.say(name, "id", "expected small letters, digits and dashes");
    } else if id == TASK_SECRET_RULE || rules::built_in().any(|rule| rule.id == id) {
        problems.say(name, "id", "a built-in rule has it");
    } else {
        return Some(id);
    }
    None
}

fn one_of<T: Copy>(
    name: &str,
    fields: &Map<String, Value>,
    field: &str,
    all: &[T],
    spelt: fn(T) -> &'static str,
    default: T,
    problems: &mut Problems,
) -> T {
    match fields.get(field) {
        None | Some(Value::Null) => default,
        Some(value) => all.iter().copied().find(|one| value.as_str() == Some(spelt(*one))).unwrap_or_else(|| {
            let words: Vec<&str> = all.iter().map(|one| spelt(*one)).collect();
            problems.say(name, field, &format!("expected one of {}", words.join(", ")));
            default
        }),
    }
}

fn read_keywords(name: &str, fields: &Map<String, Value>, problems: &mut Problems) -> Vec<String> {
    let keywords = problems.texts(name, fields, "keywords");
    if keywords.is_empty() {
        problems.say(name, "keywords", "missing: the text that each of these secrets begins with");
    }
    for keyword in &keywords {
        if !(MIN_KEYWORD_BYTES..=MAX_KEYWORD_BYTES).contains(&keyword.len()) {
            let bounds = format!("{MIN_KEYWORD_BYTES} to {MAX_KEYWORD_BYTES} bytes");
            problems.say(name, "keywords", &format!("expected {bounds} each; one has {}", keyword.len()));
        }
    }
    keywords.into_iter().map(str::to_owned).collect()
}

fn read_pattern<'a>(name: &str, fields: &'a Map<String, Value>, problems: &mut Problems) -> Option<&'a str> {
    if !fields.contains_key("pattern") {
        problems.say(name, "pattern", "missing");
        return None;
    }
    let pattern = problems.text(name, fields, "pattern", MAX_PATTERN_BYTES)?;
    // Alone first: the message then shows the pattern as it is written.
    problems.regex(name, "pattern", pattern, REGEX_SIZE_LIMIT_BYTES)?;
    match (compile(pattern), alphabet_of(pattern)) {
        (Ok(compiled), Ok(_)) if !compiled.is_match(b"") => Some(pattern),
        (Ok(_), Ok(_)) => {
            problems.say(name, "pattern", "finds a secret where there is nothing");
            None
        }
        (Err(error), _) => {
            problems.say(name, "pattern", &first_line(&error));
            None
        }
        (_, Err(error)) => {
            problems.say(name, "pattern", &first_line(&error));
            None
        }
    }
}

fn try_samples(name: &str, rule: Keyworded, found: &[&str], ignored: &[&str], problems: &mut Problems) {
    // An engine of this rule alone: samples say nothing about the others.
    let engine = match Engine::build(vec![rule], Vec::new()) {
        Ok(engine) => engine,
        Err(error) => return problems.say(name, "keywords", &first_line(&error)),
    };
    for (field, samples, wanted) in [("found", found, true), ("ignored", ignored, false)] {
        for (index, sample) in samples.iter().enumerate() {
            // Not the sample itself: it may be a secret.
            if engine.sweep(sample.as_bytes(), true).hits.is_empty() == wanted {
                let what = if wanted { "the rule finds nothing in it" } else { "the rule finds a secret in it" };
                problems.say(name, &format!("{field}[{index}]"), what);
            }
        }
    }
}

fn read_allow(name: &str, allow: &Value, ids: &[Arc<str>], problems: &mut Problems) -> Option<Allow> {
    let Value::Object(fields) = allow else {
        problems.0.push(format!("{name}: expected an exception with fields {}", ALLOW_FIELDS.join(", ")));
        return None;
    };
    problems.unknown(name, fields, ALLOW_FIELDS);
    if !ALLOW_FIELDS[..4].iter().any(|field| fields.contains_key(*field)) {
        problems.0.push(format!("{name}: expected at least one of rule, literal, regex, path"));
    }
    let rule = problems.text(name, fields, "rule", RULE_ID_MAX_BYTES);
    if let Some(rule) = rule
        && !ids.iter().any(|id| **id == *rule)
        && !rules::built_in().any(|known| known.id == rule)
    {
        problems.say(name, "rule", "no rule has this id");
    }
    let literal = problems.text(name, fields, "literal", MAX_PATTERN_BYTES);
    let regex = problems
        .text(name, fields, "regex", MAX_PATTERN_BYTES)
        .and_then(|pattern| problems.regex(name, "regex", pattern, REGEX_SIZE_LIMIT_BYTES));
    let path = problems
        .text(name, fields, "path", MAX_PATTERN_BYTES)
        .and_then(|path| problems.regex(name, "path", &glob(path), REGEX_SIZE_LIMIT_BYTES));
    Some(Allow { rule: rule.map(Arc::from), literal: literal.map(|text| text.as_bytes().to_vec()), regex, path })
}
