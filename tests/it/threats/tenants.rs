//! What a tenant learns of another one by asking: nothing, because a request costs a call of the provider
//! whether or not others have asked the same. Times follow from that; the calls can be counted.

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;

/// Prompts of which the victim has asked every other one.
const PROMPTS: usize = 24;

fn prompt(number: usize) -> Ask {
    Ask::chat(&format!("Is my diagnosis number {number}?"))
}

/// The victim asks half of the prompts, several times, so that each copy in memory has them too. Then the
/// attacker, as this makes it, asks all of them: each is one call of the provider, and is answered as a miss.
async fn probe(edge: &Edge, upstream: &Upstream, victim: fn(Ask) -> Ask, attacker: fn(Ask) -> Ask) {
    let known = (0..PROMPTS).step_by(2);
    for status in ["MISS", "HIT_L1_EXACT", "HIT_L1_EXACT"] {
        for number in known.clone() {
            let answer = edge.client.fetch(victim(prompt(number))).await;
            assert_eq!((answer.status.as_u16(), answer.reflex()), (200, status));
        }
        edge.recorded(PROMPTS as u32 / 2, 0).await;
    }
    for number in 0..PROMPTS {
        // What is not to be fetched is not told either.
        let look = attacker(prompt(number)).header("cache-control", "only-if-cached");
        let looked = edge.client.fetch(look).await;
        assert_eq!(looked.status, 504, "{number}");
        let before = upstream.call_count();
        let answer = edge.client.fetch(attacker(prompt(number))).await;
        assert_eq!(answer.reflex(), "MISS", "{number}");
        assert_eq!(upstream.call_count(), before + 1, "{number}");
        let names: Vec<&str> = answer.headers.keys().map(|name| name.as_str()).collect();
        assert!(!names.contains(&"age"), "{number}: {names:?}");
    }
}

#[tokio::test]
async fn what_another_tenant_has_asked_costs_a_foreign_tenant_as_much_as_what_it_has_not() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let victim = |ask: Ask| ask.key(Some("victim"));
    probe(&edge, &upstream, victim, |ask| ask.key(Some("attacker"))).await;
}

/// A key that begins as the victim's does, or stands in another header, is another key.
#[tokio::test]
async fn a_credential_that_resembles_anothers_is_another_tenant() {
    let victim = |ask: Ask| ask.key(Some("victim"));
    let attackers: [fn(Ask) -> Ask; 4] = [
        |ask| ask.key(Some("victi")),
        |ask| ask.key(Some("victim2")),
        |ask| ask.key(None).header("x-api-key", "victim"),
        |ask| {
            ask.key(Some("attacker"))
                .header("x-api-key", "Bearer victim")
        },
    ];
    for attacker in attackers {
        let upstream = Upstream::start().await;
        let edge = Edge::before(&upstream).await;
        probe(&edge, &upstream, victim, attacker).await;
    }
}

/// Where the gateway names tenants, the credential that a client brings on top makes no difference, and
/// another name is another tenant.
#[tokio::test]
async fn teams_that_a_gateway_names_learn_nothing_of_each_other() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).config("tenant_header = \"x-team\"\n");
    let edge = plan.start().await;
    let victim = |ask: Ask| ask.header("x-team", "red");
    probe(&edge, &upstream, victim, |ask| ask.header("x-team", "blue")).await;
}
