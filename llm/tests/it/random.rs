//! Random JSON from a seed, so that a failure can be repeated.

/// SplitMix64: small, and good enough to make test input.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// A JSON value. Numbers are their spelling, because the spelling counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Word(&'static str),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(crate) fn random(random: &mut Random, depth: usize) -> Self {
        match random.below(if depth == 0 { 3 } else { 5 }) {
            0 => Self::Word(random.pick(&["null", "true", "false"])),
            1 => Self::Number(number(random)),
            2 => Self::Text(text(random)),
            3 => {
                let len = random.below(5);
                Self::Array((0..len).map(|_| Self::random(random, depth - 1)).collect())
            }
            _ => Self::random_object(random, depth - 1),
        }
    }

    /// The same value in another library's type.
    pub(crate) fn of(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Word("null"),
            Value::Bool(true) => Self::Word("true"),
            Value::Bool(false) => Self::Word("false"),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(elements) => Self::Array(elements.iter().map(Self::of).collect()),
            Value::Object(members) => {
                let members = members.iter();
                Self::Object(
                    members
                        .map(|(key, value)| (key.clone(), Self::of(value)))
                        .collect(),
                )
            }
        }
    }

    /// An object whose keys are all different, names with a meaning among them.
    pub(crate) fn random_object(random: &mut Random, depth: usize) -> Self {
        let mut members: Vec<(String, Self)> = Vec::new();
        for _ in 0..random.below(6) {
            let key = match random.below(3) {
                0 => random
                    .pick(&["user", "store", "metadata", "stream", "tools"])
                    .into(),
                _ => text(random),
            };
            if members.iter().all(|(other, _)| *other != key) {
                members.push((key, Self::random(random, depth)));
            }
        }
        Self::Object(members)
    }

    /// One of the ways to write it: any white space, any escapes.
    pub(crate) fn spell(&self, random: &mut Random, out: &mut String) {
        space(random, out);
        match self {
            Self::Word(word) => out.push_str(word),
            Self::Number(number) => out.push_str(number),
            Self::Text(text) => spell_text(text, random, out),
            Self::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    element.spell(random, out);
                }
                space(random, out);
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (key, value)) in members.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    space(random, out);
                    spell_text(key, random, out);
                    space(random, out);
                    out.push(':');
                    value.spell(random, out);
                }
                space(random, out);
                out.push('}');
            }
        }
        space(random, out);
    }

    /// The number of values in it, itself included.
    pub(crate) fn count(&self) -> usize {
        1 + match self {
            Self::Array(elements) => elements.iter().map(Self::count).sum(),
            Self::Object(members) => members.iter().map(|(_, value)| value.count()).sum(),
            _ => 0,
        }
    }

    /// The value of this number, counted as [`count`](Self::count) does.
    pub(crate) fn nth(&mut self, at: &mut usize) -> Option<&mut Self> {
        if *at == 0 {
            return Some(self);
        }
        *at -= 1;
        match self {
            Self::Array(elements) => elements.iter_mut().find_map(|value| value.nth(at)),
            Self::Object(members) => members.iter_mut().find_map(|(_, value)| value.nth(at)),
            _ => None,
        }
    }
}

impl Json {
    /// Changes something somewhere, but for the outermost value's kind.
    pub(crate) fn mutate(&mut self, random: &mut Random) {
        let other = Self::random(random, 2);
        if random.below(4) == 0 {
            return self.add_member(random);
        }
        let mut at = 1 + random.below(self.count() - 1);
        let Some(value) = self.nth(&mut at) else {
            return;
        };
        match value {
            Self::Array(elements) if !elements.is_empty() => {
                let at = random.below(elements.len());
                match random.below(4) {
                    0 => drop(elements.remove(at)),
                    1 => elements.insert(at, other),
                    2 => elements.swap(at, 0),
                    _ => elements[at] = other,
                }
            }
            Self::Object(members) if !members.is_empty() => {
                let at = random.below(members.len());
                match random.below(4) {
                    0 => drop(members.remove(at)),
                    3 => members.swap(at, 0),
                    1 => members[at].0.push('x'),
                    _ => members[at].1 = other,
                }
            }
            Self::Text(text) => match random.below(2) {
                0 => text.push('x'),
                _ => *value = other,
            },
            _ => *value = other,
        }
        self.without_repeated_keys();
    }

    /// Adds a member to some object, often one whose name means something somewhere.
    pub(crate) fn add_member(&mut self, random: &mut Random) {
        const NAMES: &[&str] = &[
            "user",
            "store",
            "metadata",
            "stream",
            "labels",
            "cache_control",
            "cache_control",
            "prompt_cache_breakpoint",
            "content",
            "input",
            "something_new",
        ];
        let name = random.pick(NAMES).to_owned();
        let value = match random.below(4) {
            0 => Self::Object(vec![("type".into(), Self::Text("ephemeral".into()))]),
            1 => Self::Word(random.pick(&["null", "false", "true"])),
            _ => Self::random(random, 2),
        };
        // Half of them on top, where most names mean something.
        let mut at = random.below(2) * random.below(self.count());
        if let Some(Self::Object(members)) = self.nth(&mut at) {
            members.retain(|(other, _)| *other != name);
            members.push((name, value));
        }
    }

    fn without_repeated_keys(&mut self) {
        match self {
            Self::Array(elements) => elements.iter_mut().for_each(Self::without_repeated_keys),
            Self::Object(members) => {
                let mut seen = std::collections::HashSet::new();
                members.retain(|(key, _)| seen.insert(key.clone()));
                let values = members.iter_mut();
                values.for_each(|(_, value)| value.without_repeated_keys());
            }
            _ => {}
        }
    }
}

fn number(random: &mut Random) -> String {
    let mut number = String::new();
    number.push_str(random.pick(&["", "-"]));
    number.push_str(random.pick(&["0", "1", "7", "10", "42", "2025", "18446744073709551616"]));
    number.push_str(random.pick(&["", "", ".0", ".5", ".125"]));
    number.push_str(random.pick(&["", "", "e0", "E+2", "e-3"]));
    number
}

fn text(random: &mut Random) -> String {
    const CHARACTERS: &[char] = &[
        'a',
        'b',
        'c',
        'n',
        'u',
        '0',
        '4',
        ' ',
        ',',
        ':',
        '{',
        ']',
        '"',
        '\\',
        '/',
        '\n',
        '\r',
        '\t',
        '\u{8}',
        '\u{c}',
        '\0',
        '\u{1f}',
        '\u{7f}',
        'é',
        'ß',
        '日',
        '\u{2028}',
        '😀',
        '\u{10ffff}',
    ];
    let len = match random.below(8) {
        0 => 0,
        1 => random.below(200),
        _ => random.below(12),
    };
    let plain = random.below(2) == 0;
    (0..len)
        .map(|_| if plain { 'x' } else { random.pick(CHARACTERS) })
        .collect()
}

fn spell_text(text: &str, random: &mut Random, out: &mut String) {
    out.push('"');
    let habit = random.below(3);
    for character in text.chars() {
        let short = match character {
            '"' => Some(r#"\""#),
            '\\' => Some(r"\\"),
            '/' => Some(r"\/"),
            '\n' => Some(r"\n"),
            '\r' => Some(r"\r"),
            '\t' => Some(r"\t"),
            '\u{8}' => Some(r"\b"),
            '\u{c}' => Some(r"\f"),
            _ => None,
        };
        let must = matches!(character, '"' | '\\' | '\0'..='\u{1f}');
        match (short, habit) {
            (_, 0) if !must => out.push(character),
            (_, 1) if !must && random.below(2) == 0 => out.push(character),
            (Some(short), 0 | 1) => out.push_str(short),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let spelled = match random.below(2) {
                        0 => format!("\\u{unit:04x}"),
                        _ => format!("\\u{unit:04X}"),
                    };
                    out.push_str(&spelled);
                }
            }
        }
    }
    out.push('"');
}

fn space(random: &mut Random, out: &mut String) {
    out.push_str(random.pick(&["", "", "", " ", "\n\t", "\r\n"]));
}
