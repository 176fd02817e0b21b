//! Envoy's hot restart: the new process answers from memory for as long as the old one has the folder.

use super::{apart, check_hit, check_miss, ended, hits, in_folder, is_in_memory, stored};
use reflex_tests::client::{Ask, Client};
use reflex_tests::envoy::Envoy;
use reflex_tests::upstream::Upstream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// What clients have got while Envoys came and went.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answers: AtomicUsize,
}

impl Load {
    /// Asks on new connections, which no Envoy that ends has to close under a request.
    async fn ask(self: Arc<Self>, url: String, name: String) {
        for number in 0.. {
            if self.is_over.load(SeqCst) {
                return;
            }
            let prompt = format!("{name} asks {}", number / 3);
            let answer = Client::new(&url).fetch(Ask::chat(&prompt)).await;
            assert_eq!(answer.status, 200, "{prompt}");
            assert_ne!(answer.reflex(), "BYPASS", "{prompt}");
            self.answers.fetch_add(1, SeqCst);
        }
    }
}

async fn until_hits(envoy: &Envoy, more: f64) {
    let before = hits(&envoy.metrics().await);
    envoy
        .until("hits", |metrics| hits(metrics) >= before + more)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_restart_under_load_fails_no_request_and_takes_the_folder_over() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let plan = || in_folder(&upstream, &data).workers(2);
    let mut first = plan().restartable().start().await;
    let of_first = apart(&first, Ask::stream("of the first")).await;
    check_miss(&of_first);
    stored(&first, 1).await;
    let load = Arc::new(Load::default());
    let clients: Vec<_> = ["one", "two", "three"]
        .map(|name| tokio::spawn(Arc::clone(&load).ask(first.url.clone(), name.into())))
        .into();
    until_hits(&first, 20.0).await;

    // Under way from before the restart until after it.
    let slow = Ask::stream("slow").mock("gated");
    let mut slow_answer = Client::new(&first.url).send(slow).await;
    let second = plan().start_after(&first).await;
    assert_eq!(second.url, first.url);
    // By then, no new connection is the first one's.
    until_hits(&second, 20.0).await;
    let in_between = apart(&second, Ask::chat("in between")).await;
    check_miss(&in_between);
    check_hit(&apart(&second, Ask::chat("in between")).await, &in_between);
    upstream.release_all();
    slow_answer.until("[DONE]").await;

    // The second one has told it to.
    assert_eq!(first.ended().await, Some(0), "{}", first.log());
    second
        .until("it has the folder", |metrics| !is_in_memory(metrics))
        .await;
    let log = second.log();
    assert!(log.contains("answers are in memory"), "{log}");
    check_hit(&apart(&second, Ask::chat("in between")).await, &in_between);
    check_hit(
        &apart(&second, Ask::stream("of the first")).await,
        &of_first,
    );
    until_hits(&second, 20.0).await;
    load.is_over.store(true, SeqCst);
    for client in clients {
        client.await.expect("no failed request");
    }
    assert!(load.answers.load(SeqCst) >= 60);
    ended(second).await;

    let third = plan().start().await;
    third
        .until("the folder is in use", |metrics| !is_in_memory(metrics))
        .await;
    check_hit(&apart(&third, Ask::chat("in between")).await, &in_between);
    ended(third).await;
}
