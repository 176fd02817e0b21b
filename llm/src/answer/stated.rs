//! The life that an answer, or its head, states: how old it is already, and until when it may be
//! served.
//!
//! Clock-free: ages and lives in seconds, ends in seconds since 1970. [`Stated::within`] combines
//! them with the operator's rule and the time.

use core::time::Duration;

use crate::Rejected;
use crate::answer::date;
use crate::request::control::{seconds, split_directive};

/// Whether the operator obeys providers' headers for caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderControl {
    /// Nothing: providers of LLMs send `no-store` or `no-cache` with nearly every answer, by habit
    /// of their frameworks.
    #[default]
    Ignore,
    /// `no-store`, `no-cache` and `private` of `Cache-Control`, and `Vary: *`, keep an answer out;
    /// `s-maxage`, `max-age` or else `Expires` bound its life. `must-revalidate`,
    /// `proxy-revalidate` and `s-maxage` keep it from being served stale.
    Obey,
}

/// The life that an answer states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// How old it was when it came (`Age`): a cache on the way had it.
    pub age_seconds: u64,
    /// How old it may become, by the provider's word, where that is obeyed.
    pub life_seconds: Option<u64>,
    /// Until when it is fresh by the provider's `Expires`, where that is obeyed, in seconds since
    /// 1970.
    pub fresh_until: Option<u64>,
    /// Whether the provider, where it is obeyed, forbids to serve it once it is no longer fresh.
    pub must_revalidate: bool,
    /// When it ends by its own content, in seconds since 1970: a link stops working, an id is
    /// forgotten.
    pub expires_at: Option<u64>,
}

/// How an answer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// When it was new, in milliseconds since 1970.
    pub stored_at_ms: u64,
    /// When it expires, in milliseconds since 1970. None is never.
    pub expires_at_ms: Option<u64>,
    /// From when on it is not served stale either, in place of a failing provider's answer, in
    /// milliseconds since 1970; never before `expires_at_ms`. None is as the operator's rule says.
    pub ends_at_ms: Option<u64>,
}

impl Term {
    /// How long it lives from when it was new, in milliseconds. `None`: it never expires.
    pub fn ttl_ms(self) -> Option<u64> {
        let end = self.expires_at_ms?;
        Some(end.saturating_sub(self.stored_at_ms))
    }
}

impl Stated {
    /// The times of an answer that has just come and lives for `ttl` by the operator's rule,
    /// counted from when it was new. No rule makes it live longer than it states itself.
    ///
    /// # Errors
    ///
    /// It has expired already: [`Rejected::Expired`].
    pub fn within(self, ttl: Option<Duration>, now_ms: u64) -> Result<Term, Rejected> {
        let ms = |seconds: u64| seconds.saturating_mul(1000);
        let stored_at_ms = now_ms.saturating_sub(ms(self.age_seconds));
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let lives = [ttl_ms, self.life_seconds.map(ms)];
        let ends = lives.map(|life| life.map(|life| stored_at_ms.saturating_add(life)));
        let own_end = self.expires_at.map(ms);
        let ends = ends.into_iter().chain([self.fresh_until.map(ms), own_end]);
        let expires_at_ms = ends.flatten().min();
        if expires_at_ms.is_some_and(|end| end <= now_ms) {
            return Err(Rejected::Expired);
        }
        Ok(Term {
            stored_at_ms,
            expires_at_ms,
            ends_at_ms: match self.must_revalidate {
                true => expires_at_ms,
                false => own_end,
            },
        })
    }

    /// The same, ending no later than this, in seconds since 1970.
    pub(crate) fn ending_at(self, at: Option<u64>) -> Self {
        let ends = [self.expires_at, at].into_iter();
        Self {
            expires_at: ends.flatten().min(),
            ..self
        }
    }

    /// Reads the head of an answer, names in lower case.
    pub(crate) fn of(
        headers: &[(&str, &[u8])],
        control: ProviderControl,
    ) -> Result<Self, Rejected> {
        let mut stated = Self::default();
        let mut said = Directives::default();
        for &(name, value) in headers {
            match name {
                // Caches in a row do not add up. An age that cannot be read may be any.
                "age" => {
                    for age in value.split(|&byte| byte == b',') {
                        let age = seconds(age.trim_ascii()).ok_or(Rejected::Expired)?;
                        stated.age_seconds = stated.age_seconds.max(age);
                    }
                }
                _ if control == ProviderControl::Ignore => {}
                "cache-control" => said.read(value)?,
                "vary"
                    if value
                        .split(|&byte| byte == b',')
                        .any(|it| it.trim_ascii() == b"*") =>
                {
                    return Err(Rejected::ProviderControl);
                }
                // A value that is no date, such as 0, is in the past.
                "expires" => {
                    let at = date::http(value.trim_ascii()).unwrap_or(0);
                    said.expires = Some(said.expires.map_or(at, |other| other.min(at)));
                }
                _ => {}
            }
        }
        stated.must_revalidate = said.must_revalidate || said.shared.is_some();
        stated.life_seconds = said.shared.or(said.max_age);
        if stated.life_seconds.is_none() {
            stated.fresh_until = said.expires;
        }
        if stated
            .life_seconds
            .is_some_and(|life| life <= stated.age_seconds)
            || stated.fresh_until == Some(0)
        {
            return Err(Rejected::ProviderControl);
        }
        Ok(stated)
    }
}

/// A provider's `Cache-Control` and `Expires`.
#[derive(Default)]
struct Directives {
    shared: Option<u64>,
    max_age: Option<u64>,
    expires: Option<u64>,
    must_revalidate: bool,
}

impl Directives {
    fn read(&mut self, mut rest: &[u8]) -> Result<(), Rejected> {
        while !rest.is_empty() {
            // A quote that never closes may have swallowed anything.
            let (directive, after) = split_directive(rest).ok_or(Rejected::ProviderControl)?;
            rest = after;
            let mut parts = directive.splitn(2, |&byte| byte == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let life = parts.next().unwrap_or_default().trim_ascii();
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            if is("no-store") || is("no-cache") || is("private") {
                return Err(Rejected::ProviderControl);
            }
            // RFC 9111 gives `s-maxage` the meaning of the second for caches such as this one.
            self.must_revalidate |= is("must-revalidate") || is("proxy-revalidate");
            let kept = match () {
                () if is("s-maxage") => &mut self.shared,
                () if is("max-age") => &mut self.max_age,
                () => continue,
            };
            // A life that cannot be read is none.
            let life = seconds(life).unwrap_or(0);
            *kept = Some(kept.map_or(life, |other| other.min(life)));
        }
        Ok(())
    }
}
