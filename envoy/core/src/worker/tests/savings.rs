//! The tokens that a hit saves, as the answer states them, and the model for the daemon's prices.

use super::*;

#[test]
fn the_hot_tier_tells_what_a_hit_saves_and_the_daemon_learns_the_model() {
    const USAGE: &str =
        r#""usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}"#;
    let with_usage = json("hi").replacen('{', &format!("{{{USAGE}, "), 1);
    for (answer, saved) in [(with_usage, Some("7")), (json("hi"), None)] {
        let mut play = Play::new();
        let ask = Ask::chat("hello");
        let first = play.asked(&ask);
        play.provider(first);
        play.head(first, 200, "application/json");
        play.chunk(first, &answer, true);
        let put = play
            .calls
            .values()
            .find(|call| call.request.method == "PUT");
        let put = &put.expect("it goes to the daemon").request;
        let model = put
            .headers
            .iter()
            .find(|(name, _)| *name == "x-reflex-model");
        assert_eq!(model.map(|(_, model)| model.as_str()), Some("gpt-4o"));
        let stored = put.body.as_ref().expect("an answer");
        let mut told = stored.headers.iter();
        let told = told.find(|(name, _)| name == "x-reflex-saved-tokens");
        assert_eq!(told.map(|(_, tokens)| tokens.as_str()), saved);
        play.settle();
        let again = play.asked(&ask);
        play.hit(again, &answer);
        play.ends();
    }
}
