//! Connections of clients, operators and edges: each state has a bound, and no client's connections
//! keep another one out.

mod bounds;
mod half_closed;
mod heads;
mod places;
mod stop;

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::raw_client::{HTTP2_PREFACE, RawClient, frame, http1, http2};
use reflex_tests::upstream::Upstream;

/// An edge with this configuration, the edge API, and a provider.
async fn edge(upstream: &Upstream, config: &str) -> Edge {
    let plan = Plan::new(&upstream.url()).edge_socket(true);
    plan.config(config).start().await
}

/// A connection to each of the three listeners.
async fn each(edge: &Edge) -> [(&'static str, RawClient); 3] {
    [
        ("clients", RawClient::connect(&edge.url).await),
        ("operators", RawClient::connect(&edge.admin_url).await),
        ("edges", RawClient::connect_unix(&edge.socket()).await),
    ]
}

/// Lets at least `header_read_seconds_max` pass: the time that a silent connection has.
async fn a_while(edge: &Edge) {
    let silent = RawClient::connect(&edge.url).await.rest().await;
    assert!(silent.is_empty());
}
