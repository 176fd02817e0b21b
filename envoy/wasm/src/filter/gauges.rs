//! Figures that go up and down, for all configurations of the module together.

use std::cell::{Cell, RefCell};

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use reflex_envoy_core::module::Module;

thread_local! {
    static GAUGES: RefCell<Option<Gauges>> = const { RefCell::new(None) };
}

/// Envoy's numbers of them.
pub(super) struct Gauges {
    breaker_open: Gauge,
    hot_bytes: Gauge,
    unread_bytes: Gauge,
}

impl Gauges {
    /// Makes them known to Envoy, once.
    pub(super) fn define() {
        GAUGES.with_borrow_mut(|gauges| {
            gauges.get_or_insert_with(|| Self {
                breaker_open: Gauge::define("reflex_breaker_open"),
                hot_bytes: Gauge::define("reflex_hot_bytes"),
                unread_bytes: Gauge::define("reflex_unread_bytes"),
            });
        });
    }

    /// Tells how the module is.
    pub(super) fn tell(module: &Module) {
        GAUGES.with_borrow(|gauges| {
            if let Some(gauges) = gauges {
                let is_open = module.has_open_breaker();
                gauges.breaker_open.tell(u64::from(is_open));
                gauges.hot_bytes.tell(module.hot.borrow().bytes() as u64);
                let unread = module.unread.borrow();
                gauges.unread_bytes.tell(unread.bytes() as u64);
            }
        });
    }
}

/// All modules share it, so each tells only its own changes.
struct Gauge {
    metric: Option<u32>,
    told: Cell<u64>,
}

impl Gauge {
    fn define(name: &str) -> Self {
        Self {
            metric: hostcalls::define_metric(MetricType::Gauge, name).ok(),
            told: Cell::new(0),
        }
    }

    fn tell(&self, value: u64) {
        let change = value as i64 - self.told.replace(value) as i64;
        if let Some(metric) = self.metric
            && change != 0
        {
            // The filter works without a statistic that Envoy refuses.
            let _ = hostcalls::increment_metric(metric, change);
        }
    }
}
