//! What became of an episode: as text, and as JUnit's XML for those that read test results.

use crate::serve::plain::plain;
use std::fmt;
use std::fmt::Write as _;

/// Requests that are told one by one; further ones are counted.
pub(super) const TOLD_MAX: usize = 1000;

/// What became of the requests and the recordings of an episode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Recordings that the folder had at the start.
    pub recordings: usize,
    /// Requests that were answered from the folder.
    pub replayed: usize,
    /// Exchanges that were written.
    pub recorded: usize,
    /// Requests that no recording answered: what was asked, and why. The first thousand.
    pub missing: Vec<(String, String)>,
    /// How many those were.
    pub missing_count: usize,
    /// Exchanges that could not be recorded: what was asked, and why. The first thousand.
    pub unrecorded: Vec<(String, String)>,
    /// How many those were.
    pub unrecorded_count: usize,
    /// Recordings that no request asked for, by the names of their files. Empty after `record`.
    pub unused: Vec<String>,
}

impl Report {
    /// Whether every request was answered or recorded, and every recording used.
    pub fn is_clean(&self) -> bool {
        self.missing_count == 0 && self.unrecorded_count == 0 && self.unused.is_empty()
    }

    pub(super) fn miss(&mut self, asked: String, why: String) {
        add(&mut self.missing, &mut self.missing_count, asked, why);
    }

    pub(super) fn fail(&mut self, asked: String, why: String) {
        add(&mut self.unrecorded, &mut self.unrecorded_count, asked, why);
    }

    /// The same as JUnit's XML: a test case for each recording that was replayed or not, and for each request
    /// without one.
    pub fn junit(&self) -> String {
        let failures = self.missing.len() + self.unrecorded.len() + self.unused.len();
        let tests = failures + 1;
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "<testsuites><testsuite name=\"cassette\" tests=\"{tests}\" failures=\"{failures}\">"
        );
        let done = format!("{} replayed, {} recorded", self.replayed, self.recorded);
        let _ = writeln!(out, "  <testcase classname=\"cassette\" name=\"{done}\"/>");
        let mut fail = |kind: &str, name: &str, why: &str| {
            let (name, why) = (escaped(name), escaped(why));
            let _ = writeln!(
                out,
                "  <testcase classname=\"cassette.{kind}\" name=\"{name}\"><failure message=\"{why}\"/></testcase>"
            );
        };
        for (asked, why) in &self.missing {
            fail("missing", asked, why);
        }
        for (asked, why) in &self.unrecorded {
            fail("unrecorded", asked, why);
        }
        for name in &self.unused {
            fail("unused", name, "no request asked for this recording");
        }
        out.push_str("</testsuite></testsuites>\n");
        out
    }
}

fn add(list: &mut Vec<(String, String)>, count: &mut usize, asked: String, why: String) {
    *count += 1;
    if list.len() < TOLD_MAX {
        list.push((plain(&asked), plain(&why)));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            recordings,
            replayed,
            recorded,
            ..
        } = self;
        writeln!(
            f,
            "{replayed} replayed of {recordings}, {recorded} recorded"
        )?;
        for (list, count, what) in [
            (&self.missing, self.missing_count, "not found"),
            (&self.unrecorded, self.unrecorded_count, "not recorded"),
        ] {
            for (asked, why) in list {
                writeln!(f, "{what}: {asked}: {why}")?;
            }
            if count > list.len() {
                writeln!(f, "{what}: {} more", count - list.len())?;
            }
        }
        for name in &self.unused {
            writeln!(f, "not used: {name}")?;
        }
        Ok(())
    }
}

/// Text as an attribute of XML. `plain` has taken out the characters that XML has no spelling for.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in plain(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_everything_that_is_wrong() {
        let mut report = Report {
            recordings: 2,
            replayed: 1,
            ..Report::default()
        };
        assert!(report.is_clean());
        report.miss("POST /v1".into(), "a \"b\" <c>\u{1b} & d".into());
        report.fail("POST /v2".into(), "too long".into());
        report.unused.push("0002-a-01234567.json".into());
        assert!(!report.is_clean());
        let text = report.to_string();
        for line in [
            "1 replayed of 2, 0 recorded",
            "not found: POST /v1: a \"b\" <c>\\u{1b} & d",
            "not recorded: POST /v2: too long",
            "not used: 0002-a-01234567.json",
        ] {
            assert!(text.lines().any(|it| it == line), "{text}");
        }
        let xml = report.junit();
        assert!(xml.contains("tests=\"4\" failures=\"3\""), "{xml}");
        assert!(
            xml.contains("message=\"a &quot;b&quot; &lt;c&gt;\\u{1b} &amp; d\""),
            "{xml}"
        );
    }

    #[test]
    fn a_report_is_bounded() {
        let mut report = Report::default();
        for number in 0..TOLD_MAX + 5 {
            report.miss(number.to_string(), String::new());
        }
        assert_eq!(
            (report.missing.len(), report.missing_count),
            (TOLD_MAX, TOLD_MAX + 5)
        );
        assert!(report.to_string().ends_with("not found: 5 more\n"));
    }
}
