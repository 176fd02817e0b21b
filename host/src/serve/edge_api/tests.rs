//! Writes to a disk that hangs.

use super::*;
use crate::cache::tests::Durable;
use crate::serve::config::Flags;

fn api(cache: &Cache) -> Arc<EdgeApi> {
    let flags = Flags {
        edge_socket: Some("unused".into()),
        ..Flags::default()
    };
    let config = Config::load(None, flags).expect("valid");
    let fills = Fills::new(cache);
    let budget = Budget::new(config.inflight_bytes_max);
    let metrics = Metrics::new(
        Vec::new(),
        config.cache.disk_bytes_max,
        Arc::clone(&fills),
        Arc::clone(&budget),
        Arc::default(),
    );
    let token = AdminToken::prepare(None, std::path::Path::new("unused")).expect("for later");
    let metrics = Arc::new(metrics);
    EdgeApi::new(cache.clone(), fills, budget, &config, metrics, token)
}

/// The daemon has a few threads for all clients and edges.
#[test]
fn edges_that_write_to_a_disk_that_hangs_hold_up_nothing() {
    let durable = Durable::open();
    let api = api(&durable.cache);
    let answer = async |method: Method, path: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body)).expect("a request");
        let answered = answer(State(Arc::clone(&api)), request).await;
        let response = answered.unwrap_or_else(|refusal| refusal.into_response());
        response.status().as_u16()
    };
    let path = format!("/v1/entries/{0}/{0}", "a".repeat(64));
    let put = answer(Method::PUT, &path, "{}");
    assert_eq!(durable.holds_up_nothing(put), 201);
    let delete = answer(Method::DELETE, &path, "");
    assert_eq!(durable.holds_up_nothing(delete), 204);
    let again = answer(Method::DELETE, &path, "");
    assert_eq!(durable.holds_up_nothing(again), 404);
}
