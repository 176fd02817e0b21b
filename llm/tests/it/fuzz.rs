//! Bytes that nobody would send, so many of them in each run of the tests: nothing panics, and
//! what is said of a stream does not depend on how it was cut.

use reflex_llm::{
    Anonymous, Control, Head, Limits, Policy, Recorder, Rejected, Shape, candidate, classify,
};

use crate::random::Random;
use crate::samples::{self, Sample};
use crate::valid;

/// So many inputs of each kind; `REFLEX_FUZZ_INPUTS` asks for more.
fn inputs() -> usize {
    const INPUTS: usize = 8_000;
    let asked = std::env::var("REFLEX_FUZZ_INPUTS").ok();
    asked.map_or(INPUTS, |asked| asked.parse().unwrap())
}

/// What JSON, event streams and our own words are made of.
const TOKENS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"\\",
    b"\\u",
    b"d800",
    b"null",
    b"true",
    b"-1e9",
    b"0",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"data: ",
    b"data",
    b"event: error",
    b"event:",
    b": ",
    b"[DONE]",
    b"data: [DONE]\n\n",
    b"data: {}\n\n",
    b"data: {\"choices\":[]}\n\n",
    b"data: {\"type\":\"message_stop\"}\n\n",
    b"data: {\"type\":\"ping\"}\n\n",
    b"\"type\":\"error\"",
    b"\"error\":null,",
    b"\"stop\"",
    b"\"length\"",
    b"\"finish_reason\":null",
    b"\"index\":4294967296",
    b"?key=",
    b"&alt=sse",
    b"%",
    b";",
];

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(40)).min(bytes.len());
    match random.below(6) {
        0 => drop(bytes.drain(at..end)),
        1 => bytes.truncate(at),
        2 => {
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        3 if at < bytes.len() => bytes[at] = random.next() as u8,
        _ => drop(bytes.splice(at..at, random.pick(TOKENS).iter().copied())),
    }
}

fn soup(random: &mut Random) -> Vec<u8> {
    let tokens = random.below(30);
    (0..tokens)
        .flat_map(|_| match random.below(4) {
            0 => vec![random.next() as u8],
            _ => random.pick(TOKENS).to_vec(),
        })
        .collect()
}

#[test]
fn no_request_makes_classify_panic() {
    let mut random = Random(21);
    for nth in 0..inputs() {
        let valid = &valid::ALL[nth % valid::ALL.len()];
        let json = valid.body(&mut random);
        let mut request = valid.request(&json, &mut random);
        match random.below(4) {
            0 => request.body = soup(&mut random),
            _ => (0..random.below(6)).for_each(|_| mutate(&mut request.body, &mut random)),
        }
        let mut path = request.path.clone().into_bytes();
        if random.below(4) == 0 {
            (0..random.below(4)).for_each(|_| mutate(&mut path, &mut random));
        }
        request.path = String::from_utf8_lossy(&path).into_owned();
        if random.below(4) == 0 {
            let name = random.pick(&["cookie", "cache-control", "x-reflex-ttl", "authorization"]);
            request = request.header(name, soup(&mut random));
        }
        // Twice the same, and the two stages say what the one says.
        let once = request.classify();
        assert_eq!(once, request.classify());
        let headers: Vec<(&str, &[u8])> = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let head = Head {
            method: &request.method,
            upstream: &request.upstream,
            path: &request.path,
            headers: &headers,
        };
        let policy = Policy {
            anonymous: Anonymous::Share,
            tenant_header: Some("cookie"),
            temperature_max: Some(1.0),
            ..Policy::default()
        };
        if let Ok(candidate) = candidate(&head, &policy) {
            let staged = candidate.classify(&request.body);
            assert_eq!(staged, classify(&head, &policy, &request.body));
        }
        assert_eq!(Control::of(&headers), Control::of(&headers));
    }
}

/// Records a body in pieces. Wherever the recorder says that it is complete, it is.
fn verdict(sample: &Sample, limits: Limits, chunks: &[&[u8]]) -> Result<Vec<u8>, Rejected> {
    let begin = || {
        let content_type: &[u8] = match sample.is_stream() {
            true => b"text/event-stream",
            false => b"application/json",
        };
        let mut recorder = Recorder::new(sample.shape(), limits);
        recorder
            .head(200, &[("content-type", content_type)])
            .unwrap();
        recorder
    };
    let mut recorder = begin();
    let mut fed = Vec::new();
    for chunk in chunks {
        recorder.feed(chunk);
        fed.extend_from_slice(chunk);
        if let Some(length) = recorder.complete() {
            let mut stopped = begin();
            stopped.feed(&fed);
            assert_eq!(length, fed.len());
            assert_eq!(stopped.finish().ok(), recorder.so_far());
        }
        assert_eq!(recorder.so_far().is_some(), recorder.complete().is_some());
    }
    recorder.finish().map(|kept| kept.body)
}

#[test]
fn any_chunking_of_any_answer_gives_the_same_verdict() {
    const ROOMY: Limits = Limits {
        body_bytes_max: 1 << 20,
        allow_length: false,
    };
    let mut random = Random(22);
    let (mut kept, mut refused) = (0, 0);
    for nth in 0..inputs() {
        let sample = &samples::ALL[nth % samples::ALL.len()];
        let mut body = match random.below(8) {
            0 => soup(&mut random),
            _ => sample.body.as_bytes().to_vec(),
        };
        (0..random.below(4)).for_each(|_| mutate(&mut body, &mut random));
        let whole = verdict(sample, ROOMY, &[&body]);
        match &whole {
            Ok(bytes) => {
                assert_eq!(*bytes, body, "what is kept is what was sent");
                kept += 1;
            }
            Err(_) => refused += 1,
        }
        let mut rest = &body[..];
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(1 + random.below(rest.len().min(60)));
            chunks.push(head);
            rest = tail;
        }
        assert_eq!(verdict(sample, ROOMY, &chunks), whole, "{}", sample.shape);
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(verdict(sample, ROOMY, &bytes), whole, "{}", sample.shape);
        // A bound is kept to, whatever comes.
        let tight = Limits {
            body_bytes_max: body.len() / 2,
            ..ROOMY
        };
        if let Ok(bytes) = verdict(sample, tight, &chunks) {
            assert!(bytes.len() <= tight.body_bytes_max);
        }
        // Nor does the reading of its usage panic, in any shape.
        let shape = samples::ALL[random.below(samples::ALL.len())].shape;
        Shape::from_name(shape).unwrap().usage(&body);
    }
    assert!(kept > 500 && refused > 500, "{kept} and {refused}");
}
