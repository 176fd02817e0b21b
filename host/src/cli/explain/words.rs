//! The words of a command line as bash splits and unquotes them. Nothing is expanded: a `$NAME`
//! stays as it is written, so that no variable of this machine gets into an explanation.

use std::iter::Peekable;
use std::str::Chars;

/// A command: its words, and the text of its here-document.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// Unquoted, the program first.
    pub(super) words: Vec<String>,
    /// What `<<WORD` gives as standard input.
    pub(super) input: Option<String>,
}

/// Reads the first command of a text. It ends at the end of its line, or at `|`, `;`, `&` or `>`.
///
/// # Errors
///
/// A quote is not closed, or a here-document has no end.
pub(super) fn command(text: &str) -> Result<Command, String> {
    let text = text.replace("\r\n", "\n");
    let mut rest = text.chars().peekable();
    let mut command = Command::default();
    let mut delimiter = None;
    loop {
        match rest.peek().copied() {
            None => break,
            Some('\n') if command.words.is_empty() => {
                rest.next();
            }
            Some('\n' | '|' | ';' | '&' | '>') => break,
            Some('#') => drop_line(&mut rest),
            Some('<') => delimiter = Some(redirection(&mut rest)?),
            Some(other) if other.is_whitespace() => {
                rest.next();
            }
            Some(_) => {
                // A continued line between words is no word.
                if let Some(word) = word(&mut rest)? {
                    command.words.push(word);
                }
            }
        }
    }
    if let Some((delimiter, strips_tabs)) = delimiter {
        drop_line(&mut rest);
        rest.next();
        command.input = Some(document(
            &rest.collect::<String>(),
            &delimiter,
            strips_tabs,
        )?);
    }
    Ok(command)
}

fn drop_line(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|&it| it != '\n').is_some() {}
}

/// The delimiter of a here-document, and whether tabs in front of its lines do not count.
fn redirection(rest: &mut Peekable<Chars<'_>>) -> Result<(String, bool), String> {
    rest.next();
    if rest.next_if_eq(&'<').is_none() {
        return Err("`<` is not read: name the file with @".into());
    }
    let strips_tabs = rest.next_if_eq(&'-').is_some();
    while rest.next_if(|&it| it == ' ').is_some() {}
    let delimiter = word(rest)?.filter(|word| !word.is_empty());
    Ok((delimiter.ok_or("`<<` has no word")?, strips_tabs))
}

fn document(text: &str, delimiter: &str, strips_tabs: bool) -> Result<String, String> {
    let mut document = String::new();
    for line in text.split_inclusive('\n') {
        let line = match strips_tabs {
            true => line.trim_start_matches('\t'),
            false => line,
        };
        if line.trim_end_matches('\n') == delimiter {
            return Ok(document);
        }
        document.push_str(line);
    }
    Err(format!("no line `{delimiter}` ends the here-document"))
}

/// One word; none if only a continued line was there.
fn word(rest: &mut Peekable<Chars<'_>>) -> Result<Option<String>, String> {
    let mut word = None::<String>;
    while let Some(&next) = rest.peek() {
        if next.is_whitespace() || "|;&><".contains(next) {
            break;
        }
        rest.next();
        match next {
            '\\' => match rest.next() {
                Some('\n') | None => {}
                Some(other) => word.get_or_insert_default().push(other),
            },
            '\'' => single(rest, word.get_or_insert_default())?,
            '"' => double(rest, word.get_or_insert_default())?,
            '$' if rest.peek() == Some(&'\'') => {
                rest.next();
                ansi(rest, word.get_or_insert_default())?;
            }
            '$' if rest.peek() == Some(&'"') => {}
            other => word.get_or_insert_default().push(other),
        }
    }
    Ok(word)
}

const OPEN: &str = "a quote is not closed";

fn single(rest: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), String> {
    loop {
        match rest.next().ok_or(OPEN)? {
            '\'' => return Ok(()),
            other => word.push(other),
        }
    }
}

fn double(rest: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), String> {
    loop {
        match rest.next().ok_or(OPEN)? {
            '"' => return Ok(()),
            '\\' => match rest.next().ok_or(OPEN)? {
                '\n' => {}
                escaped @ ('$' | '`' | '"' | '\\') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            other => word.push(other),
        }
    }
}

/// `$'…'`, as browsers' "Copy as cURL" writes it.
fn ansi(rest: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), String> {
    // Bytes, because `\xc3\xbc` is one character in two escapes.
    let mut bytes = Vec::new();
    loop {
        let next = rest.next().ok_or(OPEN)?;
        match next {
            '\'' => break,
            '\\' => escape(rest, &mut bytes)?,
            other => push(&mut bytes, other),
        }
    }
    word.push_str(&String::from_utf8(bytes).map_err(|_| "an escape in $'…' is not UTF-8")?);
    Ok(())
}

fn escape(rest: &mut Peekable<Chars<'_>>, bytes: &mut Vec<u8>) -> Result<(), String> {
    let letter = rest.next().ok_or(OPEN)?;
    let character = match letter {
        'a' => '\x07',
        'b' => '\x08',
        'e' | 'E' => '\x1b',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' | '\'' | '"' | '?' => letter,
        'x' => {
            bytes.push(number(rest, String::new(), 2, 16)? as u8);
            return Ok(());
        }
        '0'..='7' => {
            bytes.push(number(rest, letter.into(), 3, 8)? as u8);
            return Ok(());
        }
        'u' => unicode(rest, 4)?,
        'U' => unicode(rest, 8)?,
        other => {
            push(bytes, '\\');
            other
        }
    };
    push(bytes, character);
    Ok(())
}

fn push(bytes: &mut Vec<u8>, character: char) {
    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// A character by its number. Chrome writes characters beyond the first plane as two halves.
fn unicode(rest: &mut Peekable<Chars<'_>>, digits_max: usize) -> Result<char, String> {
    let first = number(rest, String::new(), digits_max, 16)?;
    let is_high = (0xd800..0xdc00).contains(&first);
    let code = match is_high && rest.next_if_eq(&'\\').is_some() {
        true => {
            rest.next_if(|it| "uU".contains(*it));
            let second = number(rest, String::new(), 4, 16)?;
            let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400);
            low.map(|low| 0x10000 + ((first - 0xd800) << 10) + low)
        }
        false => Some(first),
    };
    let character = code.and_then(char::from_u32);
    character.ok_or_else(|| "an escape in $'…' is no character".into())
}

fn number(
    rest: &mut Peekable<Chars<'_>>,
    mut digits: String,
    digits_max: usize,
    radix: u32,
) -> Result<u32, String> {
    while digits.len() < digits_max
        && let Some(digit) = rest.next_if(|it| it.is_digit(radix))
    {
        digits.push(digit);
    }
    u32::from_str_radix(&digits, radix).map_err(|_| "an escape in $'…' has no digits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        command(text).expect(text).words
    }

    #[test]
    fn words_are_what_bash_makes_of_them() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(text), expected, "{text}");
        check("curl  a\tb", &["curl", "a", "b"]);
        check(
            "curl 'a b'\\''c' \"d\\\"e\" ''",
            &["curl", "a b'c", "d\"e", ""],
        );
        check(
            "\n  curl \\\n  -H \\\r\n 'x: y'\nrm -rf",
            &["curl", "-H", "x: y"],
        );
        check(
            "curl \"$KEY \\$x \\n\" $HOME `ls`",
            &["curl", "$KEY $x \\n", "$HOME", "`ls`"],
        );
        check(
            "curl $'a\\n\\'\\x41\\101\\u00fc\\xc3\\xbc'",
            &["curl", "a\n'AAüü"],
        );
        check("curl $'\\ud83d\\ude00 \\U0001f600'", &["curl", "😀 😀"]);
        check("curl a | jq .", &["curl", "a"]);
        check("curl a # no\n b", &["curl", "a"]);
        check("curl a > out", &["curl", "a"]);
        check("curl a#b", &["curl", "a#b"]);
    }

    #[test]
    fn a_here_document_is_the_input() {
        let found = command("curl -d @- <<'EOF' | jq\n{\"a\": 1}\nEOF\n").expect("whole");
        assert_eq!(found.words, ["curl", "-d", "@-"]);
        assert_eq!(found.input.as_deref(), Some("{\"a\": 1}\n"));
        let found = command("curl <<-X\n\ta\n\tX\n").expect("whole");
        assert_eq!(found.input.as_deref(), Some("a\n"));
    }

    #[test]
    fn what_is_not_whole_is_an_error() {
        for text in [
            "curl 'a",
            "curl \"a",
            "curl $'a",
            "curl <<X\na",
            "curl < a",
            "curl $'\\u'",
        ] {
            assert!(command(text).is_err(), "{text}");
        }
    }
}
