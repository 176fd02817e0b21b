//! Which members of a body are out of the key, and in which objects the order of members is, by
//! their place in the body.
//!
//! The same name elsewhere counts: the model sees a `user` inside a message, or a `cache_control`
//! that is an argument of a function.

use crate::api::{Field, Known};
use crate::json::{Kind, Value};
use crate::request::origin::Origin;
use crate::rules::pattern::is_like;
use crate::{Api, Rules};

/// The parts of a body left out of its canonical spelling.
#[derive(Clone, Copy)]
pub(crate) struct Outline<'r> {
    api: Api,
    origin: Origin,
    rules: Option<&'r Rules>,
    /// Nothing is left out.
    is_whole: bool,
}

impl<'r> Outline<'r> {
    pub(crate) fn of(api: Api, origin: Origin, rules: Option<&'r Rules>) -> Self {
        Self {
            api,
            origin,
            rules,
            is_whole: false,
        }
    }

    /// The outline of a body of which all counts: that of a recording.
    pub(crate) fn whole(api: Api) -> Self {
        Self {
            is_whole: true,
            ..Self::of(api, Origin::of(""), None)
        }
    }

    /// The definition of the outermost object.
    pub(crate) fn top(self) -> &'static Known {
        self.api.row().top
    }

    /// Whether a member of the outermost object is out of the key.
    pub(crate) fn omits_field(self, name: &[u8], value: Value<'_>) -> bool {
        self.omits(name, || are_hints(value))
    }

    /// The same of a member by its name alone.
    pub(crate) fn omits_name(self, name: &[u8]) -> bool {
        self.omits(name, || true)
    }

    fn omits(self, name: &[u8], are_hints: impl FnOnce() -> bool) -> bool {
        if self.is_whole {
            return false;
        }
        let field = self.api.field(name);
        if let Some(Field::Stream | Field::MustBeFalse(_)) = field {
            return true;
        }
        if let Some(rules) = self.rules {
            if is_listed(&rules.ignored_fields, name) {
                return true;
            }
            if is_listed(&rules.keyed_fields, name) {
                return false;
            }
        }
        match field {
            Some(Field::Ignored) => true,
            Some(Field::CacheOptions) => are_hints(),
            Some(Field::Names) => self.origin.ignores(name),
            _ => false,
        }
    }

    /// Whether a member of an object further in is out of the key.
    pub(crate) fn omits_member(self, known: &Known, name: &[u8], value: Value<'_>) -> bool {
        // Of another kind it is no hint.
        !self.is_whole
            && known.has_hints
            && self.api.row().hint.as_bytes() == name
            && matches!(value.kind(), Kind::Object | Kind::Null)
    }
}

/// Whether a field is in one of the operator's lists.
pub(crate) fn is_listed(patterns: &[alloc::string::String], name: &[u8]) -> bool {
    let name = core::str::from_utf8(name).unwrap_or_default();
    patterns.iter().any(|pattern| is_like(pattern, name))
}

/// Whether these options, as far as known, say only how long and where a prompt is cached.
fn are_hints(options: Value<'_>) -> bool {
    let mut members = options.members();
    let is_hint = |key: Option<Value<'_>>| {
        key.is_some_and(|key| matches!(&*key.name(), b"mode" | b"prewarm" | b"ttl"))
    };
    match options.kind() {
        Kind::Null => true,
        Kind::Object => members.all(|(key, _)| is_hint(key)),
        _ => false,
    }
}
