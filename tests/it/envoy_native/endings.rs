//! Envoy is told to end in the midst of its work.

use super::{check_hit, ended, hits, in_folder, is_in_memory, stored, under_way};
use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::envoy::Envoy;
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;
use tokio::task::JoinSet;

/// Misses and hits, one after the other, for as long as there is an Envoy.
async fn ask_on(client: Client, name: String) {
    for number in 0.. {
        let prompt = format!("{name} asks {number}");
        for ask in [Ask::chat(&prompt), Ask::stream(&prompt), Ask::chat(&prompt)] {
            let Ok(mut answer) = client.try_send(ask).await else {
                return;
            };
            assert_eq!(answer.status, 200, "{prompt}");
            // Envoy cuts what is under way at its end.
            while let Ok(Some(_)) = answer.chunk().await {}
        }
    }
}

/// One request in each stage that lasts: its head and a part of its body are there, it leads, it follows.
async fn in_each_stage(envoy: &Envoy) -> Vec<RawClient> {
    let leads = http1(&Ask::chat("led").mock("gated"));
    let streams = http1(&Ask::stream("streamed").mock("gated"));
    let mut clients = Vec::new();
    for bytes in [
        &leads[..leads.len() - 1],
        &leads,
        &leads,
        &leads,
        &streams,
        &streams,
    ] {
        let mut client = RawClient::connect(&envoy.url).await;
        client.send(bytes).await;
        clients.push(client);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sigterm_under_load_ends_envoy_cleanly_and_loses_no_answer() {
    const ROUNDS: usize = 5;
    const CLIENTS: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let upstream = Upstream::start().await;
    let mut kept: Vec<(Ask, Answer)> = Vec::new();
    for round in 0..ROUNDS {
        let envoy = in_folder(&upstream, &data)
            .workers(2)
            .plugin("fill_wait_ms", 600_000)
            .start()
            .await;
        envoy
            .until("the folder is in use", |metrics| !is_in_memory(metrics))
            .await;
        for (ask, answer) in &kept {
            check_hit(&envoy.client.fetch(ask.clone()).await, answer);
        }
        let ask = Ask::chat(&format!("kept in round {round}"));
        let answer = envoy.client.fetch(ask.clone()).await;
        stored(&envoy, 1).await;
        kept.push((ask, answer));

        let clients = in_each_stage(&envoy).await;
        under_way(&envoy, clients.len()).await;
        let mut load = JoinSet::new();
        for client in 0..CLIENTS {
            let name = format!("{client} of round {round}");
            load.spawn(ask_on(Client::new(&envoy.url), name));
        }
        envoy
            .until("it is at work", |metrics| hits(metrics) >= 50.0)
            .await;
        ended(envoy).await;
        while let Some(ended) = load.join_next().await {
            ended.expect("no other answer than 200");
        }
        drop(clients);
    }
}
