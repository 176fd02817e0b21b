//! The operator's lists: which parts of a request are out of the key, in it, or a reason to pass
//! by.

pub(crate) mod life;
pub(crate) mod path;
pub(crate) mod pattern;
pub(crate) mod renew;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::request::query;
use crate::rules::pattern::{is_like, is_like_in_any_case};
use crate::tenant::{CREDENTIALS, SCOPES};

/// Patterns, in which `*` stands for any text, for facts about a provider that `reflex-llm` cannot
/// know. Empty lists change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Headers that cannot change an answer, in lower case. They are out of the key.
    pub ignored_headers: Vec<String>,
    /// Cookies that cannot change an answer. They are out of the key.
    pub ignored_cookies: Vec<String>,
    /// Parameters of a query, as clients spell them, that cannot change an answer. They are out of
    /// the key.
    pub ignored_query: Vec<String>,
    /// Top-level fields of a body that cannot change an answer. They are out of the key.
    pub ignored_fields: Vec<String>,
    /// Top-level fields of a body that are in the key, although the provider is known to ignore
    /// them, such as `user`.
    pub keyed_fields: Vec<String>,
    /// Top-level fields of a body that make a request bypass, unless they are null or false.
    pub bypass_fields: Vec<String>,
    /// Models whose requests bypass. Letters match in either case.
    pub bypass_models: Vec<String>,
}

/// Each request goes through all of them; more than are written by hand are a mistake.
const PATTERNS_MAX: usize = 1000;

/// Longer than any name.
const PATTERN_BYTES_MAX: usize = 256;

/// Fields that are the question itself, or say how it is answered.
const ESSENTIAL: [&str; 20] = [
    "cachedContent",
    "cached_content",
    "content",
    "contents",
    "conversation",
    "generationConfig",
    "generation_config",
    "input",
    "instructions",
    "messages",
    "model",
    "previous_response_id",
    "prompt",
    "requests",
    "response_format",
    "store",
    "stream",
    "system",
    "tool_choice",
    "tools",
];

impl Rules {
    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.lists().iter().all(|(_, list)| list.is_empty())
    }

    /// Checks the lists as operators write them.
    ///
    /// # Errors
    ///
    /// One line that names the list, the pattern and what is wrong with it: a pattern that is empty
    /// or too long; a header, cookie or parameter that no request can have; a pattern that would take
    /// the tenant or the question itself out of the key; a field in two lists that contradict each
    /// other.
    pub fn check(&self, tenant_header: Option<&str>) -> Result<(), String> {
        for (list, patterns) in self.lists() {
            if patterns.len() > PATTERNS_MAX {
                return Err(format!("{list}: more than {PATTERNS_MAX} patterns"));
            }
            for pattern in patterns {
                if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
                    return Err(format!(
                        "{list}: `{pattern}` is not 1 to {PATTERN_BYTES_MAX} bytes long"
                    ));
                }
            }
        }
        for pattern in &self.ignored_headers {
            if !pattern.bytes().all(is_in_header_name) {
                return Err(format!(
                    "ignored_headers: `{pattern}` is not a header name in lower case"
                ));
            }
            let mut kept = kept_by_all(tenant_header);
            if let Some(name) = kept.find(|name| is_like(pattern, name)) {
                let instead = match name {
                    "cookie" => "ignored_cookies is for single cookies",
                    _ => "it identifies the caller, and answers are never shared without it",
                };
                return Err(format!(
                    "ignored_headers: `{pattern}` would ignore `{name}`: {instead}"
                ));
            }
        }
        for pattern in &self.ignored_cookies {
            if pattern.contains([';', '=', ',', ' ']) {
                return Err(format!("ignored_cookies: `{pattern}` is no cookie's name"));
            }
            if pattern.bytes().all(|byte| byte == b'*') {
                return Err(format!(
                    "ignored_cookies: `{pattern}` would ignore sessions: name the cookies"
                ));
            }
        }
        for pattern in &self.ignored_query {
            if pattern.contains(['&', '=', ';', '#', '?', ' ']) {
                return Err(format!("ignored_query: `{pattern}` is no parameter's name"));
            }
            if let Some((name, why)) = query::kept_by_all(pattern) {
                return Err(format!(
                    "ignored_query: `{pattern}` would ignore `{name}`: {why}"
                ));
            }
        }
        for pattern in &self.ignored_fields {
            if let Some(name) = ESSENTIAL.iter().find(|name| is_like(pattern, name)) {
                return Err(format!(
                    "ignored_fields: `{pattern}` would ignore `{name}`, which the answer depends on"
                ));
            }
            for (list, others) in [
                ("keyed_fields", &self.keyed_fields),
                ("bypass_fields", &self.bypass_fields),
            ] {
                if others.contains(pattern) {
                    return Err(format!("ignored_fields: `{pattern}` is in {list} as well"));
                }
            }
        }
        Ok(())
    }

    /// Each list by itself, to find what is wrong in all of them.
    pub fn each(&self) -> [Self; 7] {
        let mut each: [Self; 7] = Default::default();
        each[0].ignored_headers.clone_from(&self.ignored_headers);
        each[1].ignored_cookies.clone_from(&self.ignored_cookies);
        each[2].ignored_query.clone_from(&self.ignored_query);
        each[3].ignored_fields.clone_from(&self.ignored_fields);
        each[4].keyed_fields.clone_from(&self.keyed_fields);
        each[5].bypass_fields.clone_from(&self.bypass_fields);
        each[6].bypass_models.clone_from(&self.bypass_models);
        each
    }

    /// The patterns that take something out of the key or put it in, with the names of their lists.
    /// Two sets of rules with other such patterns make equal keys of requests that only one of them
    /// holds for equal.
    pub(crate) fn of_keys(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let lists = self.lists().into_iter().take(5);
        lists.flat_map(|(list, patterns)| patterns.iter().map(move |it| (list, it.as_str())))
    }

    pub(crate) fn bypasses_model(&self, model: &str) -> bool {
        let mut patterns = self.bypass_models.iter();
        patterns.any(|pattern| is_like_in_any_case(pattern, model))
    }

    fn lists(&self) -> [(&'static str, &[String]); 7] {
        [
            ("ignored_headers", &self.ignored_headers),
            ("ignored_cookies", &self.ignored_cookies),
            ("ignored_query", &self.ignored_query),
            ("ignored_fields", &self.ignored_fields),
            ("keyed_fields", &self.keyed_fields),
            ("bypass_fields", &self.bypass_fields),
            ("bypass_models", &self.bypass_models),
        ]
    }
}

/// The characters of a header's name, capitals left out; the star is one of them.
fn is_in_header_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Checks the name of the trusted header that names the tenant.
///
/// # Errors
///
/// One line that says what is wrong with it: it is no header name in lower case, or the header
/// never reaches the cache as the gateway has sent it.
pub fn check_tenant_header(name: &str) -> Result<(), String> {
    if name.is_empty() || !name.bytes().all(is_in_header_name) || name.contains('*') {
        return Err(format!(
            "tenant_header: `{name}` is not a header name in lower case"
        ));
    }
    let why = if PER_CONNECTION.contains(&name) {
        "it is about one connection, and is taken out on the way"
    } else if FRAMING.contains(&name) {
        "it belongs to HTTP, and is written anew on the way"
    } else if name.starts_with("x-reflex-") || OWN.contains(&name) {
        "it has a meaning of its own here"
    } else {
        return Ok(());
    };
    Err(format!("tenant_header: `{name}` names no tenant: {why}"))
}

/// RFC 9110, section 7.6.1, and what HTTP/1 proxies have added to it.
const PER_CONNECTION: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// Headers that frame a message, or say where it goes.
const FRAMING: [&str; 8] = [
    "accept-encoding",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
    "via",
];

/// Clients' instructions to caches, and cookies, of which a client may add any.
const OWN: [&str; 4] = ["cache-control", "cookie", "pragma", "accept"];

/// A header that may not be named in `ignored_headers` although a pattern matches it: it names the
/// tenant, or it has rules of its own.
fn kept_by_all(tenant_header: Option<&str>) -> impl Iterator<Item = &str> {
    const KEPT: [&str; 3] = ["cookie", "proxy-authorization", "x-amz-security-token"];
    let known = CREDENTIALS.iter().chain(SCOPES).chain(&KEPT).copied();
    tenant_header.into_iter().chain(known)
}
