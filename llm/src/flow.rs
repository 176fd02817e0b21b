//! The path of one request through the cache: which steps it takes, and what each outcome means.
//!
//! ```text
//! looks: look up ─► a hit that the client accepts
//!           └► join the fill ─► follow, or lead and look up once more
//! asks:  the provider, with `edits` ─► `answered`; a failure ─► a stale hit, if `serves_stale`
//! else:  504 (`Status::Absent`)
//! ```
//!
//! The drivers of this flow (the guest, transparent mode, the Envoy filter) make the calls, and
//! take every decision from here. Pure functions and no state machine: two of the drivers are async
//! functions that read from top to bottom, and the third has stages of its own for the events of
//! Envoy; a machine between them made each longer.

use crate::{Control, Status, X_REFLEX_TTL};

/// Upper bound of the lookups of one request: the first, and one more each time that its turn in
/// the fill tells it to look again. After the last it asks the provider alone.
pub const LOOKS_MAX: usize = 4;

/// The steps that a request may take, by its client's instructions and by what may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    control: Control,
    keeps: bool,
}

/// How the head of the provider's request differs from the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edits {
    /// Names of headers that are removed.
    pub remove: &'static [&'static str],
    /// Headers that are set, in place of any of the same name.
    pub set: &'static [(&'static str, &'static str)],
}

/// Every client must be able to read the replay.
const IDENTITY: (&str, &str) = ("accept-encoding", "identity");

impl Flow {
    /// By the client's instructions alone.
    pub fn of(control: &Control) -> Self {
        Self {
            control: *control,
            keeps: control.keeps(),
        }
    }

    /// The same where operator and grant decide as well whether the answer may be kept.
    #[must_use]
    pub fn kept_if(self, may_keep: bool) -> Self {
        Self {
            keeps: self.keeps && may_keep,
            ..self
        }
    }

    /// The lookups of the request, in order, [`LOOKS_MAX`] at most. Each item says whether the
    /// request joins the fill if that lookup finds nothing. A leader joins no more: its next lookup
    /// is its last.
    pub fn looks(&self) -> impl Iterator<Item = bool> + use<> {
        let count = match (self.looks_up(), self.joins()) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => LOOKS_MAX,
        };
        // The last lookup is not followed by a turn as a leader, which would ask without a look.
        (1..=count).map(move |look| look < count)
    }

    /// Whether the cache is looked at.
    pub fn looks_up(&self) -> bool {
        !self.control.no_cache
    }

    /// Whether this client accepts an answer of this age that stays fresh for `ttl_seconds`.
    pub fn accepts(&self, age_seconds: u64, ttl_seconds: Option<u64>) -> bool {
        self.control.accepts(age_seconds, ttl_seconds)
    }

    /// Whether the request may follow another one's fill, and lead a fill of its own. An answer that
    /// is not kept is for its own client alone, so a follower would wait for nothing. A request that
    /// never asks the provider cannot lead.
    pub fn joins(&self) -> bool {
        self.looks_up() && self.asks() && self.keeps
    }

    /// Whether any of several answers to the request will do (`samples`), not only the one whose
    /// turn it is: the alternative is none.
    pub fn takes_any_sample(&self) -> bool {
        self.looks_up() && !self.asks()
    }

    /// Whether the provider may be asked. Otherwise a miss is a 504 ([`Status::Absent`]).
    pub fn asks(&self) -> bool {
        !self.control.only_if_cached
    }

    /// Whether the answer may be kept.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// What changes in the head of the provider's request. `is_part` says that a part of a batch is
    /// asked for, whose answer is joined with cached texts.
    pub fn edits(&self, is_part: bool) -> Edits {
        Edits {
            remove: &[X_REFLEX_TTL],
            set: match self.wants_identity() || is_part {
                true => &[IDENTITY],
                false => &[],
            },
        }
    }

    /// Whether the provider is asked not to compress its answer. An answer that is not kept comes as
    /// the client asked for it.
    pub fn wants_identity(&self) -> bool {
        self.keeps
    }

    /// What the client is told of an answer that the provider gave to this request.
    pub fn answered(&self) -> Status {
        match self.control.no_cache {
            true => Status::Refresh,
            false => Status::Miss,
        }
    }

    /// Whether an expired answer may be served in place of the provider's, which has this status;
    /// none if the provider did not answer.
    pub fn serves_stale(&self, fwd_status: Option<u16>) -> bool {
        self.control.accepts_stale() && fwd_status.is_none_or(is_failure)
    }
}

/// Whether a provider with this status says that it fails, or has no room for the request. Such an
/// answer is never kept; followers of a leader get it as well; an expired answer is better.
pub const fn is_failure(status: u16) -> bool {
    matches!(status, 429 | 500..=599)
}
