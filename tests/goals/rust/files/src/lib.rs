//! Counts words.

use std::collections::BTreeMap;

/// How often each word stands in the text, whatever the case of its letters.
pub fn tally(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in text.split(' ') {
        *counts.entry(word).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
