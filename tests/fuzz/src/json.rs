//! JSON after RFC 8259, by recursion and character by character: slow, plain, and the other
//! opinion about what a text says.

use std::collections::HashSet;

/// As deep as the crate under test reads.
const DEPTH_MAX: usize = 128;

/// A value. Numbers stay as spelled, and members in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`, `true`, `false`, or a number, as spelled.
    Word(String),
    /// A string's value.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

/// Reads a text that is one value and white space. `None`: it is not JSON, or two readers could
/// understand it differently (a key twice, half a surrogate pair), or it is too deep.
pub fn read(text: &[u8]) -> Option<Json> {
    let mut reader = Reader {
        left: std::str::from_utf8(text).ok()?,
    };
    let value = reader.value(0)?;
    reader.space();
    reader.left.is_empty().then_some(value)
}

impl Json {
    /// The canonical spelling of what is the user's own, as `tests/vectors/README.md` tells it.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, &mut |_| {});
        out
    }

    /// With the members of the outermost object, which is the API's, in the opposite order.
    pub fn reversed(mut self) -> Self {
        if let Self::Object(members) = &mut self {
            members.reverse();
        }
        self
    }

    /// Another spelling, in which `space` may put white space wherever some may stand.
    pub fn spelled(&self, space: &mut dyn FnMut(&mut String)) -> String {
        let mut out = String::new();
        self.write(&mut out, space);
        out
    }

    fn write(&self, out: &mut String, space: &mut dyn FnMut(&mut String)) {
        space(out);
        match self {
            Self::Word(word) => out.push_str(word),
            Self::Text(text) => quote(text, out),
            Self::Array(elements) => {
                out.push('[');
                for (nth, element) in elements.iter().enumerate() {
                    if nth > 0 {
                        out.push(',');
                    }
                    element.write(out, space);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (nth, (key, value)) in members.iter().enumerate() {
                    if nth > 0 {
                        out.push(',');
                    }
                    space(out);
                    quote(key, out);
                    space(out);
                    out.push(':');
                    value.write(out, space);
                }
                space(out);
                out.push('}');
            }
        }
        space(out);
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..'\u{20}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

struct Reader<'t> {
    left: &'t str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.left = self.left.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.left.chars();
        let next = characters.next()?;
        self.left = characters.as_str();
        Some(next)
    }

    fn takes(&mut self, text: &str) -> bool {
        let rest = self.left.strip_prefix(text);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        for word in ["null", "true", "false"] {
            if self.takes(word) {
                return Some(Json::Word(word.into()));
            }
        }
        match self.left.chars().next()? {
            '"' => self.text().map(Json::Text),
            '[' => self.array(depth + 1),
            '{' => self.object(depth + 1),
            _ => self.number(),
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        self.next();
        let mut elements = Vec::new();
        self.space();
        if depth > DEPTH_MAX {
            return None;
        }
        if self.takes("]") {
            return Some(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            self.space();
            match self.next()? {
                ',' => {}
                ']' => return Some(Json::Array(elements)),
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.next();
        let mut members = Vec::new();
        let mut known = HashSet::new();
        self.space();
        if depth > DEPTH_MAX {
            return None;
        }
        if self.takes("}") {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let key = self.text()?;
            self.space();
            if self.next()? != ':' {
                return None;
            }
            let value = self.value(depth)?;
            if !known.insert(key.clone()) {
                return None;
            }
            members.push((key, value));
            self.space();
            match self.next()? {
                ',' => {}
                '}' => return Some(Json::Object(members)),
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<Json> {
        let whole = self.left;
        self.takes("-");
        if !self.takes("0") && self.digits() == 0 {
            return None;
        }
        if self.takes(".") && self.digits() == 0 {
            return None;
        }
        if self.takes("e") || self.takes("E") {
            let _ = self.takes("+") || self.takes("-");
            if self.digits() == 0 {
                return None;
            }
        }
        let length = whole.len() - self.left.len();
        Some(Json::Word(whole[..length].into()))
    }

    fn digits(&mut self) -> usize {
        let before = self.left.len();
        self.left = self.left.trim_start_matches(|it: char| it.is_ascii_digit());
        before - self.left.len()
    }

    fn text(&mut self) -> Option<String> {
        if self.next()? != '"' {
            return None;
        }
        let mut value = String::new();
        loop {
            match self.next()? {
                '"' => return Some(value),
                '\\' => value.push(self.escape()?),
                '\0'..'\u{20}' => return None,
                character => value.push(character),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            '"' => '"',
            '\\' => '\\',
            '/' => '/',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = self.unit()?;
                let mut units = vec![unit];
                if (0xd800..0xdc00).contains(&unit) {
                    if !self.takes("\\u") {
                        return None;
                    }
                    units.push(self.unit()?);
                }
                let mut decoded = char::decode_utf16(units);
                let character = decoded.next()?.ok()?;
                return decoded.next().is_none().then_some(character);
            }
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit << 4 | self.next()?.to_digit(16)?;
        }
        u16::try_from(unit).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn it_reads_what_the_standard_says() {
        for (text, canonical) in [
            (
                " {\"b\" : [1.0, -0e+1] , \"a\":\"\\u00e9\\/\\n\"}",
                Some("{\"b\":[1.0,-0e+1],\"a\":\"é/\\n\"}"),
            ),
            ("\"\\ud83d\\ude00\"", Some("\"😀\"")),
            ("\"\\ud83d\"", None),
            ("\"\\ud83d\\ud83d\"", None),
            ("01", None),
            ("1.", None),
            ("{\"a\":1,\"\\u0061\":1}", None),
            ("[1,]", None),
            ("1 1", None),
            ("", None),
        ] {
            let read = read(text.as_bytes()).map(|json| json.canonical());
            assert_eq!(read.as_deref(), canonical, "{text}");
        }
    }
}
