//! An engine that freezes, dies or has no room: no request fails, and each is answered right.

use super::{Fleet, HIT, looked, shared};
use reflex_tests::client::Ask;
use reflex_tests::within;

#[tokio::test]
async fn a_frozen_engine_is_left_alone_until_it_answers_again() {
    let short = "fleet_prefix = \"frozen\"\n";
    let Some(fleet) = Fleet::with(2, short).await else {
        return;
    };
    fleet.share(0, "before").await;
    fleet.engine().freeze();
    // Each waits for at most `fleet_wait_max`, and five in a row open the breaker.
    let asks = (0..8).map(|number| {
        let ask = Ask::chat(&format!("frozen {number}"));
        let client = fleet.edges[1].client.clone();
        tokio::spawn(async move { client.fetch(ask).await })
    });
    for ask in asks.collect::<Vec<_>>() {
        let answer = ask.await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.reflex()), (200, "MISS"));
    }
    fleet.edges[1]
        .until("an open breaker", |metrics| {
            metrics.sum("reflex_fleet_open", &[]) > 0.5
        })
        .await;
    let waited = looked(&fleet.edges[1].metrics().await, "late");
    for number in 0..20 {
        let answer = fleet.ask(1, &format!("open {number}")).await;
        assert_eq!(answer.reflex(), "MISS");
    }
    let metrics = fleet.edges[1].metrics().await;
    assert!(looked(&metrics, "open") >= 20.0);
    assert!((looked(&metrics, "late") - waited).abs() < 0.5);
    fleet.engine().thaw();
    fleet.edges[1]
        .until("a closed breaker", |metrics| {
            metrics.sum("reflex_fleet_open", &[]) < 0.5
        })
        .await;
    // On a new connection, the purges are asked for first.
    fleet.until_looked(1, "before", 200).await;
    assert_eq!(fleet.ask(1, "before").await.reflex(), HIT);
    let told = |line: &str| fleet.edges[1].log().matches(line).count();
    assert_eq!(told("does not answer in time: lookups go on"), 1);
    assert_eq!(told("answers in time again"), 1);
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_there_for_the_next_request() {
    let short = "fleet_wait_max = \"20ms\"\n";
    let Some(fleet) = Fleet::with(2, short).await else {
        return;
    };
    fleet.share(0, "late").await;
    let edge = &fleet.edges[1];
    within("an answer that comes late", async {
        // On a busy machine, more than the second may pass for which the daemon listens.
        loop {
            fleet.engine().freeze();
            assert_eq!(fleet.look(1, "late").await, 504);
            fleet.engine().thaw();
            edge.until("an engine that is asked again", |metrics| {
                let is = |name| metrics.sum(name, &[]) > 0.5;
                is("reflex_fleet_connected") && !is("reflex_fleet_open")
            })
            .await;
            // Replies come in the order of the requests.
            fleet.look(1, "absent").await;
            if edge
                .metrics()
                .await
                .sum("reflex_fleet_late_fills_total", &[])
                > 0.5
            {
                return;
            }
        }
    })
    .await;
    fleet.engine().freeze();
    assert_eq!(fleet.ask(1, "late").await.reflex(), HIT);
    fleet.engine().thaw();
}

#[tokio::test]
async fn an_engine_that_dies_and_comes_back_fails_no_request() {
    let Some(mut fleet) = Fleet::of(2).await else {
        return;
    };
    let mut engine = fleet.engine.take().expect("an engine");
    fleet
        .under_load(async {
            for _ in 0..2 {
                engine.kill();
                fleet.edges[0]
                    .until("a lost connection", |metrics| {
                        metrics.sum("reflex_fleet_connected", &[]) < 0.5
                    })
                    .await;
                engine.start_again().await;
                fleet.until_well().await;
            }
        })
        .await;
}

#[tokio::test]
async fn an_engine_without_room_costs_nothing_but_its_hits() {
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    let mut full = redis::cmd("CONFIG");
    full.arg("SET").arg("maxmemory").arg("1");
    fleet.engine().say::<()>(&full);
    assert_eq!(fleet.ask(0, "no room").await.reflex(), "MISS");
    fleet.edges[0]
        .until("an answer that was not taken", |metrics| {
            shared(metrics, "failed") > 0.5
        })
        .await;
    assert_eq!(fleet.ask(1, "no room").await.reflex(), "MISS");
    assert_eq!(fleet.ask(0, "no room").await.reflex(), HIT);
}

#[tokio::test]
async fn without_news_for_too_long_entries_from_before_are_misses() {
    let short = "fleet_unheard_max = \"1s\"\n";
    let Some(fleet) = Fleet::with(1, short).await else {
        return;
    };
    fleet.share(0, "old").await;
    assert_eq!(fleet.ask(0, "old").await.reflex(), HIT);
    fleet.engine().freeze();
    fleet.until_looked(0, "old", 504).await;
    // What is fetched meanwhile is a hit for a while.
    assert_eq!(fleet.ask(0, "new").await.reflex(), "MISS");
    assert_eq!(fleet.ask(0, "new").await.reflex(), HIT);
    fleet.engine().thaw();
    // They were there all the time, and nothing was purged.
    fleet.until_looked(0, "old", 200).await;
}
