//! `cassette.toml`, the file of a folder that says what else is redacted there. It stands in the folder, because a
//! replay redacts a request before it looks for it: with other rules, it would find other recordings.

use super::version::check_version;
use reflex_llm::is_like;
use serde::Deserialize;

/// The name of the file.
pub(super) const FILE: &str = "cassette.toml";
/// Longest file.
pub(super) const FILE_BYTES_MAX: u64 = 64 << 10;
/// Rules of one folder. Each is compared with each word of a text.
const RULES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    redact: Vec<Redact>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Redact {
    header: Option<String>,
    query: Option<String>,
    field: Option<String>,
    text: Option<String>,
}

/// Patterns of what is redacted, in which `*` stands for any text.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    headers: Vec<String>,
    query: Vec<String>,
    fields: Vec<String>,
    texts: Vec<String>,
}

impl Rules {
    /// Reads the text of the file.
    ///
    /// # Errors
    ///
    /// One line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let message = error.message().to_owned();
            message.lines().next().unwrap_or_default().to_owned()
        })?;
        check_version(file.version)?;
        if file.redact.len() > RULES_MAX {
            return Err(format!("it has more than {RULES_MAX} [[redact]]"));
        }
        let mut rules = Self::default();
        for redact in file.redact {
            let Redact {
                header,
                query,
                field,
                text,
            } = redact;
            let header = header.map(|name| name.to_ascii_lowercase());
            let given = [
                (header, &mut rules.headers),
                (query, &mut rules.query),
                (field, &mut rules.fields),
                (text, &mut rules.texts),
            ];
            let mut count = 0;
            for (pattern, patterns) in given {
                if let Some(pattern) = pattern {
                    if pattern.is_empty() {
                        return Err("[[redact]] has an empty pattern".into());
                    }
                    patterns.push(pattern);
                    count += 1;
                }
            }
            if count != 1 {
                return Err("each [[redact]] has one of header, query, field and text".into());
            }
        }
        Ok(rules)
    }

    pub(super) fn has_header(&self, name: &str) -> bool {
        is_any(&self.headers, name)
    }

    pub(super) fn has_query(&self, name: &str) -> bool {
        is_any(&self.query, name)
    }

    pub(super) fn has_field(&self, way: &str) -> bool {
        is_any(&self.fields, way)
    }

    pub(super) fn has_word(&self, word: &str) -> bool {
        is_any(&self.texts, word)
    }
}

fn is_any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| is_like(pattern, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_about_one_thing() {
        let text = "version = 1\n[[redact]]\nheader = \"X-Team\"\n[[redact]]\nfield = \"metadata.*\"\n\
                    [[redact]]\ntext = \"acme-*\"\n[[redact]]\nquery = \"run\"";
        let rules = Rules::parse(text).expect("rules");
        assert!(rules.has_header("x-team") && rules.has_field("metadata.run"));
        assert!(rules.has_word("acme-1") && rules.has_query("run"));
        assert!(!rules.has_field("model") && !rules.has_word("other"));
        for wrong in [
            "",
            "version = 2",
            "version = 1\n[[redact]]",
            "version = 1\n[[redact]]\nheader = \"a\"\nfield = \"b\"",
            "version = 1\n[[redact]]\nheader = \"\"",
            "version = 1\nother = 1",
        ] {
            let error = Rules::parse(wrong).expect_err(wrong);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
