//! `Cache-Control` of a request (RFC 9111, section 5.2.1), and our own `x-reflex-ttl`.
//!
//! Forgiving: unknown directives are skipped, and nothing makes a request fail. In doubt the answer
//! does not come from the cache.

/// A client's instructions to the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Keep nothing of this exchange. Such a request is a bypass, so that in an
    /// [`Exchange`](crate::Exchange) this is false.
    pub no_store: bool,
    /// Ask the provider, then refresh the entry.
    pub no_cache: bool,
    /// Answer from the cache or with 504, but do not ask the provider.
    pub only_if_cached: bool,
    /// The greatest age, in seconds, of an answer that is wanted.
    pub max_age: Option<u64>,
    /// For how many seconds more an answer must be fresh.
    pub min_fresh: Option<u64>,
    /// For how many seconds the answer is to be kept (`x-reflex-ttl`), as far as the operator
    /// allows. 0 is not at all; an existing entry may still be served.
    pub ttl_seconds: Option<u64>,
}

/// The header by which a client says for how many seconds the answer is to be kept.
pub const X_REFLEX_TTL: &str = "x-reflex-ttl";

/// RFC 9111 has caches take greater numbers for this one: 68 years.
const SECONDS_MAX: u64 = 1 << 31;

/// A directive that keeps a request from being answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Directive {
    /// The provider is asked, and its answer kept.
    NoCache,
    /// The provider is asked, and nothing is kept.
    NoStore,
}

impl Directive {
    /// As `Cache-Control` spells it, and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCache => "no-cache",
            Self::NoStore => "no-store",
        }
    }
}

/// Which of the clients' instructions the operator obeys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientControl {
    /// All of it.
    #[default]
    Obey,
    /// All that keep an answer from being stored, or the provider from being asked, but none that
    /// make the provider answer again: not `no-cache`, `max-age` and `min-fresh`.
    NoRefresh,
    /// Nothing, not even `no-store`.
    Ignore,
}

impl ClientControl {
    /// The obeyed part of a client's instructions.
    pub(crate) fn obeyed(self, asked: Control) -> Control {
        match self {
            Self::Obey => asked,
            Self::NoRefresh => Control {
                no_cache: false,
                max_age: None,
                min_fresh: None,
                ..asked
            },
            Self::Ignore => Control::default(),
        }
    }
}

impl Control {
    /// Reads all `cache-control` headers, or without any `pragma: no-cache`, and all of
    /// [`X_REFLEX_TTL`].
    pub fn of(headers: &[(&str, &[u8])]) -> Self {
        let mut control = Self::default();
        let mut legacy = false;
        let mut found = false;
        for &(name, value) in headers {
            match name {
                "cache-control" => {
                    found = true;
                    control.read(value);
                }
                "pragma" => legacy |= names_no_cache(value),
                X_REFLEX_TTL => {
                    // An unreadable time counts as 0, the strictest.
                    let seconds = seconds(value.trim_ascii()).unwrap_or(0);
                    let known = control.ttl_seconds.unwrap_or(seconds);
                    control.ttl_seconds = Some(known.min(seconds));
                }
                _ => {}
            }
        }
        control.no_cache |= legacy && !found;
        control
    }

    /// Whether this client accepts an answer of this age that stays fresh for `fresh_seconds`
    /// (`None`: it never expires).
    pub fn accepts(&self, age_seconds: u64, fresh_seconds: Option<u64>) -> bool {
        let young = self.max_age.is_none_or(|max| age_seconds <= max);
        let fresh = match (self.min_fresh, fresh_seconds) {
            (Some(wanted), Some(left)) => wanted <= left,
            _ => true,
        };
        young && fresh && !self.no_cache
    }

    /// Whether this client accepts an expired answer when the provider fails: not if it says how
    /// fresh an answer has to be.
    pub fn accepts_stale(&self) -> bool {
        !self.no_cache && self.max_age.is_none() && self.min_fresh.is_none()
    }

    /// Whether the client lets the answer be kept.
    pub fn keeps(&self) -> bool {
        !self.no_store && self.ttl_seconds != Some(0)
    }

    fn read(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let Some((directive, after)) = split_directive(rest) else {
                // A quote that never closes may have swallowed anything.
                self.no_cache = true;
                return;
            };
            rest = after;
            let mut parts = directive.splitn(2, |&byte| byte == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let argument = parts.next().map(<[u8]>::trim_ascii);
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            if is("no-store") {
                self.no_store = true;
            } else if is("no-cache") {
                self.no_cache = true;
            } else if is("only-if-cached") {
                self.only_if_cached = true;
            } else if is("max-age") {
                let seconds = self.seconds(argument);
                // Clocks count whole seconds here: an age of 0 may be most of one.
                self.no_cache |= seconds == 0;
                self.max_age = Some(self.max_age.unwrap_or(seconds).min(seconds));
            } else if is("min-fresh") {
                let seconds = self.seconds(argument);
                self.min_fresh = Some(self.min_fresh.unwrap_or(seconds).max(seconds));
            }
        }
    }

    /// A number of seconds. An invalid one counts as the strictest: nothing in the cache is fresh
    /// enough.
    fn seconds(&mut self, argument: Option<&[u8]>) -> u64 {
        let digits = argument.map_or(&[][..], |argument| {
            let inner = argument.strip_prefix(b"\"");
            let inner = inner.and_then(|inner| inner.strip_suffix(b"\""));
            inner.unwrap_or(argument)
        });
        seconds(digits).unwrap_or_else(|| {
            self.no_cache = true;
            0
        })
    }
}

/// A number of seconds, at most [`SECONDS_MAX`]; none if it is no number.
pub(crate) fn seconds(digits: &[u8]) -> Option<u64> {
    let mut seconds = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        seconds = SECONDS_MAX.min(seconds * 10 + u64::from(digit - b'0'));
    }
    (!digits.is_empty()).then_some(seconds)
}

/// The text up to the next comma outside of quotes, and the text after it.
pub(crate) fn split_directive(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    (!quoted).then_some((text, &[]))
}

fn names_no_cache(pragma: &[u8]) -> bool {
    let mut directives = pragma.split(|&byte| byte == b',');
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
}
