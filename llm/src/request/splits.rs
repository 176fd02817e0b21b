//! Keys that split: requests with the same question that differ in a header, a cookie, a parameter
//! of the query, or a field of the body beside the question.
//!
//! A proxy that adds an id to each request makes every request a miss. A single miss does not show
//! why; two compared misses do. [`Traits`] are hashes of a request's parts, and [`Splits`] compares
//! them with those of recent misses. Both are for misses only; no key, and so no answer, depends on
//! them.
//!
//! Hashes are made with the caller's seed, a random one for each process, and with the tenant. So
//! they cannot be guessed, or compared across processes or tenants. Names of parts leave this
//! module, values never do.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{BuildHasher, Hash, Hasher};
use core::mem;

use crate::Prepared;
use crate::api::Field;
use crate::json::spans;

/// Bodies over this length are not compared: hashing takes about 0.4 µs for each KiB.
pub const COMPARED_BYTES_MAX: usize = 64 << 10;

/// Requests with more parts are not compared.
const PARTS_MAX: usize = 64;

/// Requests that differ in more parts are different requests. More than one, because a proxy and a
/// tracing agent on the same way add a header each.
const DIFFERENCES_MAX: usize = 3;

/// The longest name that is shown. Longer names are more likely misplaced values.
const NAME_BYTES_MAX: usize = 64;

/// Bound of the names shown; further names are `other`. It bounds memory, log lines and labels.
const NAMES_MAX: usize = 64;

/// Stands for a name that is not shown.
const OTHER: &str = "other";

/// Fields of a body that make up the question. Requests that differ in these want different
/// answers.
const ASKED: &[&str] = &[
    // The question.
    "content",
    "contents",
    "documents",
    "image",
    "images",
    "input",
    "instructions",
    "messages",
    "prompt",
    "query",
    "requests",
    "suffix",
    "system",
    "systemInstruction",
    "system_instruction",
    "text",
    "texts",
    "title",
    // The model.
    "model",
    "models",
    // The form of the answer.
    "audio",
    "dimensions",
    "encoding_format",
    "include",
    "input_type",
    "logprobs",
    "modalities",
    "n",
    "outputDimensionality",
    "output_config",
    "output_dimensionality",
    "response_format",
    "stream",
    "stream_options",
    "taskType",
    "task_type",
    "top_logprobs",
    "truncation",
    "verbosity",
    // The tools.
    "function_call",
    "functions",
    "parallel_tool_calls",
    "toolConfig",
    "tool_choice",
    "tool_config",
    "tools",
    // How it is made.
    "best_of",
    "frequency_penalty",
    "generationConfig",
    "generation_config",
    "logit_bias",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "min_p",
    "presence_penalty",
    "reasoning",
    "reasoning_effort",
    "repetition_penalty",
    "safetySettings",
    "safety_settings",
    "stop",
    "stop_sequences",
    "temperature",
    "thinking",
    "top_k",
    "top_p",
];

/// Of which kind a part of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// A header.
    Header,
    /// A cookie.
    Cookie,
    /// A parameter of the query.
    Query,
    /// A top-level field of the body.
    Field,
}

impl By {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Header, Self::Cookie, Self::Query, Self::Field];

    /// A stable token, by which metrics know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Query => "query",
            Self::Field => "field",
        }
    }

    /// The operator's list that takes such a part out of the key.
    pub const fn list(self) -> &'static str {
        match self {
            Self::Header => "ignored_headers",
            Self::Cookie => "ignored_cookies",
            Self::Query => "ignored_query",
            Self::Field => "ignored_fields",
        }
    }
}

/// A part by which keys have split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Its kind.
    pub by: By,
    /// Its name, of visible characters; `other` for a name that is not shown.
    pub name: String,
    /// Whether it is reported for the first time.
    pub is_new: bool,
}

/// A line for the log: the part by name, and the setting that helps. Never a value.
impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.by {
            By::Header => "header",
            By::Cookie => "cookie",
            By::Query => "query parameter",
            By::Field => "field",
        };
        write!(
            formatter,
            "requests that are alike but for the {part} `{}` do not share answers; if it cannot \
             change an answer, add it to {}",
            self.name,
            self.by.list()
        )
    }
}

/// A request, as hashes of its parts.
#[derive(Clone)]
pub struct Traits {
    /// The hash of tenant, provider and question.
    asked: u64,
    /// Sorted by [`Part::id`].
    parts: Vec<Part>,
    /// The names of all parts.
    names: String,
}

#[derive(Clone, Copy)]
struct Part {
    /// Hash of kind and name.
    id: u64,
    /// Hash of the value.
    value: u64,
    by: By,
    /// Where the name is in [`Traits::names`].
    name: (u32, u32),
}

/// Without hashes: two logs would tell whether two values are equal.
impl fmt::Debug for Traits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Traits({} parts)", self.parts.len())
    }
}

impl Prepared {
    /// The traits of a request with this body, of which the key is made. None if the body is longer
    /// than [`COMPARED_BYTES_MAX`] or no JSON object, or if it has too many parts.
    ///
    /// `seed` should be random and the same for all requests that are to be compared.
    pub fn traits(&self, body: &[u8], seed: &impl BuildHasher) -> Option<Traits> {
        if body.len() > COMPARED_BYTES_MAX {
            return None;
        }
        let members = spans::members(body, spans::root(body)?)?;
        let mut traits = Builder::new(seed, self.tenant());
        let mut header = "";
        for (field, value) in self.fields() {
            match field {
                "header" => header = core::str::from_utf8(value).unwrap_or(OTHER),
                "value" if header == "cookie" => {
                    traits.list(By::Cookie, value, b';');
                }
                "value" => traits.part(By::Header, header, value),
                "query" => traits.list(By::Query, value, b'&'),
                _ => traits.asked(field, value),
            }
        }
        for (name, value) in members {
            // A name with escapes is nothing that a client adds on the way.
            let name = core::str::from_utf8(&body[name]).ok()?;
            let value = &body[value];
            match self.field(name) {
                Some(Field::Stream) => traits.asked(name, value),
                _ if self.ignores_field(name) => {}
                _ if ASKED.contains(&name) => traits.asked(name, value),
                _ => traits.part(By::Field, name, value),
            }
        }
        traits.build()
    }
}

/// Traits that are being made.
struct Builder<'s, S: BuildHasher> {
    seed: &'s S,
    /// In the hash of each value, so that no two tenants' are equal.
    tenant: u64,
    asked: S::Hasher,
    parts: Vec<Part>,
    names: String,
}

impl<'s, S: BuildHasher> Builder<'s, S> {
    fn new(seed: &'s S, tenant: crate::Tenant) -> Self {
        Self {
            seed,
            tenant: seed.hash_one(tenant.0),
            asked: seed.build_hasher(),
            parts: Vec::with_capacity(16),
            names: String::with_capacity(256),
        }
    }

    fn asked(&mut self, name: &str, value: &[u8]) {
        name.hash(&mut self.asked);
        value.hash(&mut self.asked);
    }

    fn part(&mut self, by: By, name: &str, value: &[u8]) {
        if self.parts.len() > PARTS_MAX {
            return;
        }
        let start = self.names.len() as u32;
        self.names.push_str(told(name));
        self.parts.push(Part {
            id: self.seed.hash_one((by, name)),
            value: self.seed.hash_one((self.tenant, value)),
            by,
            name: (start, self.names.len() as u32),
        });
    }

    /// Parts of the form `name=value`.
    fn list(&mut self, by: By, list: &[u8], separator: u8) {
        for item in list.split(|&byte| byte == separator) {
            let item = item.trim_ascii();
            let name = item.split(|&byte| byte == b'=').next().unwrap_or_default();
            if !item.is_empty() {
                self.part(by, core::str::from_utf8(name).unwrap_or(OTHER), item);
            }
        }
    }

    fn build(mut self) -> Option<Traits> {
        self.tenant.hash(&mut self.asked);
        // Stable: the values of a name stay in their order.
        self.parts.sort_by_key(|part| part.id);
        (self.parts.len() <= PARTS_MAX).then(|| Traits {
            asked: self.asked.finish(),
            parts: self.parts,
            names: self.names,
        })
    }
}

/// The name as it may stand in logs and labels.
fn told(name: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.$".contains(&byte);
    let is_told = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain);
    if is_told { name } else { OTHER }
}

/// Recent misses, for [`Traits`] to be compared with.
///
/// Memory is bounded: of each miss at most 64 hashes of parts are kept, and 64 names in all.
pub struct Splits {
    /// Each at the place given by its hash; a newer miss replaces an older one.
    recent: Vec<Seen>,
    told: Vec<(By, String)>,
}

/// A miss that was.
#[derive(Clone, Default)]
struct Seen {
    asked: u64,
    /// Id and value of each part.
    parts: Vec<(u64, u64)>,
}

impl fmt::Debug for Splits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Splits({} places)", self.recent.len())
    }
}

impl Splits {
    /// Remembers up to this many misses, at least one.
    pub fn new(recent_max: usize) -> Self {
        let mut recent = Vec::new();
        recent.resize(recent_max.max(1), Seen::default());
        Self {
            recent,
            told: Vec::new(),
        }
    }

    /// Adds a miss, and returns the parts in which its key differs from that of the last miss with
    /// the same question. Empty without such a miss, or if the two differ in more than three parts.
    pub fn note(&mut self, traits: &Traits) -> Vec<Split> {
        let place = traits.asked as usize % self.recent.len();
        let Some(seen) = self.recent.get_mut(place) else {
            return Vec::new();
        };
        let mut parts = mem::take(&mut seen.parts);
        let differing = match seen.asked == traits.asked {
            true => traits.differing(&parts),
            false => Vec::new(),
        };
        parts.clear();
        parts.extend(traits.parts.iter().map(|part| (part.id, part.value)));
        *seen = Seen {
            asked: traits.asked,
            parts,
        };
        let names = differing.into_iter();
        names.map(|(by, name)| self.tell(by, name)).collect()
    }

    fn tell(&mut self, by: By, name: &str) -> Split {
        let is_told = |told: &(By, String), name: &str| told.0 == by && told.1 == name;
        let mut name = name;
        let mut is_new = !self.told.iter().any(|told| is_told(told, name));
        if is_new && self.told.len() >= NAMES_MAX {
            name = OTHER;
            is_new = !self.told.iter().any(|told| is_told(told, name));
        }
        // `other` of each kind may come on top.
        if is_new {
            self.told.push((by, String::from(name)));
        }
        Split {
            by,
            name: String::from(name),
            is_new,
        }
    }
}

impl Traits {
    /// The parts that are not in `seen` with the same value; none if too many differ, or too many
    /// of `seen` are missing here.
    fn differing(&self, seen: &[(u64, u64)]) -> Vec<(By, &str)> {
        let mut differing: Vec<(By, &str)> = Vec::new();
        let mut count = 0;
        let (mut own, mut other) = (self.parts.iter().peekable(), seen.iter().peekable());
        loop {
            let part = match (own.peek(), other.peek()) {
                (Some(part), Some((id, value))) if part.id == *id => {
                    let is_equal = part.value == *value;
                    other.next();
                    let part = own.next();
                    if is_equal {
                        continue;
                    }
                    part
                }
                (Some(part), Some((id, _))) if part.id > *id => {
                    other.next();
                    None
                }
                (Some(_), _) => own.next(),
                (None, Some(_)) => {
                    other.next();
                    None
                }
                (None, None) => return differing,
            };
            count += 1;
            if count > DIFFERENCES_MAX {
                return Vec::new();
            }
            if let Some(part) = part {
                let (start, end) = part.name;
                let name = self.names.get(start as usize..end as usize);
                let told = (part.by, name.unwrap_or(OTHER));
                if !differing.contains(&told) {
                    differing.push(told);
                }
            }
        }
    }
}
