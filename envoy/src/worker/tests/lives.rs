//! How long answers live: the operator's rules by path and model.

use super::*;

const RULES: &str = r#""ttl_seconds": 1000, "hot_ttl_seconds": 100000, "ttl": [
    {"path": "*/embeddings", "seconds": "never"},
    {"model": "live-*", "seconds": 0},
    {"path": "/openai/v1/chat/*", "model": "slow", "seconds": 9000}
]"#;

fn chat(model: &str) -> Ask {
    let mut ask = Ask::chat("by the rules");
    ask.body = ask.body.replace("gpt-4o", model);
    ask
}

/// The seconds that a hit has left, in the hot tier and at the daemon alike.
#[track_caller]
fn check(ask: &Ask, answer: &str, expected: Option<u64>) {
    let mut play = Play::with(RULES);
    let first = play.asked(ask);
    play.answers(first, answer);
    play.settle();
    for tier in ["hot", "daemon"] {
        let id = play.asked(ask);
        let status = Status::Hit {
            ttl_seconds: expected,
        };
        assert_eq!(play.seen(id), &Saw::Ours(status, answer.into()), "{tier}");
        play.worker.shared().hot.clear();
    }
    play.ends();
}

#[test]
fn the_first_rule_that_applies_counts() {
    let mut embed = Ask::chat("");
    embed.path = "/v1/embeddings".into();
    embed.body = r#"{"model": "live-e", "input": "one"}"#.into();
    let vector =
        r#"{"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}"#;
    check(&embed, vector, None);
    let hi = json("hi");
    check(&chat("other"), &hi, Some(1000));
    // The path is the one that the provider gets.
    check(&chat("slow"), &hi, Some(1000));
    check(&chat("slow").at("gateway"), &hi, Some(9000));
    let asked = chat("slow").at("gateway").with("x-reflex-ttl", "7");
    check(&asked, &hi, Some(7));
}

#[test]
fn what_the_operator_does_not_keep_is_kept_nowhere() {
    let mut play = Play::with(RULES);
    let ask = chat("live-1");
    for wish in [ask.clone(), ask.with("x-reflex-ttl", "60")] {
        let first = play.asked(&wish);
        play.provider(first);
        // Nobody waits for what will not be there.
        let second = play.asked(&wish);
        play.provider(second);
        play.answers(first, &json("hi"));
        play.settle();
        let third = play.asked(&wish);
        play.provider(third);
        assert!(play.daemon.entries.is_empty());
        assert_eq!(play.worker.shared().hot.bytes(), 0);
    }
    play.ends();
}
