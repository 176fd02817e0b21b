//! Requests that are equal to a memo are equal to the cache.

use reflex_llm::{Anonymous, Bypass, Candidate, Examined, Rules, Tenant, candidate};

use crate::random::Random;
use crate::request::{Request, chat};
use crate::valid::ALL;

/// Pairs of heads for each API.
const PAIRS: usize = 2000;

/// A text with this beginning must never be in an identity.
const SECRET: &str = "sk-secret";

/// Headers with a part in classifying a request, others that count, and others that do not.
const HEADERS: &[(&str, &[&str])] = &[
    (
        "authorization",
        &["Bearer sk-secret-1", "Bearer sk-secret-2", "Bearer", ""],
    ),
    ("x-api-key", &["sk-secret-1", "sk-secret-2", ""]),
    ("api-key", &["sk-secret-1"]),
    ("x-goog-api-key", &["sk-secret-1", "sk-secret-2"]),
    ("openai-organization", &["sk-secret-a", "sk-secret-b"]),
    ("openai-project", &["sk-secret-a", "sk-secret-b"]),
    ("x-team", &["sk-secret-red", "sk-secret-blue", "", "bearer"]),
    ("proxy-authorization", &["Basic sk-secret-1"]),
    ("x-amz-security-token", &["sk-secret-1", "sk-secret-2"]),
    (
        "cookie",
        &[
            "a=sk-secret-1",
            "a=sk-secret-2; _ga=1",
            "_ga=sk-secret",
            "__cf_bm=1; b=2",
        ],
    ),
    ("x-some-header", &["sk-secret-1", "sk-secret-2"]),
    ("x-session-id", &["sk-secret-1", "sk-secret-2"]),
    ("thread_id", &["sk-secret-1", "sk-secret-2"]),
    (
        "content-type",
        &["application/json", "application/json; charset=utf-8"],
    ),
    ("content-encoding", &["identity", "gzip"]),
    (
        "accept",
        &[
            "*/*",
            "text/event-stream",
            "application/json",
            "text/html",
            "text/plain",
        ],
    ),
    ("accept-language", &["de", "en"]),
    ("anthropic-version", &["2023-06-01", "2024-01-01"]),
    ("anthropic-beta", &["a", "b", "a,b"]),
    ("openai-beta", &["assistants=v2"]),
    (
        "cache-control",
        &["no-cache", "max-age=5", "only-if-cached", "no-store"],
    ),
    ("pragma", &["no-cache"]),
    ("x-reflex-ttl", &["0", "60"]),
    ("user-agent", &["curl/8.0", "codex/1.0", "OpenAI/Python"]),
    ("originator", &["codex_cli_rs", "other"]),
    ("traceparent", &["1", "2"]),
    ("x-request-id", &["1", "2"]),
    ("x-stainless-retry-count", &["0", "1"]),
    ("x-forwarded-for", &["10.0.0.1", "10.0.0.2"]),
];

const QUERIES: &[&str] = &[
    "",
    "",
    "?",
    "?alt=sse",
    "?alt=json",
    "?api-version=1",
    "?api-version=2",
    "?api-version=1;b=sk-secret",
    "?key=sk-secret-1",
    "?key=sk-secret-2",
    "?alt=sse&key=sk-secret-1",
    "?access_token=sk-secret-1",
    "?token=sk-secret-1",
    "?beta=true",
    "?ignored=1&a=b",
    "?ignored=2&a=b",
];

const UPSTREAMS: &[&str] = &[
    "https://api.openai.com",
    "https://api.openai.com",
    "https://api.openai.com:443",
    "https://gateway.test",
    "http://gateway.test",
    "https://api.anthropic.com",
    "https://generativelanguage.googleapis.com",
];

/// The one body of both, and others that the head may decide differently about.
fn bodies(valid: &[u8]) -> [Vec<u8>; 5] {
    let with = |fields: &str| {
        let text = String::from_utf8_lossy(valid);
        let open = text.trim_end().strip_suffix('}').unwrap();
        format!("{open},{fields}}}").into_bytes()
    };
    [
        valid.to_vec(),
        with(r#""stream":true"#),
        with(r#""user":"a","metadata":{"user_id":"b"}"#),
        with(r#""temperature":1.5,"listed":1,"other":2"#),
        b"{".to_vec(),
    ]
}

/// A head at random.
fn shuffled(request: &Request, random: &mut Random) -> Request {
    let mut request = request.clone().upstream(random.pick(UPSTREAMS));
    request.path = elsewhere(&request.path, random);
    for _ in 0..random.below(4) {
        let (name, values) = random.pick(HEADERS);
        request = request.header(name, random.pick(values));
    }
    random.shuffle(&mut request.headers);
    request
}

/// The same with one or two parts different: most of these parts do not count, or only sometimes.
fn changed(request: &Request, random: &mut Random) -> Request {
    let mut request = request.clone();
    for _ in 0..=random.below(2) {
        let (name, values) = random.pick(HEADERS);
        let value = random.pick(values);
        let count = request.headers.len();
        match random.below(8) {
            0 if count > 0 => drop(request.headers.remove(random.below(count))),
            1 => request.path = elsewhere(&request.path, random),
            2 => request.upstream = random.pick(UPSTREAMS).into(),
            3 => random.shuffle(&mut request.headers),
            _ => request = request.header(name, value),
        }
    }
    request
}

/// The same endpoint with another prefix and another query.
fn elsewhere(path: &str, random: &mut Random) -> String {
    let path = path.split('?').next().unwrap();
    let end = path.rfind("/v1").map_or(path, |at| &path[at..]);
    let prefix = random.pick(&["", "", "/openai/deployments/gpt", "/prefix", "/%70refix"]);
    format!("{prefix}{end}{}", random.pick(QUERIES))
}

/// The parts of an examined request that do not depend on the client's instructions.
type Made = Result<(reflex_llm::Key, reflex_llm::Shape, Option<String>), Bypass>;

fn made(examined: Result<Examined, Bypass>) -> Made {
    let examined = examined?;
    let exchange = examined.exchange;
    Ok((exchange.key, exchange.shape, examined.model))
}

/// The identity, and what becomes of each body; none if the request bypasses already.
fn judged(
    request: &Request,
    group: Option<Tenant>,
    bodies: &[Vec<u8>],
) -> Option<(Vec<u8>, Vec<Made>)> {
    request.with_head(|head, policy| {
        let candidate: Candidate<'_> = candidate(head, policy).ok()?;
        let candidate = match group {
            Some(group) => candidate.as_tenant(group, policy.tenant_header),
            None => candidate,
        };
        let mut identity = Vec::new();
        candidate.write_identity(&mut identity);
        let mut saved = Vec::new();
        candidate.prepare().write_identity(&mut saved);
        assert_eq!(
            identity, saved,
            "a head that was saved has another identity"
        );
        let made = bodies.iter().map(|body| made(candidate.examine(body)));
        Some((identity, made.collect()))
    })
}

#[test]
fn requests_of_one_identity_have_one_key_whatever_the_body() {
    let rules = Rules {
        ignored_headers: vec!["x-forwarded-*".into(), "accept-language".into()],
        ignored_cookies: vec!["b".into()],
        ignored_query: vec!["ignored".into()],
        bypass_fields: vec!["listed".into()],
        ..Rules::default()
    };
    for (nth, valid) in ALL.iter().enumerate() {
        let mut random = Random(77 << 8 | nth as u64);
        let body = valid.body(&mut random);
        let base = valid.request(&body, &mut random);
        let bodies = bodies(&base.body);
        let (mut alike, mut merged) = (0, 0);
        for _ in 0..PAIRS {
            let mut base = base.clone();
            base.anonymous = random.pick(&[Anonymous::Bypass, Anonymous::Share]);
            base.tenant_header = random.pick(&[None, Some("x-team")]).map(str::to_owned);
            base.temperature_max = random.pick(&[None, Some(1.0)]);
            if random.below(2) == 0 {
                base = base.rules(rules.clone());
            }
            let group = random.pick(&[None, None, Some(Tenant::of_group("g"))]);
            let one = shuffled(&base, &mut random);
            let other = changed(&one, &mut random);
            let judged = [&one, &other].map(|request| judged(request, group, &bodies));
            for (identity, _) in judged.iter().flatten() {
                let found = identity
                    .windows(SECRET.len())
                    .any(|it| it == SECRET.as_bytes());
                assert!(
                    !found,
                    "{}: {:?}",
                    one.path,
                    identity.escape_ascii().to_string()
                );
            }
            let [Some((identity, made)), Some((other_identity, other_made))] = judged else {
                continue;
            };
            if identity == other_identity {
                let heads = [&one, &other].map(|request| (&request.path, &request.headers));
                assert_eq!(made, other_made, "{}: {heads:?}", valid.name);
                alike += usize::from(one.headers != other.headers || one.path != other.path);
            } else {
                merged += usize::from(made == other_made);
            }
        }
        assert!(alike > PAIRS / 100, "{}: {alike} say nothing", valid.name);
        // Spelt otherwise, such as a cookie: only a slower hit.
        assert!(
            merged < PAIRS / 3,
            "{}: {merged} are read in vain",
            valid.name
        );
    }
}

fn identity(request: &Request) -> Vec<u8> {
    judged(request, None, &[]).expect("a candidate").0
}

#[test]
fn what_differs_with_each_request_is_in_no_identity() {
    let one = chat();
    for (name, value) in [
        ("x-request-id", "1"),
        ("traceparent", "00-1-2-01"),
        ("user-agent", "OpenAI/Python"),
        ("x-stainless-retry-count", "1"),
        ("cache-control", "max-age=60"),
        ("x-reflex-ttl", "60"),
        ("cookie", "__cf_bm=1"),
        ("accept", "*/*"),
        ("content-length", "10"),
    ] {
        assert_eq!(
            identity(&one.clone().header(name, value)),
            identity(&one),
            "{name}"
        );
    }
    assert_ne!(identity(&one.clone().header("x-any", "1")), identity(&one));
    assert_ne!(
        identity(&one.clone().header("x-any", "1")),
        identity(&one.clone().header("x-any", "2"))
    );
}

#[test]
fn many_headers_that_count_are_all_in_it() {
    let many = |changed: Option<usize>| {
        let mut request = chat();
        for number in 0..30 {
            let value = if changed == Some(number) {
                "other"
            } else {
                "same"
            };
            request = request.header(&format!("x-any-{}", number % 11), value);
        }
        request
    };
    let whole = identity(&many(None));
    for number in 0..30 {
        assert_ne!(identity(&many(Some(number))), whole, "{number}");
        assert_ne!(
            many(Some(number)).exchange().key,
            many(None).exchange().key,
            "{number}"
        );
    }
    let last = |name: &str, value: &str| identity(&chat().header(name, value));
    // A name ends where the value begins.
    assert_ne!(last("content-typ", "e"), last("content-type", ""));
}
