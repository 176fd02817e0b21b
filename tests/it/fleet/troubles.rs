//! An engine that freezes, dies or has no room: no request fails, and each is answered right.

use super::{Fleet, HIT, looked, shared};
use reflex_tests::client::Ask;
use std::time::Duration;

#[tokio::test]
async fn a_frozen_engine_is_left_alone_until_it_answers_again() {
    let short = "fleet_prefix = \"frozen\"\n";
    let Some(fleet) = Fleet::with(2, short).await else {
        return;
    };
    fleet.share(0, "before").await;
    fleet.engine.freeze();
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
    fleet.engine.thaw();
    fleet.edges[1]
        .until("a closed breaker", |metrics| {
            metrics.sum("reflex_fleet_open", &[]) < 0.5
        })
        .await;
    assert_eq!(fleet.ask(1, "before").await.reflex(), HIT);
    let told = |line: &str| fleet.edges[1].log().matches(line).count();
    assert_eq!(told("does not answer in time: lookups go on"), 1);
    assert_eq!(told("answers in time again"), 1);
}

#[tokio::test]
async fn an_engine_that_dies_and_comes_back_fails_no_request() {
    let Some(mut fleet) = Fleet::of(2).await else {
        return;
    };
    let client = fleet.edges[0].client.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let load = tokio::spawn(async move {
        let mut count = 0_u32;
        while stopped.try_recv().is_err() {
            let answer = client.fetch(Ask::chat(&format!("load {count}"))).await;
            assert_eq!(answer.status, 200);
            count += 1;
        }
        count
    });
    for _ in 0..2 {
        fleet.engine.kill();
        fleet.edges[0]
            .until("a lost connection", |metrics| {
                metrics.sum("reflex_fleet_connected", &[]) < 0.5
            })
            .await;
        fleet.engine.start_again().await;
        let before = shared(&fleet.edges[0].metrics().await, "stored");
        fleet.edges[0]
            .until("answers that are shared again", |metrics| {
                shared(metrics, "stored") > before
            })
            .await;
    }
    stop.send(()).expect("a running load");
    assert!(load.await.expect("no request has failed") > 0);
}

#[tokio::test]
async fn an_engine_without_room_costs_nothing_but_its_hits() {
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    let mut full = redis::cmd("CONFIG");
    full.arg("SET").arg("maxmemory").arg("1");
    fleet.engine.say::<()>(&full);
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
    fleet.engine.freeze();
    let look = || Ask::chat("old").header("cache-control", "only-if-cached");
    reflex_tests::within("a miss", async {
        while fleet.edges[0].client.fetch(look()).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // What is fetched meanwhile is a hit for a while.
    assert_eq!(fleet.ask(0, "new").await.reflex(), "MISS");
    assert_eq!(fleet.ask(0, "new").await.reflex(), HIT);
    fleet.engine.thaw();
    // They were there all the time, and nothing was purged.
    reflex_tests::within("a hit", async {
        while fleet.edges[0].client.fetch(look()).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
