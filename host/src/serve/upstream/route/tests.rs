//! Requests and the providers that they are for, hostile spellings included.

use super::*;
use crate::serve::config::ProviderTlsFiles;
use http::Request;
use std::time::Duration;

fn takes(host: &str, path_prefix: &str, model: &str) -> Takes {
    let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    Takes {
        hosts: list(host),
        path_prefix: (!path_prefix.is_empty()).then(|| path_prefix.to_owned()),
        strips_prefix: false,
        models: list(model),
    }
}

fn provider(url: &str, takes: Takes) -> Provider {
    Provider {
        name: url.into(),
        url: url.parse().expect("a URL"),
        takes,
        tls: ProviderTlsFiles::default(),
        connect_max: Duration::from_secs(1),
        response_max: Duration::from_secs(1),
        breaker_failures: None,
        interchangeable_with: None,
    }
}

/// A request as `METHOD URI`, with these headers.
fn request(line: &str, headers: &[(&str, &str)]) -> Request<()> {
    let (method, uri) = line.split_once(' ').expect("a method and a URI");
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

fn found(all: &[Takes], request: &Request<()>, model: Option<&str>) -> Result<usize, NoProvider> {
    let wanted = Wanted::of(request.method(), request.uri(), request.headers());
    match chosen(all, &wanted) {
        Err(NoProvider::NeedsModel) => chosen(all, &wanted.with_model(model.map(str::to_owned))),
        found => found,
    }
}

#[test]
fn the_first_that_takes_a_request_gets_it() {
    let all = [
        takes("*.internal", "", ""),
        takes("", "/anthropic", ""),
        takes("", "", "Claude-* opus"),
        takes("", "/only", "gpt-*"),
        takes("", "", ""),
    ];
    let check = |line: &str, host: &str, model: Option<&str>, expected: usize| {
        let request = request(line, &[("host", host)]);
        assert_eq!(
            found(&all, &request, model),
            Ok(expected),
            "{line} {host} {model:?}"
        );
    };
    let chat = "POST /v1/chat/completions";
    check(
        "POST /anthropic/v1/messages",
        "A.INTERNAL:8080",
        Some("claude-4"),
        0,
    );
    check(
        "POST /anthropic/v1/messages",
        "a.internal.",
        Some("claude-4"),
        0,
    );
    check(
        "POST /anthropic/v1/messages",
        "internal",
        Some("claude-4"),
        1,
    );
    check("POST /anthropic", "", None, 1);
    check("POST /anthropics/v1/messages", "", None, 4);
    check(chat, "", Some("CLAUDE-4"), 2);
    check(chat, "", Some("opus"), 2);
    check(chat, "", Some("opus-4"), 4);
    check(chat, "", None, 4);
    check("POST /only/v1", "", Some("gpt-5"), 3);
    check("POST /only/v1", "", Some("claude-4"), 2);
    check("POST /v1beta/models/claude-4:generateContent", "", None, 2);
    check("GET /v1/models", "", None, 4);
}

#[test]
fn a_request_without_a_model_is_for_the_first_of_its_host_and_path() {
    let all = [
        takes("", "/a", "claude-*"),
        takes("", "", "claude-*"),
        takes("", "", "gpt-*"),
    ];
    for line in [
        "GET /v1/models",
        "POST /v1/models",
        "DELETE /v1/files/x",
        "OPTIONS *",
    ] {
        assert_eq!(found(&all, &request(line, &[]), None), Ok(1), "{line}");
    }
    let audio = [("content-type", "multipart/form-data; boundary=x")];
    let audio = request("POST /v1/audio/transcriptions", &audio);
    assert_eq!(found(&all, &audio, Some("its body is not read")), Ok(1));
    assert_eq!(found(&all, &request("GET /a/v1/models", &[]), None), Ok(0));
    let unknown = request("POST /v1/chat/completions", &[]);
    assert_eq!(
        found(&all, &unknown, Some("llama")),
        Err(NoProvider::Untaken)
    );
}

#[test]
fn a_body_is_read_only_where_the_model_decides() {
    let all = [takes("", "/a", ""), takes("", "/b", "m"), takes("", "", "")];
    let needs = |line: &str, headers: &[(&str, &str)]| {
        let request = request(line, headers);
        let wanted = Wanted::of(request.method(), request.uri(), request.headers());
        chosen(&all, &wanted) == Err(NoProvider::NeedsModel)
    };
    assert!(needs("POST /b/v1", &[]));
    assert!(needs(
        "POST /b/v1",
        &[("content-type", "application/JSON; charset=utf-8")]
    ));
    assert!(needs("POST /b/v1", &[("content-type", "text/plain")]));
    assert!(!needs(
        "POST /b/v1",
        &[("content-type", "application/octet-stream")]
    ));
    assert!(!needs("POST /b/v1/models/m:generateContent", &[]));
    assert!(!needs("GET /b/v1", &[]));
    assert!(!needs("POST /a/v1", &[]));
    assert!(!needs("POST /c/v1", &[]));
}

/// Some servers read these as paths below the prefix, and some do not.
#[test]
fn no_other_spelling_of_a_path_chooses_another_provider() {
    let all = [takes("", "/private", ""), takes("", "", "")];
    let check = |path: &str, expected| {
        let request = request(&format!("GET {path}"), &[]);
        assert_eq!(found(&all, &request, None), expected, "{path}");
    };
    for path in [
        "/private/x",
        "//private/x",
        "/./private/x",
        "/%70rivate/x",
        "/%2570rivate/x",
        "/PRIVATE/x",
    ] {
        check(path, Ok(0));
    }
    for path in [
        "/x/../private/x",
        "/x/%2e%2e/private",
        "/private/../x",
        "/private%2Fx",
        "/private;a=1/x",
        "/private\\x",
        "/%70rivate%zz",
    ] {
        check(path, Err(NoProvider::Path));
    }
    check("/x/private", Ok(1));
    check("/v1/models/org%2Fname", Ok(1));
    // Where no path decides, each goes on as it is.
    let all = [takes("", "", "m"), takes("", "", "")];
    let odd = request("GET /x/../private", &[]);
    assert_eq!(found(&all, &odd, None), Ok(1));
}

#[test]
fn the_host_is_the_one_that_http_says() {
    let all = [
        takes("a.test", "", ""),
        takes("[::1]", "", ""),
        takes("b.*", "", ""),
    ];
    let check = |uri: &str, headers: &[(&str, &str)], expected| {
        let request = request(&format!("GET {uri}"), headers);
        assert_eq!(found(&all, &request, None), expected, "{uri} {headers:?}");
    };
    check("/", &[("host", "a.test")], Ok(0));
    check("/", &[("host", "A.test:443")], Ok(0));
    check("/", &[("host", "[::1]:8080")], Ok(1));
    check("/", &[("host", "b.test")], Ok(2));
    check("http://a.test:1/", &[("host", "b.test")], Ok(0));
    check(
        "http://a.test/",
        &[("host", "b.test"), ("host", "c")],
        Ok(0),
    );
    check(
        "/",
        &[("host", "a.test"), ("host", "a.test")],
        Err(NoProvider::Hosts),
    );
    for host in [
        "",
        "c.test",
        "a.test.evil",
        "a.test:x",
        "user@a.test",
        "a.test/b",
    ] {
        check("/", &[("host", host)], Err(NoProvider::Untaken));
    }
    check("/", &[], Err(NoProvider::Untaken));
    // Where no host decides, nothing is asked of it.
    let all = [takes("", "", "")];
    let twice = request("GET /", &[("host", "a"), ("host", "b")]);
    assert_eq!(found(&all, &twice, None), Ok(0));
}

#[test]
fn a_prefix_stays_or_is_left_out() {
    let aim = |strips_prefix, base: &str, path: &str| {
        let mut takes = takes("", "/anthropic", "");
        takes.strips_prefix = strips_prefix;
        let path = path.parse().expect("a path");
        let uri = aimed(&provider(base, takes), Some(&path));
        uri.map(|uri| uri.to_string()).ok()
    };
    let check = |strips_prefix, base: &str, path: &str, expected: &str| {
        assert_eq!(
            aim(strips_prefix, base, path).as_deref(),
            Some(expected),
            "{path}"
        );
    };
    check(
        false,
        "https://a.test/b",
        "/anthropic/v1?a=1",
        "https://a.test/b/anthropic/v1?a=1",
    );
    check(
        true,
        "https://a.test/b",
        "/anthropic/v1?a=1",
        "https://a.test/b/v1?a=1",
    );
    check(true, "https://a.test", "/anthropic/v1", "https://a.test/v1");
    check(true, "https://a.test", "/Anthropic/v1", "https://a.test/v1");
    check(true, "https://a.test", "/anthropic", "https://a.test/");
    check(
        true,
        "https://a.test/b",
        "/anthropic?a=1",
        "https://a.test/b/?a=1",
    );
    check(true, "https://a.test", "/anthropic//x", "https://a.test//x");
    for path in ["//anthropic/v1", "/%61nthropic/v1", "/anthropics", "/"] {
        assert_eq!(aim(true, "https://a.test", path), None, "{path}");
    }
    assert_eq!(aim(true, "https://a.test/b", "/anthropic/../../x"), None);
}

#[test]
fn a_request_turns_to_another_provider_with_its_path() {
    let all = takes("", "", "");
    let check = |from: &str, to: &str, uri: &str, expected: Option<&str>| {
        let uri = uri.parse().expect("a URI");
        let turned = turned(
            &uri,
            &provider(from, all.clone()),
            &provider(to, all.clone()),
        );
        let turned = turned.map(|uri| uri.to_string()).ok();
        assert_eq!(turned.as_deref(), expected, "{uri}");
    };
    check(
        "http://a.test",
        "https://b.test:1",
        "http://a.test/v1?x",
        Some("https://b.test:1/v1?x"),
    );
    check(
        "http://a.test/p",
        "http://b.test",
        "http://a.test/p/v1",
        Some("http://b.test/v1"),
    );
    check(
        "http://a.test/p",
        "http://b.test/q/r",
        "http://a.test/p/v1",
        Some("http://b.test/q/r/v1"),
    );
    check(
        "http://a.test/p",
        "http://b.test",
        "http://a.test/px/v1",
        None,
    );
    check("http://a.test/p", "http://b.test", "http://a.test/v1", None);
}
