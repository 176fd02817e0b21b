//! What the filter counts, each named once. Counting is adding to a number in memory; the filter
//! hands the numbers to Envoy at its next tick, where they appear in `/stats/prometheus`.

use reflex_llm::{By, Bypass, Directive, Dropped, Rejected, Status, is_event_stream};

/// A counter's name in Envoy, and its value since it was last handed over.
pub type Count = (String, u64);

/// Upper bound of the lookup times that are kept until the next tick; more are not recorded.
const TIMES_MAX: usize = 10_000;

/// What a client may say of the cache, each with whether the answer is a stream.
const CONTROLS: [(Directive, bool); 4] = [
    (Directive::NoCache, false),
    (Directive::NoCache, true),
    (Directive::NoStore, false),
    (Directive::NoStore, true),
];

/// Where a hit came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// This worker's memory.
    Hot,
    /// The daemon.
    Daemon,
}

/// The numbers since the last tick.
#[derive(Debug)]
pub struct Counts {
    hits: [u64; 2],
    misses: u64,
    collapsed: u64,
    bypasses: Vec<u64>,
    inserts: u64,
    rejected: Vec<u64>,
    dropped: Vec<u64>,
    key_splits: Vec<u64>,
    /// By what of [`CONTROLS`] was obeyed.
    controls: [u64; CONTROLS.len()],
    lookup_failures: u64,
    purges: u64,
    lookup_us: Vec<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            hits: [0; 2],
            misses: 0,
            collapsed: 0,
            bypasses: vec![0; Bypass::ALL.len()],
            inserts: 0,
            rejected: vec![0; Rejected::ALL.len()],
            dropped: vec![0; Dropped::ALL.len()],
            key_splits: vec![0; By::ALL.len()],
            controls: [0; CONTROLS.len()],
            lookup_failures: 0,
            purges: 0,
            lookup_us: Vec::new(),
        }
    }
}

impl Counts {
    /// An answer of the cache.
    pub fn hit(&mut self, tier: Tier) {
        self.hits[usize::from(tier == Tier::Daemon)] += 1;
    }

    /// An answer of the provider to a request that may be answered from the cache.
    pub fn miss(&mut self) {
        self.misses += 1;
    }

    /// An answer of the provider to another request for the same.
    pub fn collapsed(&mut self) {
        self.collapsed += 1;
    }

    /// A request that bypasses the cache.
    pub fn bypass(&mut self, why: Bypass) {
        add(&mut self.bypasses, Bypass::ALL, why);
    }

    /// The daemon has stored an answer.
    pub fn insert(&mut self) {
        self.inserts += 1;
    }

    /// An answer that must not be served again.
    pub fn rejected(&mut self, why: Rejected) {
        add(&mut self.rejected, Rejected::ALL, why);
    }

    /// A good answer that is not stored.
    pub fn dropped(&mut self, why: Dropped) {
        add(&mut self.dropped, Dropped::ALL, why);
    }

    /// A miss whose key differs from another's by such a part.
    pub fn key_split(&mut self, by: By) {
        add(&mut self.key_splits, By::ALL, by);
    }

    /// The head of an answer to a request of that status, which its client may have kept from the
    /// cache.
    pub fn controlled(&mut self, status: Status, headers: &[(&str, &[u8])]) {
        if let Some(directive) = status.directive() {
            let mut types = headers.iter().filter(|(name, _)| *name == "content-type");
            let is_stream = types.any(|(_, value)| is_event_stream(value));
            add(&mut self.controls, &CONTROLS, (directive, is_stream));
        }
    }

    /// A lookup that the daemon did not answer.
    pub fn lookup_failed(&mut self) {
        self.lookup_failures += 1;
    }

    /// The hot tier was emptied because of a purge.
    pub fn purge(&mut self) {
        self.purges += 1;
    }

    /// A lookup that the daemon has answered, and the time that it took.
    pub fn looked_up(&mut self, microseconds: u64) {
        if self.lookup_us.len() < TIMES_MAX {
            self.lookup_us.push(microseconds);
        }
    }

    /// The names of all counters, in the order of [`take`](Self::take).
    pub fn names() -> Vec<String> {
        Self::default()
            .all()
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    /// The counters that have changed, by their place among [`names`](Self::names), and the times
    /// of lookups; all begin anew.
    pub fn take(&mut self) -> (Vec<(usize, u64)>, Vec<u64>) {
        let taken = std::mem::take(self);
        let counts = taken.values().enumerate();
        let changed = counts.filter(|(_, count)| *count > 0).collect();
        (changed, taken.lookup_us)
    }

    fn values(&self) -> impl Iterator<Item = u64> {
        let single = [
            self.hits[0],
            self.hits[1],
            self.misses,
            self.collapsed,
            self.inserts,
            self.lookup_failures,
            self.purges,
        ];
        let many = self
            .bypasses
            .iter()
            .chain(&self.rejected)
            .chain(&self.dropped)
            .chain(&self.key_splits)
            .chain(&self.controls);
        single.into_iter().chain(many.copied().collect::<Vec<_>>())
    }

    fn all(&self) -> Vec<Count> {
        let single = [
            "hits_hot",
            "hits_daemon",
            "misses",
            "collapsed",
            "inserts",
            "lookup_failures",
            "purges",
        ];
        // `stats_tags` of Envoy's configuration make labels of what stands behind the dots.
        let of = |what: &'static str, detail: &str| format!("{what}_total.{detail}");
        let controls = CONTROLS.map(|(directive, streams)| {
            let directive = directive.name();
            of("client_control", &format!("{directive}.{streams}"))
        });
        let names = single
            .into_iter()
            .map(String::from)
            .chain(Bypass::ALL.iter().map(|why| of("bypasses", why.detail())))
            .chain(Rejected::ALL.iter().map(|why| of("not_kept", why.detail())))
            .chain(Dropped::ALL.iter().map(|why| of("not_kept", why.detail())))
            .chain(By::ALL.iter().map(|by| of("key_splits", by.name())))
            .chain(controls);
        names
            .map(|name| format!("reflex_{name}"))
            .zip(self.values())
            .collect()
    }
}

fn add<T: PartialEq>(counts: &mut [u64], all: &[T], one: T) {
    let at = all.iter().position(|other| *other == one);
    if let Some(count) = at.and_then(|at| counts.get_mut(at)) {
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_handed_over_once_under_its_name() {
        let names = Counts::names();
        let mut counts = Counts::default();
        counts.hit(Tier::Daemon);
        counts.hit(Tier::Daemon);
        counts.bypass(Bypass::NoCredential);
        counts.dropped(Dropped::Failed);
        counts.controlled(Status::Refresh, &[("content-type", b"text/event-stream")]);
        counts.controlled(Status::Miss, &[]);
        counts.looked_up(7);
        let (changed, times) = counts.take();
        let changed: Vec<_> = changed
            .into_iter()
            .map(|(at, count)| (names[at].as_str(), count))
            .collect();
        assert_eq!(
            changed,
            [
                ("reflex_hits_daemon", 2),
                ("reflex_bypasses_total.no-credential", 1),
                ("reflex_not_kept_total.failed", 1),
                ("reflex_client_control_total.no-cache.true", 1)
            ]
        );
        assert_eq!(times, [7]);
        assert_eq!(counts.take(), (vec![], vec![]));
    }

    #[test]
    fn names_are_what_prometheus_takes_and_each_is_there_once() {
        let names = Counts::names();
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        // What stands behind a dot is a label's value, which may have hyphens.
        let family = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        assert!(
            names.iter().all(|name| family(name).bytes().all(valid)),
            "{names:?}"
        );
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
    }
}
