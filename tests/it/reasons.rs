//! `docs/reasons.md` explains each reason by which a request or an answer is left out of the cache.

use std::collections::BTreeSet;
use std::path::Path;

use reflex_llm::{Bypass, Dropped, Rejected};

/// The reasons of a section's table. Each has a meaning and a remedy.
fn explained(text: &str, heading: &str) -> BTreeSet<String> {
    let section = text.split(&format!("\n## {heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("docs/reasons.md has no section `{heading}`"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut reasons = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(
            cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()),
            "a row has a reason, a meaning and a remedy: {line}"
        );
        let reason = cells[0].trim_matches('`').to_owned();
        assert!(
            !reasons.contains(&reason),
            "twice under `{heading}`: {line}"
        );
        reasons.insert(reason);
    }
    reasons
}

fn check(text: &str, heading: &str, tokens: impl Iterator<Item = &'static str>) {
    let explained = explained(text, heading);
    let known: BTreeSet<String> = tokens.map(str::to_owned).collect();
    let missing: Vec<_> = known.difference(&explained).collect();
    assert!(
        missing.is_empty(),
        "a reason of llm/src/status/reason.rs needs a row `| `reason` | meaning | remedy |` under \
         `## {heading}` in docs/reasons.md: {missing:?}"
    );
    let unknown: Vec<_> = explained.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "docs/reasons.md explains under `## {heading}` what llm/src/status/reason.rs does not have: \
         {unknown:?}"
    );
}

#[test]
fn every_reason_is_explained_with_a_remedy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    let text = std::fs::read_to_string(path).expect("docs/reasons.md");
    let bypasses = Bypass::ALL.iter().map(|reason| reason.detail());
    check(&text, "Bypasses", bypasses);
    let rejected = Rejected::ALL.iter().map(|reason| reason.detail());
    check(&text, "Not kept: the answer is no good", rejected);
    let dropped = Dropped::ALL.iter().map(|reason| reason.detail());
    check(&text, "Not kept: the answer is good", dropped);
}

/// One metric counts both kinds, so a word has one meaning.
#[test]
fn no_word_means_two_things() {
    let bad = Rejected::ALL.iter().map(|reason| reason.detail());
    let good = Dropped::ALL.iter().map(|reason| reason.detail());
    let words: Vec<&str> = bad.chain(good).collect();
    let unique: BTreeSet<&str> = words.iter().copied().collect();
    assert_eq!(unique.len(), words.len(), "{words:?}");
}
