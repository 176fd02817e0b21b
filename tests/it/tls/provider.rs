//! TLS towards the provider: a CA of the operator's, and the daemon's own certificate.

use super::*;
use reflex_tests::authority::replace;
use reflex_tests::forward::Forward;
use reflex_tests::metrics::Metrics;
use reflex_tests::tls::CA;

/// The lines for the daemon's own certificate.
fn own(pair: &Pair) -> String {
    let Pair { cert, key } = pair;
    format!("upstream_ca = {CA:?}\nupstream_cert = {cert:?}\nupstream_key = {key:?}\n")
}

async fn status(edge: &Edge, prompt: &str) -> u16 {
    edge.client.fetch(Ask::chat(prompt)).await.status.as_u16()
}

#[tokio::test]
async fn a_ca_of_the_operators_is_trusted_beside_the_systems() {
    let upstream = Upstream::start().await;
    let front = tls::in_front_of(upstream.address(), &["h2", "http/1.1"]).await;
    let url = format!("https://localhost:{}", front.address().port());
    let edge = Plan::new(&url).start().await;
    assert_eq!(status(&edge, "untrusted").await, 502);
    let plan = Plan::new(&url).config(&format!("upstream_ca = {CA:?}"));
    let edge = plan.start().await;
    assert_eq!(status(&edge, "trusted").await, 200);
    assert_eq!(upstream.call_count(), 1);
}

/// With HTTP/2, with HTTP/1.1, and through a proxy.
#[tokio::test]
async fn a_provider_that_asks_for_a_certificate_gets_the_daemons() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let pair = authority.sign("/CN=edge", "");
    for protocol in ["h2", "http/1.1"] {
        let acceptor = tls::acceptor_for(&authority.ca(), &[protocol]);
        let front = tls::accepting(upstream.address(), acceptor).await;
        let url = format!("https://localhost:{}", front.address().port());
        let plan = Plan::new(&url).config(&format!("upstream_ca = {CA:?}"));
        assert_eq!(status(&plan.start().await, "without").await, 502);
        let edge = Plan::new(&url).config(&own(&pair)).start().await;
        assert_eq!(status(&edge, protocol).await, 200);

        let proxy = Forward::http(front.address()).await;
        let named = format!("http://{}", proxy.address());
        let plan = Plan::new("https://provider.test").environment("HTTPS_PROXY", &named);
        let edge = plan.config(&own(&pair)).start().await;
        assert_eq!(status(&edge, "through a proxy").await, 200);
        assert_eq!(proxy.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_renewed_certificate_of_the_daemons_is_used_without_a_reload() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let acceptor = tls::acceptor_for(&authority.ca(), &["http/1.1"]);
    let front = tls::accepting(upstream.address(), acceptor).await;
    let url = format!("https://localhost:{}", front.address().port());
    let place = authority.sign_expired("/CN=edge", "");
    let edge = Plan::new(&url).config(&own(&place)).start().await;
    assert_eq!(status(&edge, "expired").await, 502);
    assert!(
        edge.log().contains("the certificate has expired"),
        "{}",
        edge.log()
    );
    replace(&place, &authority.sign("/CN=edge", ""));
    let labels = [("side", "provider"), ("outcome", "applied")];
    let applied = |metrics: &Metrics| metrics.sum("reflex_tls_reloads_total", &labels) > 0.5;
    edge.until("the renewed certificate in use", applied).await;
    assert_eq!(status(&edge, "renewed").await, 200);

    // At a reload as well, and then at once.
    let expired = authority.sign_expired("/CN=edge", "");
    replace(&place, &expired);
    edge.hang_up("applied").await;
    assert_eq!(status(&edge, "expired again").await, 502);
    // Hits go on.
    assert_eq!(status(&edge, "renewed").await, 200);
}
