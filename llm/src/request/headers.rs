//! Which request headers can change the answer: all but those known not to.
//!
//! The opposite, a list of headers that count, would be shorter and wrong. The names by which
//! gateways choose a model, a provider, a user or a behaviour cannot be guessed
//! (`azureml-model-deployment`, `extra-parameters`, `x-portkey-config`, `x-envoy-ip-tags`,
//! `x-forwarded-client-cert`); `openai-beta`, `anthropic-version` and `accept-language` count by
//! the same rule. `headers/names.rs` lists the headers known not to count. An unlisted header of
//! that kind costs misses until it is added there, or named in `ignored_headers`.
//!
//! Cookies are judged one by one, and `accept` by its value.

mod accept;
mod name_list;
mod names;

use alloc::vec::Vec;

use crate::Rules;
use crate::request::origin::Origin;
use crate::rules::pattern::is_like;
use crate::tenant::CREDENTIALS;

pub(crate) use accept::wants_events_only;

/// The inputs, beside its name, that decide whether a header counts.
#[derive(Clone, Copy)]
pub(crate) struct Counting<'p> {
    /// The operator's lists.
    pub(crate) rules: Option<&'p Rules>,
    /// The provider, as a request's head has it. Few requests have a header for which its kind counts.
    pub(crate) upstream: &'p str,
    /// The header that stands for the tenant, which is in the key itself.
    pub(crate) named_by: Option<&'p str>,
}

/// Nearly all requests have no more headers that count, and need no memory for them.
const FEW: usize = 8;

/// Calls `add` for each header that counts: names in order, the values of a repeated one in the
/// order they came. All cookies are one header, as HTTP/2 clients split it and others do not.
pub(crate) fn significant(
    headers: &[(&str, &[u8])],
    counting: Counting<'_>,
    mut add: impl FnMut(&str, &[u8]),
) {
    let mut few = [("", &[][..]); FEW];
    let mut many = Vec::new();
    let mut count = 0;
    for &(name, value) in headers {
        if !counting.counts(name, headers) {
            continue;
        }
        match few.get_mut(count) {
            Some(place) => *place = (name, value),
            None => {
                if count == FEW {
                    many.extend_from_slice(&few);
                }
                many.push((name, value));
            }
        }
        count += 1;
    }
    let significant = match few.get_mut(..count) {
        Some(few) => few,
        None => many.as_mut_slice(),
    };
    significant.sort_by_key(|&(name, _)| name);

    let mut rest = &*significant;
    while let Some(&(name, value)) = rest.first() {
        let same = rest.partition_point(|&(other, _)| other <= name);
        let (values, after) = rest.split_at(same);
        rest = after;
        match name {
            "cookie" => {
                let cookies = counting.cookies(values.iter().map(|&(_, value)| value));
                if !cookies.is_empty() {
                    add(name, &cookies);
                }
            }
            "accept" if accept::is_common(values.iter().map(|&(_, value)| value)) => {}
            _ if same == 1 => add(name, value),
            _ => values.iter().for_each(|&(name, value)| add(name, value)),
        }
    }
}

impl Counting<'_> {
    fn counts(self, name: &str, headers: &[(&str, &[u8])]) -> bool {
        // The credentials are in the tenant. The organisation and project are there only when a
        // credential is, so they count here too.
        let ignored = CREDENTIALS.contains(&name) || is_ignored(name);
        if ignored || self.named_by == Some(name) {
            return false;
        }
        let has_no_memory = || Origin::of(self.upstream).has_no_memory();
        if names::SESSIONS.contains(&name) && (has_no_memory() || is_agents(headers)) {
            return false;
        }
        let is_named = |pattern: &str| is_like(pattern, name);
        let rules = self.rules;
        !rules.is_some_and(|rules| rules.ignored_headers.iter().any(|it| is_named(it)))
    }

    /// The cookies that count, in the order they came, in one spelling.
    fn cookies<'v>(self, values: impl Iterator<Item = &'v [u8]>) -> Vec<u8> {
        let mut counting = Vec::new();
        let pairs = values.flat_map(|value| value.split(|&byte| byte == b';'));
        for pair in pairs.map(<[u8]>::trim_ascii) {
            let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
            if pair.is_empty() || self.is_ignored_cookie(name.trim_ascii()) {
                continue;
            }
            if !counting.is_empty() {
                counting.extend_from_slice(b"; ");
            }
            counting.extend_from_slice(pair);
        }
        counting
    }

    fn is_ignored_cookie(self, name: &[u8]) -> bool {
        let Ok(name) = core::str::from_utf8(name) else {
            return false;
        };
        let own = self.rules.map_or(&[][..], |rules| &rules.ignored_cookies);
        names::COOKIES.iter().any(|pattern| is_like(pattern, name))
            || own.iter().any(|pattern| is_like(pattern, name))
    }
}

/// Whether a header names a session, in words that coding agents and servers with a memory both use.
pub(crate) fn names_a_session(name: &str) -> bool {
    names::SESSIONS.contains(&name)
}

fn is_ignored(name: &str) -> bool {
    if names::HEADERS.has(name) {
        return true;
    }
    let begins = |name: &str, prefixes: &[&str]| {
        let first = name.as_bytes().first();
        let may = |prefix: &&&str| prefix.as_bytes().first() == first;
        prefixes.iter().filter(may).any(|it| name.starts_with(it))
    };
    match name.strip_prefix("x-") {
        Some(rest) => begins(rest, names::X_PREFIXES),
        None => begins(name, names::PREFIXES),
    }
}

/// Whether the client is a coding agent.
fn is_agents(headers: &[(&str, &[u8])]) -> bool {
    headers.iter().any(|(name, value)| {
        let begins = |agent: &&str| {
            let start = value.get(..agent.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(agent.as_bytes()))
        };
        matches!(*name, "originator" | "user-agent") && names::AGENTS.iter().any(begins)
    })
}
