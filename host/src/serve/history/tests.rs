//! The history over simulated hours.

use super::*;
use crate::cache::CacheOptions;
use crate::exchange::body::budget::Budget;
use crate::exchange::fills::Fills;
use crate::exchange::observer::RecordingObserver as _;
use crate::serve::config::Flags;
use crate::serve::metrics::Answered;
use crate::serve::recent::Subject;
use crate::serve::tenants::short;
use reflex_llm::Tenant;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Props {
    history: Arc<History>,
    running: Arc<ArcSwap<Config>>,
    metrics: Arc<Metrics>,
    cache: Cache,
    now_ms: Arc<AtomicU64>,
}

/// A configuration with these groups.
fn config(groups: &[&str]) -> Config {
    let flags = Flags {
        upstream: Some("http://127.0.0.1:1".into()),
        ..Flags::default()
    };
    let mut config = Config::load(None, flags).expect("a configuration");
    config.group_names = groups.iter().map(ToString::to_string).collect();
    config
}

impl Props {
    fn new() -> Self {
        let cache = Cache::in_memory(&CacheOptions::default());
        let metrics = Arc::new(Metrics::new(
            Vec::new(),
            1 << 30,
            Fills::new(&cache),
            Budget::new(1 << 20),
            Arc::default(),
        ));
        let now_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = Clock::from_fn({
            let now_ms = Arc::clone(&now_ms);
            move || now_ms.load(Relaxed)
        });
        let running = Arc::new(ArcSwap::from_pointee(config(&["team"])));
        Self {
            history: History::new(
                cache.clone(),
                Arc::clone(&metrics),
                clock,
                Arc::clone(&running),
            ),
            running,
            metrics,
            cache,
            now_ms,
        }
    }

    fn row_passes(&self) {
        self.now_ms.fetch_add(ROW.as_millis() as u64, Relaxed);
        self.history.end_row();
    }

    fn column(&self, name: &str) -> Vec<Option<u64>> {
        let json = self.history.json();
        let column = json["rows"]["columns"][name].as_array().expect("a column");
        column.iter().map(Value::as_u64).collect()
    }
}

#[test]
fn an_hour_is_kept_and_no_more() {
    const HOUR_MS: u64 = 3_600_000;
    let props = Props::new();
    for _ in 0..3 * ROWS_MAX {
        props.metrics.miss(Answered::Miss, Duration::from_millis(1));
        props.row_passes();
    }
    let misses = props.column("misses");
    assert_eq!(misses.len(), ROWS_MAX + 1, "and the open row");
    assert!(misses[..ROWS_MAX].iter().all(|count| *count == Some(1)));
    let ended = props.column("ended_ms");
    let (first, last) = (
        ended[0].expect("a time"),
        ended[ROWS_MAX - 1].expect("a time"),
    );
    assert_eq!(last - first + ROW.as_millis() as u64, HOUR_MS);
    let bytes = props.history.json().to_string().len();
    assert!(bytes < 128 << 10, "{bytes} bytes for the page");
}

#[test]
fn a_row_says_what_happened_in_it() {
    let props = Props::new();
    props.metrics.hit(None, Duration::from_micros(40));
    props.row_passes();
    props
        .metrics
        .miss(Answered::Miss, Duration::from_millis(700));
    props.metrics.bypass("store", Duration::from_millis(1));
    // The open row.
    assert_eq!(props.column("hits_component"), [Some(1), Some(0)]);
    assert_eq!(props.column("misses"), [Some(0), Some(1)]);
    assert_eq!(props.column("bypasses"), [Some(0), Some(1)]);
    let hits = props.column("hit_p50_us");
    assert!(
        hits[0].is_some_and(|us| us <= 50) && hits[1].is_none(),
        "{hits:?}"
    );
    assert_eq!(props.history.json()["bypasses"][0]["reason"], "store");
}

#[test]
fn tenants_are_groups_of_the_last_reload_or_short_hashes_and_purges_are_told() {
    let props = Props::new();
    let [team, later] = ["team", "later"].map(Tenant::of_group);
    for tenant in [team.0, later.0, [2; 32]] {
        props.metrics.recent().asked(&Subject {
            tenant: Some(&tenant),
            ..Subject::default()
        });
    }
    let names = || {
        let json = props.history.json();
        let tenants = json["top"]["tenants"].as_array().expect("tenants");
        let names = tenants.iter().map(|it| it["name"].as_str());
        let mut names: Vec<String> = names.map(|it| it.expect("a name").into()).collect();
        names.sort();
        names
    };
    let sorted = |mut names: [String; 3]| {
        names.sort();
        names
    };
    let short_hash = "020202020202".to_owned();
    let at_start = [short_hash.clone(), "team".into(), short(&later.0)];
    assert_eq!(names(), sorted(at_start));
    props.running.store(Arc::new(config(&["later"])));
    let reloaded = [short_hash, short(&team.0), "later".into()];
    assert_eq!(names(), sorted(reloaded));
    let json = props.history.json();
    assert_eq!(json["purges"]["last_ms"], Value::Null);

    props.cache.purge_all().expect("a purge");
    let json = props.history.json();
    assert_eq!(json["purges"]["count"], 1);
    assert_eq!(json["purges"]["last_of"], "all");
    assert_eq!(json["purges"]["last_ms"], 1_000_000);
}

#[test]
fn names_of_clients_stay_data() {
    let props = Props::new();
    let model = "</script><script>alert(1)</script>\u{0}\"";
    props.metrics.recent().asked(&Subject {
        model: Some(model),
        ..Subject::default()
    });
    props.metrics.guest_failed("trap");
    let json = props.history.json();
    assert_eq!(json["top"]["models"][0]["name"], model);
    assert_eq!(json["guest_faults"][0]["reason"], "trap");
    let again: Value = serde_json::from_str(&json.to_string()).expect("JSON");
    assert_eq!(again, json);
}
