//! Routes by the names that operators use.

use crate::exchange::answer::StoredHead;
use reflex_llm::Api;

/// The API that an answer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Route {
    Api(Api),
    /// The answer was stored without a shape, or by a release that did not note it.
    Unknown,
}

const UNKNOWN: &str = "unknown";

impl Route {
    pub(super) fn of(stored: Option<&StoredHead<'_>>) -> Self {
        let shape = stored.and_then(StoredHead::shape);
        shape.map_or(Self::Unknown, |shape| Self::Api(shape.api))
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            UNKNOWN => Some(Self::Unknown),
            name => Api::from_name(name).map(Self::Api),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Api(api) => api.name(),
            Self::Unknown => UNKNOWN,
        }
    }
}

/// All names of routes, for people.
pub(super) fn all() -> String {
    let names = Api::ALL.iter().map(|api| api.name());
    let names: Vec<_> = names.chain([UNKNOWN]).collect();
    names.join(", ")
}
