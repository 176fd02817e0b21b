//! `[[upstream]]`: what it means, and what is said of the others.

use crate::serve::config::{Config, Draft, Provider, Source, lines};
use std::fmt::Write as _;
use std::time::Duration;

fn load(text: &str) -> Result<Config, String> {
    let mut draft = Draft::default();
    draft.read("edge.toml", text.into());
    Config::of(draft, Source::default()).map_err(|errors| lines(&errors))
}

fn providers(text: &str) -> Vec<Provider> {
    load(text)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .providers
}

#[test]
fn one_url_is_one_provider_for_all_requests() {
    let all = providers("upstream = \"https://a.test/base\"\nconnect_max = \"2s\"");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].name, "a.test/base");
    assert!(all[0].takes.is_all());
    assert_eq!(all[0].connect_max, Duration::from_secs(2));
}

#[test]
fn each_table_is_a_provider_with_the_usual_values_of_the_file() {
    let all = providers(
        "upstream_ca = \"usual.pem\"\nconnect_max = \"2s\"\nresponse_max = \"1m\"\n\
         [[upstream]]\nname = \"anthropic\"\nurl = \"https://api.anthropic.com\"\n\
         path_prefix = \"/anthropic\"\nstrip_prefix = true\nresponse_max = \"5s\"\n\
         [[upstream]]\nurl = \"https://vllm.test\"\nmodel = [\"llama-*\", \"qwen*\"]\n\
         host = \"*.internal\"\nca = \"own.pem\"\nbreaker_failures = 3\n\
         [[upstream]]\nurl = \"https://api.openai.com\"\n\
         [[upstream]]\nurl = \"https://eu.api.openai.com\"\n\
         interchangeable_with = \"api.openai.com\"",
    );
    let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "anthropic",
            "vllm.test",
            "api.openai.com",
            "eu.api.openai.com"
        ]
    );
    assert_eq!(all[0].takes.path_prefix.as_deref(), Some("/anthropic"));
    assert!(all[0].takes.strips_prefix);
    assert_eq!(all[0].connect_max, Duration::from_secs(2));
    assert_eq!(all[0].response_max, Duration::from_secs(5));
    assert_eq!(all[0].breaker_failures, None);
    assert_eq!(all[1].takes.models, ["llama-*", "qwen*"]);
    assert_eq!(all[1].takes.hosts, ["*.internal"]);
    assert_eq!(all[1].response_max, Duration::from_secs(60));
    assert_eq!(all[1].breaker_failures, Some(3));
    let ca = |at: usize| all[at].tls.ca.as_ref().expect("a CA").display().to_string();
    assert_eq!([ca(0), ca(1)], ["usual.pem", "own.pem"]);
    assert!(all[2].takes.is_all());
    assert_eq!(
        all[3].interchangeable_with.as_deref(),
        Some("api.openai.com")
    );
}

#[test]
fn all_mistakes_are_told_with_their_lines() {
    let check = |text: &str, line: usize, part: &str| {
        let errors = load(text).expect_err(text);
        let found = errors.lines().any(|error| {
            let is_here = error.contains(&format!("line {line}: upstream: "));
            is_here && error.contains(part)
        });
        assert!(found, "{text}\n{errors}");
    };
    let one = |row: &str| format!("[[upstream]]\nurl = \"https://a.test\"\n{row}");
    let two = |one: &str, other: &str| {
        format!(
            "[[upstream]]\nurl = \"https://a.test\"\n{one}\n[[upstream]]\nurl = \"https://b.test\"\n{other}"
        )
    };
    check("upstream = []", 1, "names no provider");
    check("[[upstream]]\nname = \"a\"", 1, "url");
    check("[[upstream]]\nurl = \"a.test\"", 1, "not an http");
    check(
        "[[upstream]]\nurl = \"https://u:p@a.test\"",
        1,
        "credentials",
    );
    check(&one("colour = 1"), 3, "unknown field");
    check(&one("model = 3"), 3, "a text or a list of texts");
    check(&one("model = \"\""), 1, "model: `` is not 1 to 256");
    check(
        &one("host = [\"https://a\"]"),
        1,
        "host: `https://a` is no name",
    );
    check(&one("host = \"a:80\""), 1, "host: `a:80` is no name");
    for prefix in [
        "a", "/", "/a/", "/a//b", "/a/../b", "/a;b", "/a*", "/%61", "/a?b", "/é",
    ] {
        check(
            &one(&format!("path_prefix = \"{prefix}\"")),
            1,
            "path_prefix: ",
        );
    }
    check(
        &one("strip_prefix = true"),
        1,
        "strip_prefix needs path_prefix",
    );
    check(&one("connect_max = \"0s\""), 1, "connect_max: not from");
    check(&one("response_max = \"soon\""), 1, "response_max: ");
    check(&one("cert = \"a.pem\""), 1, "cert and key belong together");
    check(
        &one("breaker_failures = 1001"),
        1,
        "breaker_failures: not from",
    );
    check(&one("name = \"a\\nb\""), 1, "name: not 1 to");
    check(
        &two("name = \"x\"\nmodel = \"m\"", "name = \"x\""),
        5,
        "`x` is the name of two",
    );
    check(&two("", "model = \"m\""), 4, "`a.test` takes them all");
    check(
        &two("model = \"gpt-*\"", "model = [\"GPT-5*\"]"),
        4,
        "takes them all",
    );
    check(
        &two("path_prefix = \"/a\"", "path_prefix = \"/A/b\""),
        4,
        "takes them all",
    );
    check(
        &two("host = \"*.test\"", "host = \"x.test\"\nmodel = \"m\""),
        4,
        "takes them all",
    );
    check(
        &one("interchangeable_with = \"b\""),
        1,
        "`b`: there is no such name",
    );
    check(&one("interchangeable_with = \"a.test\""), 1, "its own name");
    check(
        &two("", "model = \"m\"\ninterchangeable_with = \"a.test\""),
        4,
        "takes none by a host",
    );
    let third = "[[upstream]]\nurl = \"https://c.test\"\ninterchangeable_with = \"b.test\"";
    let chain = two("", &format!("interchangeable_with = \"a.test\"\n{third}"));
    check(&chain, 7, "stands in for another itself");
    let pair = "cert = \"c\"\nkey = \"k\"";
    let same = format!(
        "[[upstream]]\nurl = \"https://a.test/x\"\nmodel = \"m\"\n\
         [[upstream]]\nurl = \"https://A.test:443/y\"\n{pair}"
    );
    check(&same, 4, "keys cannot tell them apart");
    // One that cannot be read is not the reason for a second mistake.
    let errors = load(&two(
        "name = \"x\"\nmodel = \"\"",
        "interchangeable_with = \"x\"",
    ));
    assert_eq!(errors.expect_err("a mistake").lines().count(), 1);
}

#[test]
fn what_an_earlier_one_does_not_take_may_follow() {
    for (one, other) in [
        ("model = \"gpt-*\"", ""),
        ("model = \"gpt-5*\"", "model = \"gpt-*\""),
        ("model = [\"gpt-*\"]", "model = [\"gpt-5\", \"o3\"]"),
        ("path_prefix = \"/a\"", "path_prefix = \"/ab\""),
        (
            "path_prefix = \"/a\"\nmodel = \"m\"",
            "path_prefix = \"/a\"",
        ),
        ("path_prefix = \"/a\"", "host = \"a.test\""),
        ("host = \"[::1]\"", "host = \"*\""),
    ] {
        let text = format!(
            "[[upstream]]\nurl = \"https://a.test\"\n{one}\n[[upstream]]\nurl = \"https://b.test\"\n{other}"
        );
        assert_eq!(providers(&text).len(), 2, "{text}");
    }
}

#[test]
fn the_number_of_providers_has_a_bound() {
    let rows = |count: usize| {
        let mut text = String::new();
        for number in 0..count {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "[[upstream]]\nurl = \"http://a{number}.test\"\nmodel = \"m{number}\"\n"
            );
        }
        text
    };
    assert_eq!(
        providers(&rows(super::UPSTREAMS_MAX)).len(),
        super::UPSTREAMS_MAX
    );
    let error = load(&rows(super::UPSTREAMS_MAX + 1)).expect_err("too many");
    assert!(
        error.contains("line 1: upstream: 65 tables are over the limit of 64"),
        "{error}"
    );
}

#[test]
fn a_change_between_one_and_several_is_told() {
    let [one, several, other] = [
        "upstream = \"https://a.test\"",
        "[[upstream]]\nurl = \"https://a.test\"",
        "[[upstream]]\nurl = \"https://b.test\"",
    ]
    .map(|text| load(text).expect("valid"));
    let told = |from: &Config, to: &Config| {
        let told: Vec<String> = from.changes(to).iter().map(ToString::to_string).collect();
        told.join("\n")
    };
    assert_eq!(told(&several, &several), "");
    assert_eq!(
        told(&several, &other),
        "upstream: another list (with a reload)"
    );
    let expected = "upstream: \"https://a.test\" -> a list (with a reload)";
    assert_eq!(told(&one, &several), expected);
    let edges = load("edge_socket = \"/run/edge\"").expect("valid");
    let told = told(&edges, &other);
    let expected = "upstream: none -> a list (needs a restart)";
    assert!(told.contains(expected), "{told}");
}
