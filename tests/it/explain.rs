//! `reflex-edge explain` says what the daemon does, in names and not in values.

use reflex_tests::client::{Ask, CHAT, Client};
use reflex_tests::edge::{Plan, run};
use reflex_tests::upstream::Upstream;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Files in a folder of their own, by their names.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    }
}

/// The exit code and what was said.
async fn explain(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(&[&["explain"], arguments].concat()).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing: {said}");
    }
}

/// A request as a dump of HTTP.
fn dumped(ask: &Ask) -> String {
    let request = ask.clone().into_request("http://edge.test", ());
    let mut text = format!("POST {} HTTP/1.1\r\nhost: edge.test\r\n", ask.path());
    for (name, value) in request.headers() {
        let value = value.to_str().expect("text");
        text += &format!("{name}: {value}\r\n");
    }
    let body = str::from_utf8(ask.sent()).expect("text");
    format!("{text}\r\n{body}")
}

/// The same code decides: two requests share a key if and only if the daemon answers the second
/// with what it has from the first.
#[tokio::test]
async fn what_it_says_is_what_the_daemon_does() {
    let upstream = Upstream::start().await;
    let config = "ignored_headers = [\"x-noise\"]\nignored_fields = [\"user\"]";
    let edge = Plan::new(&upstream.url()).config(config).start().await;
    let files = Files::new();
    let config = files.write("config.toml", config);
    let body = |more: &str, prompt: &str| {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]{more}}}"#);
        Ask::body(body)
    };
    let plain = |prompt: &str| body("", prompt);
    let cases: Vec<(&str, Ask, Ask)> = vec![
        ("same", plain("same"), plain("same")),
        ("header", plain("h"), plain("h").header("x-acme", "1")),
        ("noise", plain("n").header("x-noise", "1"), plain("n")),
        ("trace", plain("t").header("traceparent", "1"), plain("t")),
        ("field", plain("f"), body(",\"seed\":1", "f")),
        ("user", plain("u"), body(",\"user\":\"me\"", "u")),
        ("key", plain("k"), plain("k").key(Some("sk-other"))),
        (
            "space",
            plain("s"),
            Ask::body(
                "{ \"messages\": [{\"content\": \"s\", \"role\": \"user\"}], \"model\": \"m\" }",
            ),
        ),
        ("stream", plain("st"), body(",\"stream\":true", "st")),
    ];
    for (name, one, other) in cases {
        let first = edge.client.fetch(one.clone()).await;
        assert_eq!(first.reflex(), "MISS", "{name}");
        // It is stored once its body has ended.
        let stored = async |client: &Client| client.fetch(one.clone()).await.reflex() != "MISS";
        while !stored(&edge.client).await {}
        let is_hit = edge.client.fetch(other.clone()).await.reflex() != "MISS";
        let (a, b) = (dumped(&one), dumped(&other));
        let (a, b) = (files.write("a.http", &a), files.write("b.http", &b));
        let upstream = upstream.url();
        let flags = ["--config", &config, "--upstream", &upstream];
        let (code, said) = explain(&[&[a.as_str(), b.as_str()][..], &flags].concat()).await;
        assert_eq!(code, Some(i32::from(!is_hit)), "{name}: {said}");
        assert_eq!(said.contains("share a key"), is_hit, "{name}: {said}");
    }
}

#[tokio::test]
async fn the_part_that_differs_is_named_with_the_setting_that_helps() {
    let files = Files::new();
    let request = |header: &str, content: &str| {
        format!(
            "curl https://api.openai.com{CHAT} -H 'Authorization: Bearer sk-secret' \\\n -H \
             'x-acme-call: {header}' -d $'{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\
             \"content\":\"{content}\"}}]}}' | jq ."
        )
    };
    let a = files.write("a.sh", &request("private-1", "private-2"));
    let b = files.write("b.sh", &request("private-3", "private\\\\n4"));
    let (code, said) = explain(&[&a, &b]).await;
    assert_eq!(code, Some(1), "{said}");
    let parts = [
        "header `x-acme-call`",
        "ignored_headers = [\"x-acme-call\"]",
        "field `messages[0].content`",
        "provider https://api.openai.com",
    ];
    says(&said, &parts);
    assert!(!said.contains("private"), "{said}");
    let (_, shown) = explain(&[&a, &b, "--show-values"]).await;
    says(&shown, &["private-1", "private-2", "private-3"]);
    let (_, json) = explain(&[&a, &b, "--json", "--show-values"]).await;
    assert!(
        ![&said, &shown, &json]
            .iter()
            .any(|it| it.contains("secret"))
    );
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["share_a_key"], false);
    assert_eq!(json["differences"][0]["by"], "header");
    assert_eq!(json["differences"][1]["values"][0], "\"private-2\"");
}

#[tokio::test]
async fn what_is_keyed_and_what_is_not_is_listed() {
    let files = Files::new();
    let body = r#"{"model":"m","messages":[],"prompt_cache_key":"k","seed":1}"#;
    let body = files.write("body.json", body);
    let (code, said) = explain(&[&body]).await;
    assert_eq!(code, Some(0), "{said}");
    let (keyed, not_keyed) = said.split_once("Not in its key").expect("both");
    says(
        keyed,
        &[
            "credential",
            "field `messages`",
            "field `model`",
            "field `seed`",
        ],
    );
    says(
        not_keyed,
        &["header `authorization`", "field `prompt_cache_key`"],
    );
    says(not_keyed, &["Assumed", CHAT]);

    let rules = files.write("rules.toml", "ignored_fields = [\"seed\"]");
    let (_, said) = explain(&[&body, "--config", &rules]).await;
    let (_, not_keyed) = said.split_once("Not in its key").expect("both");
    says(not_keyed, &["field `seed`"]);
}

#[tokio::test]
async fn each_reason_to_pass_by_is_named_with_its_part_and_a_remedy() {
    let files = Files::new();
    let check = async |name: &str, text: &str, flags: &[&str], parts: &[&str]| {
        let file = files.write(name, text);
        let (code, said) = explain(&[&[file.as_str()], flags].concat()).await;
        assert_eq!(code, Some(1), "{said}");
        says(&said, parts);
    };
    let two = r#"{"model":"m","messages":[],"web_search_options":{},"conversation":"c"}"#;
    let parts = [
        "web-search",
        "`web_search_options`",
        "provider-state",
        "`conversation`",
        "remedy",
    ];
    check("a.json", two, &[], &parts).await;
    check("b.json", "{\"a\":1", &[], &["not-json"]).await;
    check("c.json", "{}", &["--path", "/v1/models"], &["path"]).await;
    let dump = format!("POST {CHAT} HTTP/1.1\ncache-control: no-store\napi-key: k\n\n{{}}");
    check(
        "d.http",
        &dump,
        &[],
        &["no-store", "header `cache-control`"],
    )
    .await;
    let dump = format!("POST {CHAT} HTTP/1.1\n\n{{}}");
    check("e.http", &dump, &[], &["no-credential"]).await;
    let rules = files.write("rules.toml", "request_bytes_max = 8");
    let long = r#"{"model":"m","messages":[]}"#;
    check("f.json", long, &["--config", &rules], &["body-too-large"]).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_without_its_content() {
    let files = Files::new();
    for (text, part) in [
        ("sk-secret", "no JSON body"),
        ("curl https://a.test -F a=sk-secret", "form"),
        ("curl 'https://sk-secret", "quote"),
    ] {
        let file = files.write("wrong", text);
        let (code, said) = explain(&[&file]).await;
        assert_eq!(code, Some(2), "{said}");
        says(&said, &[part]);
        assert!(!said.contains("secret"), "{said}");
    }
    let missing = Path::new("/nonexistent").join("a.json");
    let (code, _) = explain(&[missing.to_str().expect("text")]).await;
    assert_eq!(code, Some(2));
}
