//! Any request: nothing panics, the two stages agree with the one, and a cacheable request
//! has a key that depends on its meaning only.
//!
//! Input: `FLAGS METHOD PATH`, headers a line each, a blank line, the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reflex_fuzz::json::{self, Json};
use reflex_llm::{
    Anonymous, Bypass, Classified, Control, Exchange, Head, Policy, Shape, candidate, classify,
};

struct Request<'i> {
    method: &'i str,
    upstream: &'i str,
    path: &'i str,
    headers: Vec<(&'i str, &'i [u8])>,
    policy: Policy<'i>,
}

impl Request<'_> {
    fn classify(&self, body: &[u8]) -> Classified {
        let head = Head {
            method: self.method,
            upstream: self.upstream,
            path: self.path,
            headers: &self.headers,
        };
        let whole = classify(&head, &self.policy, body);
        assert_eq!(whole, classify(&head, &self.policy, body));
        assert_eq!(Control::of(&self.headers), Control::of(&self.headers));
        let staged = match candidate(&head, &self.policy) {
            Err(bypass) => Classified::Bypass(bypass),
            Ok(candidate) => {
                let examined = match candidate.examine(body) {
                    Ok(examined) => Classified::Cacheable(examined.exchange),
                    Err(bypass) => Classified::Bypass(bypass),
                };
                assert_eq!(examined, whole);
                candidate.classify(body)
            }
        };
        assert_eq!(staged, whole);
        whole
    }

    fn digest(&self, body: &str) -> Option<[u8; 32]> {
        match self.classify(body.as_bytes()) {
            Classified::Cacheable(exchange) => Some(exchange.key.digest),
            Classified::Bypass(_) => None,
        }
    }
}

fn split(input: &[u8]) -> Option<(Request<'_>, &[u8])> {
    let at = input.windows(2).position(|pair| pair == b"\n\n")?;
    let head = std::str::from_utf8(&input[..at]).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.splitn(3, ' ');
    let flags = first.next()?.bytes().next().unwrap_or(b'0');
    let policy = Policy {
        anonymous: match flags & 1 {
            0 => Anonymous::Bypass,
            _ => Anonymous::Share,
        },
        tenant_header: (flags & 2 != 0).then_some("x-team"),
        temperature_max: (flags & 4 != 0).then_some(1.0),
        ..Policy::default()
    };
    let request = Request {
        method: first.next()?,
        upstream: "https://provider",
        path: first.next()?,
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name, value.as_bytes()))
            .collect(),
        policy,
    };
    Some((request, &input[at + 2..]))
}

fn check_key(request: &mut Request<'_>, exchange: Exchange, body: &[u8]) {
    assert_eq!(
        Shape::from_token(&exchange.shape.token()),
        Some(exchange.shape)
    );
    let digest = Some(exchange.key.digest);
    let read = json::read(body).expect("what is cacheable is JSON");
    let Json::Object(members) = &read else {
        panic!("what is cacheable is an object");
    };
    assert_eq!(
        request.digest(&read.canonical()),
        digest,
        "another spelling"
    );
    let spaced = read.spelled(&mut |out| out.push_str(" \n"));
    assert_eq!(request.digest(&spaced), digest, "white space");
    let reversed = read.clone().reversed().canonical();
    assert_eq!(request.digest(&reversed), digest, "fields in another order");
    if members.iter().all(|(key, _)| key != "a field of tomorrow") {
        let mut more = members.clone();
        more.push(("a field of tomorrow".into(), Json::Word("1".into())));
        let more = request.digest(&Json::Object(more).canonical());
        assert!(more.is_some() && more != digest, "a field more");
    }
    let body = read.canonical();
    request.upstream = "https://other";
    assert_ne!(request.digest(&body), digest, "another provider");
    request.upstream = "https://provider";
    request.headers.push(("x-api-key", b"one more"));
    let named = request.policy.tenant_header.is_some();
    let other = request.digest(&body);
    assert!(
        named || other.is_some() && other != digest,
        "a credential more"
    );
}

fuzz_target!(|input: &[u8]| {
    let Some((mut request, body)) = split(input) else {
        return;
    };
    match request.classify(body) {
        Classified::Cacheable(exchange) => check_key(&mut request, exchange, body),
        Classified::Bypass(bypass) => {
            assert_eq!(Bypass::from_detail(bypass.detail()), Some(bypass));
            let read = json::read(body);
            match bypass {
                Bypass::NotJson
                | Bypass::TrailingData
                | Bypass::NotUtf8
                | Bypass::LoneSurrogate
                | Bypass::ByteOrderMark
                | Bypass::DuplicateKey
                | Bypass::TooDeep => assert_eq!(read, None, "{bypass}"),
                Bypass::NotObject => {
                    assert!(read.is_some_and(|read| !matches!(read, Json::Object(_))));
                }
                _ => {}
            }
        }
    }
});
