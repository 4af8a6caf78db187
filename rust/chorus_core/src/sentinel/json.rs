//! Redaction inside JSON: only strings and names change, so the document stays valid.

use serde_json::{Map, Value};

use super::{Finding, Scanner, marker};

/// Stands between a name and its value where both are scanned together, so that a name can say its value is secret.
const NAME_SEPARATOR: &str = ": ";

impl Scanner {
    /// Redacts every string of a JSON value, and every name of its objects. Places are those within their string.
    pub fn redact_json(&self, value: &mut Value) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.redact_value(None, value, &mut findings);
        findings
    }

    fn redact_value(&self, name: Option<&str>, value: &mut Value, findings: &mut Vec<Finding>) {
        match value {
            Value::String(text) => {
                if let Some(clean) = self.redact_text(name, text, findings) {
                    *text = clean;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_value(name, item, findings)),
            Value::Object(members) => self.redact_members(members, findings),
            _ => {}
        }
    }

    fn redact_members(&self, members: &mut Map<String, Value>, findings: &mut Vec<Finding>) {
        let mut renamed = false;
        for (name, value) in members.iter_mut() {
            self.redact_value(Some(name), value, findings);
            renamed |= !self.scan(name.as_bytes()).is_empty();
        }
        if !renamed {
            return;
        }
        for (name, value) in std::mem::take(members) {
            let mut clean = self.redact_text(None, &name, findings).unwrap_or(name);
            // Two secrets of one kind must not become one member.
            let plain = clean.clone();
            let mut copy = 1;
            while members.contains_key(&clean) {
                copy += 1;
                clean = format!("{plain}#{copy}");
            }
            members.insert(clean, value);
        }
    }

    fn redact_text(&self, name: Option<&str>, text: &str, findings: &mut Vec<Finding>) -> Option<String> {
        let before = name.map(|name| format!("{name}{NAME_SEPARATOR}")).unwrap_or_default();
        let whole = format!("{before}{text}");
        let offset = before.len() as u64;
        let mut clean = String::with_capacity(text.len());
        let mut place = before.len();
        for mut finding in self.scan(whole.as_bytes()) {
            if finding.end <= offset {
                continue;
            }
            finding.start = finding.start.max(offset);
            // A secret ends between characters, except in text that is made to confuse; then a little more goes.
            #[allow(clippy::cast_possible_truncation)]
            let (mut start, mut end) = ((finding.start as usize).max(place), finding.end as usize);
            while !whole.is_char_boundary(start) {
                start -= 1;
            }
            while !whole.is_char_boundary(end) {
                end += 1;
            }
            clean.push_str(&whole[place..start.max(place)]);
            clean.push_str(&marker(&finding.rule));
            place = end;
            finding.start -= offset;
            finding.end -= offset;
            findings.push(finding);
        }
        if place == before.len() {
            return None;
        }
        clean.push_str(&whole[place..]);
        Some(clean)
    }
}
