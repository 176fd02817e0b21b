//! Text that came from outside, as people may be shown it: in messages, in logs, on a terminal.

/// The text without characters that a terminal obeys, that end a line, or that hide or turn others.
pub fn plain(text: &str) -> String {
    let is_shown = |character: char| !character.is_control() && !is_disguise(character);
    if text.chars().all(is_shown) {
        return text.to_owned();
    }
    let shown = |character: char| match is_shown(character) {
        true => character.to_string(),
        false => character.escape_default().to_string(),
    };
    text.chars().map(shown).collect()
}

/// Turns the direction of text, or is not to be seen.
fn is_disguise(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_all_else_is_itself() {
        assert_eq!(
            plain("Größe 64 MiB, \"a\\b\" 日本"),
            "Größe 64 MiB, \"a\\b\" 日本"
        );
        assert_eq!(
            plain("a\r\nb\t\0\u{1b}[2J\u{85}"),
            "a\\r\\nb\\t\\u{0}\\u{1b}[2J\\u{85}"
        );
        assert_eq!(
            plain("a\u{202e}b\u{2028}c\u{200b}"),
            "a\\u{202e}b\\u{2028}c\\u{200b}"
        );
    }
}
