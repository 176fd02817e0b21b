//! JSON as text: how its white space is set, and how strings in it are changed. Numbers, the order of members and
//! the spelling of all that stays are those of the text.

use serde::de::IgnoredAny;

/// How the white space of a JSON text is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    /// None.
    #[default]
    Compact,
    /// A space behind each colon and each comma, as Python writes.
    Spaced,
    /// A line for each member, two spaces further in for each level.
    Indented,
}

impl Style {
    const ALL: [Self; 3] = [Self::Compact, Self::Spaced, Self::Indented];

    /// As files name it; none for the one that is usual.
    pub(super) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Compact => None,
            Self::Spaced => Some("spaced"),
            Self::Indented => Some("indented"),
        }
    }

    pub(super) fn from_name(name: Option<&str>) -> Option<Self> {
        Self::ALL.into_iter().find(|style| style.name() == name)
    }

    /// The style in which a JSON text is written to the byte, if it is one of these.
    pub(super) fn of(text: &str) -> Option<Self> {
        let is_written = |style: &Self| styled(text, *style, "") == text;
        Self::ALL.into_iter().find(is_written)
    }
}

/// Deepest nesting of JSON that is told apart from other text: indenting a line for each level takes the square of
/// the depth.
const DEPTH_MAX: usize = 256;

/// Whether a text is one JSON value, of at most [`DEPTH_MAX`] levels.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok() && is_shallow(text)
}

/// Whether a JSON text has at most [`DEPTH_MAX`] levels.
pub(super) fn is_shallow(text: &str) -> bool {
    let mut depth = 0_usize;
    tokens(text).all(|(_, token)| {
        match token {
            Token::Mark('{' | '[') => depth += 1,
            Token::Mark('}' | ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth <= DEPTH_MAX
    })
}

/// A part of a JSON text without white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    /// One of `{}[],:`.
    Mark(char),
    /// A string with its quotes.
    String(&'t str),
    /// A number or a word.
    Bare(&'t str),
}

impl<'t> Token<'t> {
    const fn text(self) -> Option<&'t str> {
        match self {
            Self::Mark(_) => None,
            Self::String(text) | Self::Bare(text) => Some(text),
        }
    }
}

/// The tokens of a valid JSON text, each with its place. Of another text some tokens, without a panic.
struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Iterator for Tokens<'t> {
    type Item = (usize, Token<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        let start = self.at;
        let first = *bytes.get(start)?;
        let is_mark = |byte: u8| matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':');
        if is_mark(first) {
            self.at += 1;
            return Some((start, Token::Mark(first.into())));
        }
        self.at += 1;
        if first == b'"' {
            while let Some(&byte) = bytes.get(self.at) {
                self.at += match byte {
                    b'\\' => 2,
                    _ => 1,
                };
                if byte == b'"' {
                    break;
                }
            }
            self.at = self.at.min(bytes.len());
            // A backslash stands before ASCII in valid JSON.
            return Some((start, Token::String(self.text.get(start..self.at)?)));
        }
        let ends = |byte: u8| is_mark(byte) || matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b'"');
        while bytes.get(self.at).is_some_and(|&byte| !ends(byte)) {
            self.at += 1;
        }
        Some((start, Token::Bare(self.text.get(start..self.at)?)))
    }
}

fn tokens(text: &str) -> impl Iterator<Item = (usize, Token<'_>)> {
    Tokens { text, at: 0 }
}

/// The same JSON in another style. With [`Style::Indented`], each line but the first begins with `margin`.
pub(super) fn styled(text: &str, style: Style, margin: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0_usize;
    // Just behind an opening bracket.
    let mut is_fresh = false;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(margin);
        for _ in 0..depth {
            out.push_str("  ");
        }
    };
    for (_, token) in tokens(text) {
        let is_closing = matches!(token, Token::Mark('}' | ']'));
        if is_closing {
            depth = depth.saturating_sub(1);
        }
        if style == Style::Indented && is_fresh != is_closing {
            line(&mut out, depth);
        }
        is_fresh = false;
        match token {
            Token::Mark(mark) => {
                out.push(mark);
                match (mark, style) {
                    ('{' | '[', _) => {
                        depth += 1;
                        is_fresh = true;
                    }
                    (',' | ':', Style::Spaced) | (':', Style::Indented) => out.push(' '),
                    (',', Style::Indented) => line(&mut out, depth),
                    _ => {}
                }
            }
            Token::String(text) | Token::Bare(text) => out.push_str(text),
        }
    }
    out
}

/// What becomes of a value of a JSON text.
pub(super) enum Change {
    Stays,
    /// The whole value is this string from now on, which is given without quotes.
    Becomes(String),
}

/// Shows each string and each other value, with the way to it (`messages[0].content`), and changes those that are to
/// be changed. A string is given decoded; other values are `None`. All other bytes stay.
pub(super) fn changed(
    text: &str,
    mut change: impl FnMut(&str, Option<&str>) -> Change,
) -> Option<String> {
    let mut out = String::new();
    let mut copied = 0;
    let mut open: Vec<Level> = Vec::new();
    let mut way = String::new();
    // A value that is replaced: at which depth it ends.
    let mut replaced: Option<(usize, String)> = None;
    let mut put = |start: usize, end: usize, with: &str| {
        out.push_str(&text[copied..start]);
        out.push_str(&quoted(with));
        copied = end;
    };
    let mut replaced_from = 0;
    for (start, token) in tokens(text) {
        let end = start + token.text().map_or(1, str::len);
        let is_value = match token {
            Token::Mark('{' | '[') => true,
            Token::Mark(_) => false,
            Token::String(_) => open.last().is_none_or(|level| !level.awaits_key),
            Token::Bare(_) => true,
        };
        if is_value && replaced.is_none() {
            way.truncate(open.last().map_or(0, |level| level.way_bytes));
            if let Some(level) = open.last_mut() {
                level.step(&mut way);
            }
            let decoded = match token {
                Token::String(string) => Some(decoded(string)),
                _ => None,
            };
            if let Change::Becomes(with) = change(&way, decoded.as_deref()) {
                match token {
                    Token::Mark(_) => {
                        replaced = Some((open.len(), with));
                        replaced_from = start;
                    }
                    _ => put(start, end, &with),
                }
            }
        }
        match token {
            Token::Mark(mark @ ('{' | '[')) => open.push(Level {
                is_object: mark == '{',
                awaits_key: mark == '{',
                key: String::new(),
                number: 0,
                way_bytes: way.len(),
            }),
            Token::Mark('}' | ']') => {
                open.pop();
                if replaced
                    .as_ref()
                    .is_some_and(|(depth, _)| *depth == open.len())
                    && let Some((_, with)) = replaced.take()
                {
                    put(replaced_from, end, &with);
                }
            }
            Token::Mark(',') => {
                if let Some(level) = open.last_mut() {
                    level.awaits_key = level.is_object;
                    level.number += 1;
                }
            }
            Token::Mark(_) => {
                if let Some(level) = open.last_mut() {
                    level.awaits_key = false;
                }
            }
            Token::String(string) => {
                if let Some(level) = open.last_mut()
                    && level.awaits_key
                {
                    level.key = decoded(string);
                }
            }
            Token::Bare(_) => {}
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// A container on the way to a value.
struct Level {
    is_object: bool,
    awaits_key: bool,
    key: String,
    number: usize,
    /// Of the way, so much leads here.
    way_bytes: usize,
}

impl Level {
    fn step(&mut self, way: &mut String) {
        match self.is_object {
            true => {
                if !way.is_empty() {
                    way.push('.');
                }
                way.push_str(&self.key);
            }
            false => {
                way.push('[');
                way.push_str(&self.number.to_string());
                way.push(']');
            }
        }
    }
}

/// The value of a string with its quotes; the text inside where it has none, as of half a surrogate pair.
fn decoded(string: &str) -> String {
    let inside = string.trim_matches('"');
    if !inside.contains('\\') {
        return inside.to_owned();
    }
    serde_json::from_str(string).unwrap_or_else(|_| inside.to_owned())
}

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    // A string is always JSON.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 6] = [
        "{}",
        r#"{"a":[],"b":{"c":1.0e5,"d":"x\"y,:{"},"e":[1,[2,{}]]}"#,
        "[]",
        "\"a b\"",
        "-0.10",
        r#"{"a":1,"a":2}"#,
    ];

    #[test]
    fn each_style_is_recognised_and_restored_to_the_byte() {
        for text in TEXTS {
            for style in Style::ALL {
                let other = styled(text, style, "");
                let found = Style::of(&other).expect("a style");
                assert_eq!(
                    styled(&styled(&other, Style::Indented, ""), found, ""),
                    other
                );
                assert_eq!(styled(&other, Style::Compact, ""), text);
            }
        }
        assert_eq!(Style::of("{ \"a\":1}"), None);
        assert_eq!(Style::of("{}\n"), None);
    }

    #[test]
    fn indented_is_as_serde_json_indents() {
        let value: serde_json::Value = serde_json::from_str(TEXTS[1]).expect("JSON");
        let ours = styled(&value.to_string(), Style::Indented, "");
        assert_eq!(ours, format!("{value:#}"));
        assert_eq!(
            styled("{\"a\":1}", Style::Indented, "    "),
            "{\n      \"a\": 1\n    }"
        );
    }

    #[test]
    fn values_are_shown_with_their_way_and_all_else_stays() {
        let text = r#" {"a" : ["x", {"b":"\u0079"}], "c": {"d":[1,2]}, "e":null}"#;
        let mut ways = Vec::new();
        let same = changed(text, |way, value| {
            ways.push((way.to_owned(), value.map(str::to_owned)));
            Change::Stays
        });
        assert_eq!(same, None);
        let told: Vec<&str> = ways.iter().map(|(way, _)| way.as_str()).collect();
        let expected = [
            "", "a", "a[0]", "a[1]", "a[1].b", "c", "c.d", "c.d[0]", "c.d[1]", "e",
        ];
        assert_eq!(told, expected);
        assert_eq!(ways[4].1.as_deref(), Some("y"));
        let other = changed(text, |way, _| match way {
            "a[1].b" | "c" => Change::Becomes("\"".into()),
            _ => Change::Stays,
        });
        let expected = r#" {"a" : ["x", {"b":"\""}], "c": "\"", "e":null}"#;
        assert_eq!(other.as_deref(), Some(expected));
    }

    #[test]
    fn what_is_no_json_is_no_panic() {
        let whole = r#"{"a":["\\",1,{"b":"ü\"x"}],"c":null}"#;
        for (start, _) in whole.char_indices() {
            for (length, _) in whole[start..].char_indices() {
                let part = &whole[start..start + length];
                let _ = styled(part, Style::Indented, " ");
                let _ = changed(part, |_, _| Change::Becomes(String::new()));
                let _ = is_json(part);
            }
        }
    }
}
