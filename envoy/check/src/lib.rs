//! The parts of an Envoy configuration that conflict with the filter: `reflex-edge envoy check`.
//!
//! A hit is answered where the filter stands. Filters behind it never see the request, and the
//! response passes all of them. So the order of the chain decides what a cache is allowed to do,
//! and Envoy itself accepts any order.
//!
//! The text is a bootstrap, a `config_dump` of Envoy's admin interface, or the resources of Istio
//! and Envoy Gateway that bring the filter. Nothing is contacted; what is only known to a control
//! plane is named as unseen.

mod buffers;
mod chain;
mod clusters;
mod filters;
mod kubernetes;
mod local_reply;
mod manager;
mod plugin;
mod tree;

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Requests are answered that must not be, answers are changed, or requests fail.
    Error,
    /// Something works less well than it could, or cannot be seen in this text.
    Warning,
}

/// One part of a configuration that conflicts with the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The listener and filter chain, or the resource, by their names.
    pub place: String,
    /// What is wrong, why that matters and what to do, in one line.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}: {}", self.place, self.what)
    }
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the text.
    pub findings: Vec<Finding>,
    /// How many times the filter stands in the text.
    pub filters: usize,
}

impl Report {
    /// Whether the configuration must not be used as it is: an error, or no filter at all.
    pub fn fails(&self) -> bool {
        let mut severities = self.findings.iter().map(|finding| finding.severity);
        self.filters == 0 || severities.any(|severity| severity == Severity::Error)
    }

    fn add(&mut self, severity: Severity, place: &str, what: impl Into<String>) {
        let finding = Finding {
            severity,
            place: place.into(),
            what: what.into(),
        };
        // A listener has the same chain for several ports; one line says it.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn error(&mut self, place: &str, what: impl Into<String>) {
        self.add(Severity::Error, place, what);
    }

    fn warning(&mut self, place: &str, what: impl Into<String>) {
        self.add(Severity::Warning, place, what);
    }
}

/// Looks at a configuration.
///
/// # Errors
///
/// The text is neither YAML nor JSON.
pub fn check(text: &str) -> Result<Report, String> {
    let documents = documents(text)?;
    let mut report = Report::default();
    for document in &documents {
        manager::check(document, &mut report);
    }
    kubernetes::check(&documents, &mut report);
    Ok(report)
}

/// A dump of megabytes is JSON, which its own parser reads faster.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    if let Ok(document) = serde_json::from_str(text) {
        return Ok(vec![document]);
    }
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).map_err(|error| error.to_string()))
        .collect()
}

#[cfg(test)]
mod tests;
