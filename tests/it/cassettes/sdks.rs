//! The official clients, recorded once and replayed without a provider: they see the same.

use super::cassette;
use super::player::Player;
use crate::sdk::Script;
use crate::sdk_js;
use reflex_tests::upstream::Upstream;

#[tokio::test]
async fn clients_for_python_see_the_same_in_a_replay() {
    const SCRIPT: &str = "cassette.py";
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    let mut script = Script::start(SCRIPT, &player.url);
    let recorded = script.line().await.expect("what the clients saw");
    script.ends().await;
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
    drop(upstream);

    let player = Player::replay(folder.path(), &["--ci"]).await;
    let mut script = Script::start(SCRIPT, &player.url);
    assert_eq!(script.line().await, Some(recorded));
    script.ends().await;
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn clients_for_javascript_see_the_same_in_a_replay() {
    const SCRIPT: &str = "cassette.js";
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    let Some(recorded) = sdk_js::run(SCRIPT, &player.url).await else {
        return;
    };
    player.ends().await;
    drop(upstream);

    let player = Player::replay(folder.path(), &["--ci"]).await;
    let again = sdk_js::run(SCRIPT, &player.url).await.expect("Node.js");
    assert_eq!(again.stdout, recorded.stdout);
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
}
