//! How two configurations differ.

use super::table::{Applies, SETTINGS, Values};
use serde::Serialize;
use std::fmt;

/// A setting whose value is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The setting's key.
    pub key: &'static str,
    /// The earlier value as it is written in a file; empty if there is none, or if it is a list.
    pub from: String,
    /// The later value, likewise.
    pub to: String,
    /// Whether it takes effect with a restart only.
    pub needs_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &str| match value {
            "" => "none".to_owned(),
            value => value.to_owned(),
        };
        match self.from.is_empty() && self.to.is_empty() {
            true => write!(f, "{}: another list", self.key)?,
            false => write!(
                f,
                "{}: {} -> {}",
                self.key,
                shown(&self.from),
                shown(&self.to)
            )?,
        }
        f.write_str(match self.needs_restart {
            true => " (needs a restart)",
            false => " (with a reload)",
        })
    }
}

/// What differs, in the order of the documentation.
pub(crate) fn changes(from: &Values, to: &Values) -> Vec<Change> {
    let written = from.written().into_iter().zip(to.written());
    let rows = SETTINGS.iter().zip(written);
    let differing = rows.filter(|(_, (from, to))| from != to);
    let change = differing.map(|(setting, (from, to))| {
        // A list may be long, and names an operator's teams.
        let is_list = |value: &str| !setting.is_scalar || value.starts_with('[');
        let are_lists = is_list(&from) && is_list(&to);
        let shown = |value: String| match is_list(&value) {
            true if are_lists => String::new(),
            true => "a list".to_owned(),
            false => value,
        };
        // The listener of a reverse proxy is bound at start.
        let is_other_kind = setting.key == "upstream" && (from.is_empty() || to.is_empty());
        Change {
            key: setting.key,
            needs_restart: setting.applies == Applies::Restart || is_other_kind,
            from: shown(from),
            to: shown(to),
        }
    });
    change.collect()
}
