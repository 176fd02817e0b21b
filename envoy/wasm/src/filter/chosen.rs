//! The route that Envoy has chosen for a request.
//!
//! Five properties name it. Each would be a call of Envoy, and each answer a call back for memory, so
//! one expression asks for all of them, which Envoy has compiled before. An Envoy that knows no
//! expressions is asked for one after the other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proxy_wasm::hostcalls;

use reflex_envoy_core::pairs;
use reflex_envoy_core::routes::Route;

/// What names a route: cluster, virtual host, name, filter chain, and the listener's port, as Envoy
/// writes a number. Envoy does not tell the listener's name.
type Values<'v> = [&'v [u8]; 5];

/// In the order of [`Values`].
const ROUTE: &str = "[xds.cluster_name, xds.virtual_host_name, xds.route_name, \
                     xds.filter_chain_name, destination.port]";

/// The same, and who has answered.
const ANSWERED: &str = "[xds.cluster_name, xds.virtual_host_name, xds.route_name, \
                        xds.filter_chain_name, destination.port, response.code_details]";

/// Of an answer of the provider. Envoy and other filters answer too.
const PROVIDERS: &[u8] = b"via_upstream";

/// Routes that are remembered: most listeners have fewer. More cost an allocation for each request.
const RECENT_MAX: usize = 16;

/// So many failures in a row, and no expression is tried again: a listener without a port has none of
/// its values. A request without a route fails, too, but not all do.
const FAILURES_MAX: u32 = 64;

/// Reads routes.
pub(super) struct Chosen {
    /// Envoy's numbers of the expressions; none if it takes none.
    route: Option<[u8; 4]>,
    answered: Option<[u8; 4]>,
    failures: Cell<u32>,
    /// The last one first.
    recent: RefCell<Vec<Recent>>,
}

struct Recent {
    values: [Vec<u8>; 5],
    route: Rc<Route>,
}

impl Chosen {
    /// For the configuration that Envoy is calling for.
    pub(super) fn new() -> Self {
        let create = |expression: &str| {
            let made = hostcalls::call_foreign_function("expr_create", Some(expression.as_bytes()));
            made.ok().flatten()?.try_into().ok()
        };
        Self {
            route: create(ROUTE),
            answered: create(ANSWERED),
            failures: Cell::new(0),
            recent: RefCell::default(),
        }
    }

    /// The route of the request that Envoy is calling for. It stays what it was where a filter in front
    /// has had the choice made anew, until Envoy does so.
    pub(super) fn route(&self) -> Rc<Route> {
        if let Some(list) = self.evaluate(self.route.as_ref())
            && let Some(values) = pairs::values(&list)
            && let Ok(values) = values.try_into()
        {
            self.failures.set(0);
            return self.named(values);
        }
        let [cluster, host, name, chain] = [
            "cluster_name",
            "virtual_host_name",
            "route_name",
            "filter_chain_name",
        ]
        .map(|what| property(["xds", what]));
        let port = property(["destination", "port"]);
        self.named([&cluster, &host, &name, &chain, &port])
    }

    /// The route by which the answer has come that Envoy is calling for, and whether it is the
    /// provider's.
    pub(super) fn answered(&self) -> (Rc<Route>, bool) {
        if let Some(list) = self.evaluate(self.answered.as_ref())
            && let Some(values) = pairs::values(&list)
            && let Some((who, values)) = values.split_last()
            && let Ok(values) = values.try_into()
        {
            self.failures.set(0);
            return (self.named(values), *who == PROVIDERS);
        }
        (self.route(), self.is_providers())
    }

    /// Whether the answer that Envoy is calling for is the provider's. At its end Envoy may say why it
    /// has ended instead.
    pub(super) fn is_providers(&self) -> bool {
        property(["response", "code_details"]) == PROVIDERS
    }

    fn evaluate(&self, expression: Option<&[u8; 4]>) -> Option<Vec<u8>> {
        let expression = expression.filter(|_| self.failures.get() < FAILURES_MAX)?;
        // Taken back if it succeeds.
        self.failures.set(self.failures.get() + 1);
        let value = hostcalls::call_foreign_function("expr_evaluate", Some(expression));
        value.ok().flatten()
    }

    fn named(&self, values: Values<'_>) -> Rc<Route> {
        let mut recent = self.recent.borrow_mut();
        let is_it = |it: &Recent| it.values.iter().eq(values);
        match recent.iter().position(is_it) {
            Some(at) => recent.swap(0, at),
            None => {
                recent.truncate(RECENT_MAX - 1);
                let route = Rc::new(route(values));
                let values = values.map(<[u8]>::to_vec);
                recent.insert(0, Recent { values, route });
            }
        }
        Rc::clone(&recent[0].route)
    }
}

fn route([cluster, virtual_host, name, chain, port]: Values<'_>) -> Route {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap_or_default();
    let port = port.try_into().map_or(0, i64::from_le_bytes);
    Route {
        cluster: text(cluster),
        listener: format!("{port} {}", text(chain)),
        virtual_host: text(virtual_host),
        name: text(name),
    }
}

fn property(path: [&str; 2]) -> Vec<u8> {
    let value = hostcalls::get_property(path.to_vec());
    value.ok().flatten().unwrap_or_default()
}
