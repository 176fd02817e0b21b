//! What is wrong with a configuration, and where.

use crate::serve::plain::plain;
use serde::Serialize;
use std::fmt;

/// One mistake in a configuration, or a warning about one of its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file, as `--config` names it; empty if the mistake is in no file.
    pub file: String,
    /// The line in the file, from 1; 0 if the mistake is in no line.
    pub line: usize,
    /// The setting as it is written there: a key of the file, a flag, or a variable of the
    /// environment; empty if it is about no single setting.
    pub setting: String,
    /// What is wrong, in one line.
    pub message: String,
}

impl ConfigError {
    /// A mistake in a line of a file. Values that the message quotes end no line.
    pub(crate) fn in_line(file: &str, line: usize, setting: &str, message: &str) -> Self {
        Self {
            file: plain(file),
            line,
            setting: plain(setting),
            message: plain(message),
        }
    }

    /// A mistake that is in no file.
    pub(crate) fn of_no_file(setting: &str, message: &str) -> Self {
        Self::in_line("", 0, setting, message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "--config {}: ", self.file)?;
        }
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        // Many a message begins with the setting.
        let said = self.message.strip_prefix(self.setting.as_str());
        let is_said = said.is_some_and(|rest| rest.starts_with([':', ' ']));
        if !self.setting.is_empty() && !is_said {
            write!(f, "{}: ", self.setting)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// All of them, one a line.
pub fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
