//! The last hour in bounded memory, as JSON: for the page, and for programs that have no Prometheus.
//!
//! ```text
//! metrics ─► every 10 s: a row, what happened since the one before ─► ring of 360 rows ─┐
//! recent ─► models, routes, tenants, reasons, key splits, guest faults ─────────────────┴─► JSON
//! ```

mod remedies;
mod sample;

use crate::cache::{Cache, PurgeListener, Purged, Stats};
use crate::clock::Clock;
use crate::serve::config::Config;
use crate::serve::metrics::Metrics;
use crate::serve::recent::{Kind, Often, Times};
use crate::serve::tenants::Names;
use crate::sync::lock;
use arc_swap::ArcSwap;
use remedies::Remedies;
use sample::{COLUMNS, HITS, NONE, Row, Totals};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The time of one row. The page's charts have one point for each.
pub(crate) const ROW: Duration = Duration::from_secs(10);

/// Rows that are kept: an hour of them, in some 64 KiB.
pub(crate) const ROWS_MAX: usize = 360;

/// Rows after which a window of [`Recent`](crate::serve::recent::Recent) ends: ten minutes.
const WINDOW_ROWS: u64 = 60;

/// What happened in the last hour.
pub(crate) struct History {
    cache: Cache,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// What the daemon runs with; a reload changes it.
    running: Arc<ArcSwap<Config>>,
    started_ms: u64,
    remedies: Remedies,
    rows: Mutex<Rows>,
    last_purge: Mutex<Option<(u64, &'static str)>>,
}

/// The rows so far.
struct Rows {
    /// When each ended, in milliseconds since 1970.
    kept: VecDeque<(u64, Row)>,
    /// Rows since the start.
    count: u64,
    /// At the end of the newest.
    totals: Totals,
    ended_ms: u64,
}

impl History {
    /// A history that begins now. It listens to the cache's purges.
    pub(crate) fn new(
        cache: Cache,
        metrics: Arc<Metrics>,
        clock: Clock,
        running: Arc<ArcSwap<Config>>,
    ) -> Arc<Self> {
        let started_ms = clock.now_ms();
        let rows = Rows {
            kept: VecDeque::new(),
            count: 0,
            totals: Totals::of(&metrics, &cache.stats()),
            ended_ms: started_ms,
        };
        let history = Arc::new(Self {
            cache,
            metrics,
            clock,
            running,
            started_ms,
            remedies: Remedies::read(),
            rows: Mutex::new(rows),
            last_purge: Mutex::default(),
        });
        history.cache.purges().listen(&history);
        history
    }

    /// Ends a row each [`ROW`], until this is dropped.
    pub(crate) async fn keep(&self) {
        let mut ticks = tokio::time::interval(ROW);
        // The first one is now.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.end_row();
        }
    }

    /// Ends a row; the oldest one makes room.
    pub(crate) fn end_row(&self) {
        let totals = Totals::of(&self.metrics, &self.cache.stats());
        let now_ms = self.clock.now_ms();
        let mut rows = lock(&self.rows);
        let row = totals.since(&rows.totals);
        rows.kept.push_back((now_ms, row));
        if rows.kept.len() > ROWS_MAX {
            rows.kept.pop_front();
        }
        rows.totals = totals;
        rows.ended_ms = now_ms;
        rows.count += 1;
        let ends_window = rows.count.is_multiple_of(WINDOW_ROWS);
        drop(rows);
        self.metrics.recent().turn(ends_window);
    }

    /// Everything, as `docs/operate/README.md` describes it.
    pub(crate) fn json(&self) -> Value {
        let stats = self.cache.stats();
        let now_ms = self.clock.now_ms();
        let totals = Totals::of(&self.metrics, &stats);
        let recent = self.metrics.recent();
        let names = Names::new(&self.running.load().group_names);
        let mut json = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now_ms": now_ms,
            "started_ms": self.started_ms,
            "health": {
                "status": if stats.healthy { "green" } else { "yellow" },
                "trouble": stats.trouble,
            },
            "size": self.size(&stats),
            "totals": named(&totals.events),
            "has_prices": self.metrics.saved_money().is_some(),
            "latency": self.latency(&totals),
            "rows": self.rows(now_ms, &totals),
            "top": {
                "models": often(recent.models(), |name| name),
                "routes": often(recent.routes(), |name| name),
                "tenants": often(recent.tenants(), |tenant| names.of_tenant(&tenant)),
            },
            "purges": self.purges(),
        });
        let reasons = recent.reasons();
        let of = |kind| reasons.iter().filter(move |it| it.0.0 == kind);
        let told = |kind| -> Value {
            let reason = |(name, times): &((Kind, &'static str), Times)| {
                let (meaning, remedy) = self.remedies.of(name.0, name.1);
                json!({
                    "reason": name.1, "count": times.count, "last_ms": times.last_ms,
                    "meaning": meaning, "remedy": remedy,
                })
            };
            of(kind).map(reason).collect()
        };
        json["bypasses"] = told(Kind::Bypass);
        json["not_kept"] = told(Kind::NotKept);
        json["guest_faults"] = told(Kind::GuestFault);
        let split = |((by, name), times): ((&str, String), Times)| {
            json!({
                "by": by, "name": name, "count": times.count, "last_ms": times.last_ms,
                "remedy": self.remedies.of_split(by, &name),
            })
        };
        json["key_splits"] = recent.splits().into_iter().map(split).collect();
        json
    }

    fn size(&self, stats: &Stats) -> Value {
        let (inflight, inflight_max) = self.metrics.inflight_bytes();
        json!({
            "entries": stats.entries,
            "payload_bytes": stats.payload_bytes,
            "disk_bytes": stats.disk_bytes,
            "disk_bytes_max": self.running.load().cache.disk_bytes_max,
            "inflight_bytes": inflight,
            "inflight_bytes_max": inflight_max,
            "queued_bytes": stats.queued_bytes,
        })
    }

    /// Since the start, in microseconds.
    fn latency(&self, totals: &Totals) -> Value {
        let micros = |seconds: f64| (seconds * 1e6).round();
        let told = |counts: &crate::serve::metrics::Counts| {
            let at = |share| counts.quantile(share).map(micros);
            json!({
                "count": counts.count(),
                "p50_us": at(0.5), "p95_us": at(0.95), "p99_us": at(0.99),
            })
        };
        let tiers = HITS.map(|hit| told(&self.metrics.took(hit)));
        let [memory, disk, fleet, edge, component] = tiers;
        json!({
            "hit": told(&totals.hits), "miss": told(&totals.misses),
            "hit_memory": memory, "hit_disk": disk, "hit_fleet": fleet, "hit_edge": edge,
            "hit_component": component,
        })
    }

    /// Columns, which take less room than rows of names: the rows that ended, then the open one.
    fn rows(&self, now_ms: u64, totals: &Totals) -> Value {
        let rows = lock(&self.rows);
        let open = (now_ms, totals.since(&rows.totals));
        let open_ms = now_ms.saturating_sub(rows.ended_ms);
        let mut columns = Map::new();
        let all = || rows.kept.iter().chain([&open]);
        let ended: Vec<u64> = all().map(|(at, _)| *at).collect();
        columns.insert("ended_ms".into(), json!(ended));
        for (number, name) in COLUMNS.iter().enumerate() {
            let cell = |(_, row): &(u64, Row)| Some(row[number]).filter(|it| *it != NONE);
            let cells: Vec<Option<u64>> = all().map(cell).collect();
            columns.insert((*name).into(), json!(cells));
        }
        json!({
            "row_ms": ROW.as_millis() as u64,
            "rows_max": ROWS_MAX,
            "count": rows.count,
            "open_ms": open_ms,
            "columns": columns,
        })
    }

    fn purges(&self) -> Value {
        let last = *lock(&self.last_purge);
        json!({
            "count": self.metrics.purges(),
            "last_ms": last.map(|last| last.0),
            "last_of": last.map(|last| last.1),
        })
    }
}

impl PurgeListener for History {
    fn purged(&self, what: &Purged) {
        let what = match what {
            Purged::All => "all",
            Purged::Tenant(_) => "tenant",
            Purged::Entry(_) => "entry",
            Purged::Matching => "model or route",
        };
        self.metrics.purged();
        *lock(&self.last_purge) = Some((self.clock.now_ms(), what));
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

fn named(events: &[u64]) -> Value {
    let cells = COLUMNS.iter().zip(events);
    let cells = cells.map(|(name, count)| ((*name).to_owned(), json!(count)));
    Value::Object(cells.collect())
}

fn often<K>(often: Vec<Often<K>>, name: impl Fn(K) -> String) -> Value {
    let one =
        |it: Often<K>| json!({"name": name(it.name), "requests": it.requests, "hits": it.hits});
    often.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests;
