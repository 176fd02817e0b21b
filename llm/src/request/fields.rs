//! The fields of a key that come from the head, in their order.

use crate::Candidate;
use crate::request::headers::{self, Counting};
use crate::request::query;

/// One field. A header is two: its name, then its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Tenant,
    Upstream,
    Method,
    Path,
    /// The part of the query that counts; absent without any.
    Query,
    Header,
    Value,
}

impl Field {
    const ALL: [Self; 7] = [
        Self::Tenant,
        Self::Upstream,
        Self::Method,
        Self::Path,
        Self::Query,
        Self::Header,
        Self::Value,
    ];

    /// The field of that name; none for a field of something else than the head.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// As the key has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Upstream => "upstream",
            Self::Method => "method",
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Value => "value",
        }
    }
}

impl Candidate<'_> {
    /// Calls `add` for each field.
    #[inline]
    pub(crate) fn fields(&self, mut add: impl FnMut(Field, &[u8])) {
        let head = &self.head;
        let (path, _) = query::split(head.path);
        add(Field::Tenant, &self.tenant.0);
        add(Field::Upstream, head.upstream.as_bytes());
        add(Field::Method, head.method.as_bytes());
        add(Field::Path, path.as_bytes());
        let rules = self.rules.as_deref();
        let ignored = rules.map_or(&[][..], |rules| &rules.ignored_query);
        if let Some(query) = query::counting(self.api, head.path, ignored) {
            add(Field::Query, query.as_bytes());
        }
        let counting = Counting {
            rules,
            upstream: head.upstream,
            named_by: self.named_by,
        };
        headers::significant(head.headers, counting, |name, value| {
            add(Field::Header, name.as_bytes());
            add(Field::Value, value);
        });
    }
}
