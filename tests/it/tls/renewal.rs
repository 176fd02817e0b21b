//! Certificates that change while the daemon runs.

use super::*;
use reflex_tests::authority::{put, replace};
use reflex_tests::metrics::Metrics;
use tokio::task::JoinSet;

fn reloads(metrics: &Metrics, outcome: &str) -> u64 {
    let labels = [("side", "clients"), ("outcome", outcome)];
    metrics.sum("reflex_tls_reloads_total", &labels) as u64
}

/// The certificate that the daemon shows.
async fn shown(edge: &Edge, authority: &Authority) -> Vec<u8> {
    let config = trusting(Some(&authority.ca()), None, &[]);
    let stream = tls::connect(&edge.url, config).await.expect("a handshake");
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.expect("a certificate")[0].to_vec()
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_no_request_fails() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let place = authority.sign_server();
    let plan = Plan::new(&upstream.url()).tls(&place, &authority.ca());
    let edge = plan.start().await;
    let before = shown(&edge, &authority).await;
    edge.client.fetch(Ask::chat("all the time")).await;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = JoinSet::new();
    for turn in 0..4 {
        let config = trusting(Some(&authority.ca()), None, &[]);
        let client = match turn % 2 {
            0 => Client::tls(&edge.url, config),
            _ => Client::without_keep_alive(&edge.url, config),
        };
        let stopped = stopped.clone();
        clients.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                let answer = client.fetch(Ask::chat("all the time")).await;
                assert_eq!(answer.status, 200);
                count += 1;
            }
            count
        });
    }
    for turn in 1..=2 {
        replace(&place, &authority.sign_server());
        let what = "the renewed certificate in use";
        edge.until(what, |metrics| reloads(metrics, "applied") == turn)
            .await;
    }
    stop.send(true).expect("clients");
    for count in clients.join_all().await {
        assert!(count > 0);
    }
    assert_ne!(shown(&edge, &authority).await, before);
    assert!(!edge.log().contains("ERROR"), "{}", edge.log());
}

#[tokio::test]
async fn a_broken_pair_keeps_the_earlier_one_and_is_told_once() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let place = authority.sign_server();
    let plan = Plan::new(&upstream.url()).tls(&place, &authority.ca());
    let edge = plan.start().await;
    let before = shown(&edge, &authority).await;
    let other = authority.sign_server();
    put(&other.cert, &place.cert);
    let refused = |metrics: &Metrics| reloads(metrics, "refused") == 1;
    edge.until("a refused certificate", refused).await;
    assert_eq!(shown(&edge, &authority).await, before);
    // A reload is refused as a whole, and says why.
    edge.hang_up("refused").await;
    assert_eq!(shown(&edge, &authority).await, before);
    let told = |text: &str| edge.log().matches(text).count();
    assert_eq!(
        told("the changed certificate is not used"),
        1,
        "{}",
        edge.log()
    );
    assert_eq!(
        told("reload refused, nothing has changed: tls_key"),
        1,
        "{}",
        edge.log()
    );

    put(&other.key, &place.key);
    let applied = |metrics: &Metrics| reloads(metrics, "applied") == 1;
    edge.until("the whole pair in use", applied).await;
    assert_ne!(shown(&edge, &authority).await, before);
    assert_eq!(reloads(&edge.metrics().await, "refused"), 2, "one by each");
}

#[tokio::test]
async fn a_reload_reads_the_files_at_once() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let place = authority.sign_server();
    let plan = Plan::new(&upstream.url()).tls(&place, &authority.ca());
    let edge = plan.start().await;
    let before = shown(&edge, &authority).await;
    replace(&place, &authority.sign_server());
    edge.hang_up("applied").await;
    assert_ne!(shown(&edge, &authority).await, before);
}

/// Connections that are there keep what they agreed on; new ones need a certificate of the new CA.
#[tokio::test]
async fn another_ca_of_clients_counts_for_new_connections() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let other = Authority::new().expect("as above");
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("clients.pem");
    put(&authority.ca(), &ca);
    let edge = edge(&authority, &upstream, &format!("tls_client_ca = {ca:?}")).await;
    let [earlier, later] = [&authority, &other].map(|signs| signs.sign("/CN=a", ""));
    let ask = async |own: &Pair| {
        let client = client(&edge, &authority, Some(own));
        client.try_send(Ask::chat("hello")).await.is_ok()
    };
    assert!(ask(&earlier).await && !ask(&later).await);
    put(&other.ca(), &ca);
    edge.hang_up("applied").await;
    assert!(!ask(&earlier).await && ask(&later).await);
}
