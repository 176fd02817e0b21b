//! What each reason means and what helps, as `docs/reasons.md` says it: one text for both.

use crate::serve::recent::Kind;
use std::collections::BTreeMap;

const REASONS: &str = include_str!("../../../docs/reasons.md");

/// Meaning and remedy of each reason.
pub(super) struct Remedies(BTreeMap<(Kind, &'static str), (&'static str, &'static str)>);

impl Remedies {
    /// Reads the tables of the page.
    pub(super) fn read() -> Self {
        let mut remedies = BTreeMap::new();
        let mut kind = None;
        for line in REASONS.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                kind = match heading {
                    "Bypasses" => Some(Kind::Bypass),
                    heading if heading.starts_with("Not kept") => Some(Kind::NotKept),
                    _ => None,
                };
            }
            if let Some(kind) = kind
                && let Some(cells) = line.strip_prefix("| `")
                && let Some((reason, rest)) = cells.split_once("` | ")
                && let Some((meaning, remedy)) = rest.trim_end_matches(" |").split_once(" | ")
            {
                remedies.insert((kind, reason), (meaning, remedy));
            }
        }
        Self(remedies)
    }

    /// Meaning and remedy, in Markdown; empty for a word that is not explained there.
    pub(super) fn of(&self, kind: Kind, reason: &'static str) -> (&'static str, &'static str) {
        match kind {
            Kind::GuestFault => (
                "",
                "see the log, `guest_milliseconds_max` and `instances_max`",
            ),
            kind => self.0.get(&(kind, reason)).copied().unwrap_or_default(),
        }
    }

    /// The setting that joins keys which differ in this part of a request.
    pub(super) fn of_split(&self, by: &str, name: &str) -> String {
        let setting = match by {
            "header" => "ignored_headers",
            "cookie" => "ignored_cookies",
            "query" => "ignored_query",
            _ => "ignored_fields",
        };
        format!("`{setting} = [\"{name}\"]`, if it cannot change an answer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reflex_llm::{Bypass, Dropped, Rejected};

    #[test]
    fn every_reason_has_a_remedy() {
        let remedies = Remedies::read();
        let check = |kind, reason: &'static str| {
            let (meaning, remedy) = remedies.of(kind, reason);
            assert!(!meaning.is_empty() && !remedy.is_empty(), "{reason}");
        };
        Bypass::ALL
            .iter()
            .for_each(|it| check(Kind::Bypass, it.detail()));
        Rejected::ALL
            .iter()
            .for_each(|it| check(Kind::NotKept, it.detail()));
        Dropped::ALL
            .iter()
            .for_each(|it| check(Kind::NotKept, it.detail()));
    }
}
