//! Which requests may share an answer: none gets the answer of another tenant, of another
//! provider, or to another question.

use super::*;

/// Neither the hot tier, nor the daemon, nor a flight under way lets one have the other's.
fn check(one: &Ask, other: &Ask, share: bool) {
    check_with("", one, other, share);
}

fn check_with(fields: &str, one: &Ask, other: &Ask, share: bool) {
    let mut play = Play::with(&format!(r#""tenant_header": "x-team"{fields}"#));
    let first = play.asked(one);
    play.provider(first);
    let second = play.asked(other);
    match share {
        true => play.held(second),
        false => play.provider(second),
    }
    play.leaves(second);
    play.answers(first, &json("mine"));
    play.settle();
    for _ in ["hot", "daemon"] {
        let mine = play.asked(one);
        play.hit(mine, &json("mine"));
        let second = play.asked(other);
        match share {
            true => play.hit(second, &json("mine")),
            false => play.provider(second),
        }
        play.leaves(second);
        play.worker.shared().hot.clear();
    }
    play.ends();
}

#[test]
fn only_the_same_question_of_the_same_tenant_shares() {
    let ask = || Ask::chat("hello");
    check(&ask(), &ask(), true);
    check(&ask(), &ask().with("user-agent", "another"), true);
    check(&ask(), &ask().by("sk-b"), false);
    check(&ask(), &ask().at("gateway"), false);
    check(&ask(), &Ask::chat("hello "), false);
    check(&ask(), &ask().with("openai-organization", "org"), false);
    check(&ask(), &ask().with("x-team", "a"), false);
    let team = |name, key| ask().by(key).with("x-team", name);
    check(&team("a", "sk-a"), &team("a", "sk-b"), true);
    check(&team("a", "sk-a"), &team("b", "sk-a"), false);
}

#[test]
fn the_path_that_the_provider_sees_is_in_the_key() {
    let with = |prefix: &str| {
        let config = format!(r#"{{"upstreams": {{"openai": "https://api.openai.com{prefix}"}}}}"#);
        let mut play = Play::configured(&config);
        play.asks(&Ask::chat("hello"));
        play.under_way().remove(0)
    };
    let path = |call: String| call.split(' ').nth(1).map(str::to_owned);
    assert_eq!(path(with("")), path(with("/")));
    assert_ne!(path(with("")), path(with("/proxy")));

    // The same provider, with the prefix in the cluster's URL or in the client's path.
    let mut play = Play::configured(
        r#"{"upstreams": {"bare": "http://10.0.0.1", "prefixed": "http://10.0.0.1/openai"}}"#,
    );
    let prefixed = play.asked(&Ask::chat("hello").at("prefixed"));
    play.provider(prefixed);
    let mut bare = Ask::chat("hello").at("bare");
    let other = play.asked(&bare);
    play.provider(other);
    bare.path.insert_str(0, "/openai");
    let same = play.asked(&bare);
    play.held(same);
    play.answers(prefixed, &json("hi"));
    play.collapsed(same, &json("hi"));
    play.ends();
}

#[test]
fn a_stream_is_never_answered_with_one_piece_nor_the_reverse() {
    check(&Ask::chat("hello"), &Ask::chat("hello").streamed(), false);
}

#[test]
fn only_the_members_of_a_group_share() {
    let tenant = |credential: &str| {
        let value = format!("Bearer {credential}");
        let headers: [(&str, &[u8]); 1] = [("authorization", value.as_bytes())];
        let reflex_llm::Tenant(bytes) =
            reflex_llm::Tenant::named_by(&headers, None).expect("a tenant");
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits
    };
    let groups = format!(
        r#", "group": [
            {{"name": "us", "tenants": ["{}", "{}"]}},
            {{"name": "research", "trusted": ["red", "blue"]}},
            {{"name": "sales", "trusted": ["green"]}}
        ]"#,
        tenant("sk-a"),
        tenant("sk-b")
    );
    let check = |one: &Ask, other: &Ask, share: bool| check_with(&groups, one, other, share);
    let ask = || Ask::chat("hello");
    check(&ask(), &ask().by("sk-b"), true);
    check(&ask(), &ask().by("sk-c"), false);
    // One credential more is another tenant.
    check(&ask(), &ask().with("x-api-key", "other"), false);
    let team = |name: &str| ask().with("x-team", name);
    check(&team("red"), &team("blue").by("sk-z"), true);
    check(&team("red"), &team("green"), false);
    check(&team("red"), &team("research"), false);
    check(&team("red"), &ask(), false);
}
