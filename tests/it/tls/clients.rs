//! Certificates of clients: who may connect, and whose answers they get.

use super::*;
use reflex_tests::authority::SERVER;

/// The lines for clients' certificates of this authority, which name tenants.
fn tenants(authority: &Authority) -> String {
    let ca = authority.ca();
    format!("tenant_from = \"client-certificate\"\ntls_client_ca = {ca:?}\n")
}

#[tokio::test]
async fn only_a_good_certificate_of_the_named_ca_connects() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let foreign = Authority::new().expect("as above");
    let upstream = Upstream::start().await;
    let config = format!("tls_client_ca = {:?}", authority.ca());
    let edge = edge(&authority, &upstream, &config).await;
    let url = format!("{}/v1/models", edge.url);
    let shows = async |own: Option<&Pair>| {
        let files = own.map(|own| [&own.cert, &own.key].map(|it| it.to_str().expect("text")));
        let (mut curls, mut opens) = (vec!["--fail"], vec!["-tls1_2"]);
        if let Some([cert, key]) = files {
            curls.extend(["--cert", cert, "--key", key]);
            opens.extend(["-cert", cert, "-key", key]);
        }
        let curl = curl(&url, &authority.ca(), &curls).await;
        // Over TLS 1.3, a client learns of the refusal only when it reads.
        let openssl = s_client(&edge.url, &authority.ca(), &opens).await;
        assert_eq!(
            curl.code == Some(0),
            openssl.code == Some(0),
            "{curl:?} {openssl:?}"
        );
        curl.code == Some(0)
    };
    assert!(shows(Some(&authority.sign("/CN=a", ""))).await);
    let named_by_no_name = authority.sign("/O=tests", "");
    assert!(shows(Some(&named_by_no_name)).await, "no name is needed");
    assert!(!shows(None).await);
    assert!(!shows(Some(&authority.sign_expired("/CN=a", ""))).await);
    assert!(!shows(Some(&foreign.sign("/CN=a", SERVER))).await);
    assert_eq!(upstream.call_count(), 2);
    let refused = [("side", "clients"), ("outcome", "refused")];
    let metrics = edge.metrics().await;
    assert!(metrics.sum("reflex_tls_handshakes_total", &refused) >= 6.0);
    assert!(
        !edge.log().contains("ERROR") && !edge.log().contains("WARN"),
        "{}",
        edge.log()
    );
}

#[tokio::test]
async fn each_certificate_has_answers_of_its_own_and_a_name_may_have_several() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, &tenants(&authority)).await;
    let ask = async |own: &Pair, key: &str, protocol| {
        let config = trusting(Some(&authority.ca()), Some(own), &[protocol]);
        let client = Client::tls(&edge.url, config);
        let answer = client.fetch(Ask::chat("whose?").key(Some(key))).await;
        assert_eq!(answer.status, 200);
        answer.reflex().to_owned()
    };
    let (red, blue) = (
        authority.sign("/CN=red", ""),
        authority.sign("/CN=blue", ""),
    );
    assert_eq!(ask(&red, "one", "h2").await, "MISS");
    edge.recorded(1, 0).await;
    assert_eq!(ask(&red, "one", "http/1.1").await, "HIT_L1_EXACT");
    // The certificate is in place of the credential, so that a team may change its keys.
    assert_eq!(ask(&red, "two", "h2").await, "HIT_L1_EXACT");
    assert_eq!(ask(&blue, "one", "h2").await, "MISS");
    edge.recorded(2, 0).await;
    let renewed = authority.sign("/CN=blue", "");
    assert_eq!(ask(&renewed, "one", "h2").await, "HIT_L1_EXACT");
    // Of another kind, the same text is another name.
    let posing = authority.sign("/CN=cn:red", "DNS:red");
    assert_eq!(ask(&posing, "one", "h2").await, "MISS");
}

/// Groups have the names as they are written: that shows which of them counts.
#[tokio::test]
async fn the_name_is_a_uri_else_a_dns_name_else_the_common_name() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let config = tenants(&authority)
        + "[[group]]\nname = \"all\"\n\
           trusted = [\"uri:spiffe://cluster/team\", \"dns:team.internal\", \"cn:Team Ö\"]\n";
    let edge = edge(&authority, &upstream, &config).await;
    let certificates = [
        ("/CN=x", "DNS:x,URI:spiffe://cluster/team,URI:spiffe://x"),
        ("/CN=x", "IP:127.0.0.1,DNS:Team.Internal,DNS:x"),
        ("/CN=Team Ö", "IP:127.0.0.1"),
        ("/CN=Team Ö", ""),
    ];
    for (turn, (subject, names)) in certificates.into_iter().enumerate() {
        let own = authority.sign(subject, names);
        let answer = client(&edge, &authority, Some(&own))
            .fetch(Ask::chat("who?"))
            .await;
        let expected = if turn == 0 { "MISS" } else { "HIT_L1_EXACT" };
        assert_eq!(answer.reflex(), expected, "{subject} {names}");
        edge.recorded(1, 0).await;
    }
    let nameless = authority.sign("/O=tests", "IP:127.0.0.1");
    let refused = client(&edge, &authority, Some(&nameless))
        .try_send(Ask::chat("who?"))
        .await;
    refused.expect_err("a certificate without a name");
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn a_client_cannot_name_itself_and_the_provider_learns_no_name() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, &tenants(&authority)).await;
    const NAME: &str = "x-reflex-client-certificate";
    let [red, blue] = ["/CN=red", "/CN=blue"].map(|subject| authority.sign(subject, ""));
    let first = client(&edge, &authority, Some(&red))
        .fetch(Ask::chat("mine"))
        .await;
    assert_eq!(first.reflex(), "MISS");
    edge.recorded(1, 0).await;
    for posing in [
        Ask::chat("mine").header(NAME, "cn:red"),
        Ask::chat("mine").header("connection", NAME),
        Ask::chat("mine")
            .header(NAME, "cn:red")
            .header(NAME, "cn:red"),
    ] {
        let answer = client(&edge, &authority, Some(&blue)).fetch(posing).await;
        assert_ne!(answer.body, first.body);
    }
    client(&edge, &authority, Some(&blue))
        .fetch(Ask::get("/v1/models"))
        .await;
    for call in upstream.calls() {
        assert_eq!(call.header(NAME), "");
    }
    assert!(!edge.log().contains("red"), "{}", edge.log());
}
