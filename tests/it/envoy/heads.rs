//! A hit through Envoy has the headers of its miss: the table is `same_head`'s.

use super::{cold_line, line, patient, stored};
use crate::same_head::{self, Heads};
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::Plan;

/// Envoy says these itself, and may put the values of one name on one line.
fn heads(mut heads: Heads) -> Vec<(String, String)> {
    for own in ["server", "x-envoy-upstream-service-time"] {
        heads.remove(own);
    }
    let joined = |values: Vec<String>| values.join(",").replace(", ", ",");
    let all = heads.into_iter();
    all.map(|(name, values)| (name, joined(values))).collect()
}

#[track_caller]
fn check(answer: &Answer, is_hit: bool) {
    let expected = same_head::expected(|sees| !is_hit || sees.hit);
    assert_eq!(heads(same_head::heads(answer)), heads(expected));
}

#[tokio::test]
async fn a_hit_has_the_head_of_its_miss_but_for_what_belongs_to_its_exchange() {
    let upstream = same_head::upstream().await;
    let daemon = Plan::daemon().start().await;
    for (puts, hot_bytes_max) in [(1, 64 << 20), (2, 0)] {
        let plan = patient(&upstream, &daemon);
        let envoy = plan.plugin("hot_bytes_max", hot_bytes_max).start().await;
        let ask =
            || Ask::chat(&format!("{hot_bytes_max}")).header("origin", "https://page.example");
        let miss = envoy.client.fetch(ask()).await;
        check(&miss, false);
        stored(&daemon, puts).await;
        let hit = envoy.client.fetch(ask()).await;
        assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &miss.body));
        check(&hit, true);
    }
}

#[tokio::test]
async fn the_providers_cache_status_stays_in_front_of_ours() {
    let (upstream, _daemon, envoy) = line().await;
    upstream.also_send(&[
        ("cache-status", "cdn; fwd=miss"),
        ("cache-status", "shield; hit"),
    ]);
    let theirs = "cdn; fwd=miss, shield; hit, ";
    for (ask, own) in [
        (Ask::chat("whose?"), "reflex; fwd=miss"),
        (
            Ask::get("/v1/models"),
            "reflex; fwd=bypass; detail=\"path\"",
        ),
    ] {
        let answer = envoy.client.fetch(ask).await;
        let lines = answer.headers.get_all("cache-status").iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().expect("text")).collect();
        assert_eq!(lines, [format!("{theirs}{own}")]);
    }
    let hit = envoy.client.fetch(Ask::chat("whose?")).await;
    assert!(hit.header("cache-status").starts_with("reflex; hit; ttl="));
}

#[tokio::test]
async fn an_error_of_ours_is_readable_by_the_page_that_asked() {
    let (_upstream, _daemon, envoy) = cold_line().await;
    let ask = Ask::chat("not here")
        .header("origin", "https://page.example")
        .header("cache-control", "only-if-cached");
    let absent = envoy.client.fetch(ask).await;
    assert_eq!(absent.status, 504);
    assert_eq!(absent.header("access-control-allow-origin"), "*");
    assert_eq!(absent.json()["error"]["code"], "504");
}
