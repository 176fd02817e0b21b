//! What a part of the tests does on a machine that lacks what it needs: it says so and passes, or
//! fails where nothing may be skipped. `cargo xtask test --no-skips` sets [`VARIABLE`], and CI runs
//! that.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};

/// The environment variable that refuses skips: any value but the empty one.
pub const VARIABLE: &str = "REFLEX_NO_SKIPS";

/// Whether parts may be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skips {
    /// A skipped part is one line on stderr.
    Allowed,
    /// A part that cannot run is a failure.
    Refused,
}

impl Skips {
    /// As [`VARIABLE`] says.
    pub fn of_environment() -> Self {
        Self::of(env::var_os(VARIABLE).as_deref())
    }

    fn of(value: Option<&OsStr>) -> Self {
        match value {
            Some(value) if !value.is_empty() => Self::Refused,
            _ => Self::Allowed,
        }
    }

    /// Skips `part`, for which `missing` is the reason and says how to get what is missing.
    ///
    /// The line goes to stderr itself: the test harness hides what a passing test prints.
    ///
    /// # Errors
    ///
    /// Skips are refused; the text has both.
    pub fn skip(self, part: &str, missing: &str) -> Result<(), String> {
        match self {
            Self::Allowed => {
                // Without a stderr the line has no reader.
                let _ = writeln!(io::stderr(), "skipped: {part}: {missing}");
                Ok(())
            }
            Self::Refused => Err(format!(
                "{part} cannot run, and nothing may be skipped: {missing}"
            )),
        }
    }
}

/// Skips the test that calls this, which then returns.
///
/// # Panics
///
/// Skips are refused by [`VARIABLE`].
#[track_caller]
pub fn skip(part: &str, missing: &str) {
    if let Err(why) = Skips::of_environment().skip(part, missing) {
        panic!("{why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_part_fails_where_nothing_may_be_skipped() {
        let why = Skips::Refused.skip("mounts", "run as root").unwrap_err();
        assert!(
            why.contains("mounts") && why.contains("run as root"),
            "{why}"
        );
        assert_eq!(Skips::Allowed.skip("mounts", "run as root"), Ok(()));
    }

    #[test]
    fn any_value_but_the_empty_one_refuses_skips() {
        let check = |value: Option<&str>, skips| {
            assert_eq!(Skips::of(value.map(OsStr::new)), skips, "{value:?}");
        };
        check(None, Skips::Allowed);
        check(Some(""), Skips::Allowed);
        check(Some("1"), Skips::Refused);
        check(Some("0"), Skips::Refused);
    }
}
