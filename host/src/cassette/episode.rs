//! The recordings of a folder: which answers a request, and which comes nearest to one that is not there.

use super::asked::Asked;
use super::body::Body;
use super::file::{Answer, Exchange};
use crate::serve::plain::plain;
use reflex_llm::{KeyedKind, body_differences};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Recordings that a request is compared with when none answers it.
const COMPARED_MAX: usize = 256;
/// Differences to the nearest recording that are told.
const TOLD_MAX: usize = 5;
/// Longest value that is told, in bytes.
const VALUE_BYTES_MAX: usize = 200;

/// A recording, ready to be answered with.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) name: String,
    pub(super) asked: Asked,
    pub(super) answer: Answer,
}

/// All recordings of a folder.
#[derive(Debug)]
pub(super) struct Episode {
    recordings: Vec<Arc<Recording>>,
    by_identity: HashMap<[u8; 32], Vec<usize>>,
    /// How many answers each request was given.
    given: Mutex<HashMap<[u8; 32], usize>>,
}

/// What becomes of a request.
pub(super) enum Next {
    /// Its next answer.
    Answer(Arc<Recording>),
    /// Nothing answers it, and why.
    None(String),
}

impl Episode {
    pub(super) fn of(exchanges: Vec<(String, Exchange)>) -> Self {
        let mut by_identity: HashMap<_, Vec<usize>> = HashMap::with_capacity(exchanges.len());
        let mut recordings = Vec::with_capacity(exchanges.len());
        for (name, exchange) in exchanges {
            let Exchange { asked, answer } = exchange;
            let same = by_identity.entry(asked.identity()).or_default();
            same.push(recordings.len());
            recordings.push(Arc::new(Recording {
                name,
                asked,
                answer,
            }));
        }
        Self {
            recordings,
            by_identity,
            given: Mutex::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.recordings.len()
    }

    /// The next answer to a request: the first the first time, and so on.
    pub(super) fn next(&self, asked: &Asked) -> Next {
        let identity = asked.identity();
        let Some(places) = self.by_identity.get(&identity) else {
            return Next::None(self.nearest(asked));
        };
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let count = given.entry(identity).or_default();
        match places.get(*count) {
            Some(&place) => {
                *count += 1;
                Next::Answer(Arc::clone(&self.recordings[place]))
            }
            None => {
                let last = places
                    .last()
                    .map(|&last| self.recordings[last].name.as_str());
                let last = last.unwrap_or_default();
                Next::None(match count {
                    1 => format!("it was recorded once ({last}), and is asked again"),
                    count => format!(
                        "it was recorded {count} times (last in {last}), and is asked once more"
                    ),
                })
            }
        }
    }

    /// The names of recordings that no request has asked for.
    pub(super) fn unused(&self) -> Vec<String> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unused = Vec::new();
        for (identity, places) in &self.by_identity {
            let count = given.get(identity).copied().unwrap_or_default();
            unused.extend(places.iter().skip(count).copied());
        }
        unused.sort_unstable();
        let names = unused
            .into_iter()
            .map(|place| self.recordings[place].name.clone());
        names.collect()
    }

    /// By what a request differs from the recording that comes nearest.
    fn nearest(&self, asked: &Asked) -> String {
        let is_there = |it: &&Arc<Recording>| {
            (it.asked.method(), path_of(&it.asked)) == (asked.method(), path_of(asked))
        };
        let candidates = self.recordings.iter().filter(is_there).take(COMPARED_MAX);
        let compared = candidates.map(|it| (it, differences(&it.asked, asked)));
        let nearest = compared.min_by_key(|(_, found)| found.len());
        let Some((nearest, found)) = nearest else {
            return match self.recordings.first() {
                None => "the cassette is empty".into(),
                Some(first) => format!(
                    "no recording has this method and path; the first is {} {} in {}",
                    plain(first.asked.method()),
                    plain(first.asked.path()),
                    first.name
                ),
            };
        };
        let mut told = format!(
            "the nearest recording is {}, which differs in ",
            nearest.name
        );
        for (number, difference) in found.iter().take(TOLD_MAX).enumerate() {
            let _ = match number {
                0 => write!(told, "{difference}"),
                _ => write!(told, "; in {difference}"),
            };
        }
        if found.len() > TOLD_MAX {
            let _ = write!(told, "; and in {} more", found.len() - TOLD_MAX);
        }
        told
    }
}

fn path_of(asked: &Asked) -> &str {
    asked.path().split('?').next().unwrap_or_default()
}

/// What a recorded request and another differ in, each with both values.
fn differences(recorded: &Asked, asked: &Asked) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |what: String, left: Option<&[u8]>, right: Option<&[u8]>| {
        found.push(format!(
            "{what}: recorded {}, asked {}",
            shown(left),
            shown(right)
        ));
    };
    if recorded.path() != asked.path() {
        let (left, right) = (recorded.path().as_bytes(), asked.path().as_bytes());
        add("the query".into(), Some(left), Some(right));
    }
    let value = |of: &Asked, name: &str| {
        let values = of.headers().iter().filter(|(other, _)| other == name);
        let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    let mut names: Vec<&str> = recorded.headers().iter().map(|it| it.0.as_str()).collect();
    names.extend(asked.headers().iter().map(|it| it.0.as_str()));
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (left, right) = (value(recorded, name), value(asked, name));
        if left != right {
            let (left, right) = (left.as_deref(), right.as_deref());
            let bytes = |value: Option<&str>| value.map(|it| it.as_bytes().to_owned());
            add(
                format!("header `{}`", plain(name)),
                bytes(left).as_deref(),
                bytes(right).as_deref(),
            );
        }
    }
    match (recorded.json(), asked.json()) {
        (Some(left), Some(right)) => {
            let told = body_differences(left.as_bytes(), right.as_bytes());
            for difference in &told.found {
                let what = match (&difference.kind, difference.name.as_str()) {
                    (KeyedKind::Field, "") => "the body".to_owned(),
                    (_, name) => format!("field `{}`", plain(name)),
                };
                let (left, right) = (difference.left.as_deref(), difference.right.as_deref());
                match difference.is_order {
                    true => add(format!("{what}, the order of members"), left, right),
                    false => add(what, left, right),
                }
            }
        }
        _ if recorded.body() != asked.body() => {
            let bytes = |body: &Body| {
                let parts = body.restored().into_iter().map(|(_, part)| part);
                parts.flatten().collect::<Vec<u8>>()
            };
            let (left, right) = (bytes(recorded.body()), bytes(asked.body()));
            add("the body".into(), Some(&left), Some(&right));
        }
        _ => {}
    }
    found
}

fn shown(value: Option<&[u8]>) -> String {
    let Some(value) = value else {
        return "nothing".into();
    };
    let text = String::from_utf8_lossy(value);
    let mut end = text.len().min(VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let more = if end < text.len() { "…" } else { "" };
    format!("{}{more}", plain(&text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cassette::asked::tests::asked;
    use http::StatusCode;

    const CHAT: &str = "/v1/chat/completions";

    fn body(prompt: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]}}"#)
    }

    fn episode(asked: &[Asked]) -> Episode {
        let exchanges = asked.iter().enumerate().map(|(number, asked)| {
            let answer = Answer {
                status: StatusCode::from_u16(200 + number as u16).expect("a status"),
                headers: Vec::new(),
                body: Body::Empty,
                is_cut: false,
            };
            let asked = asked.clone();
            (format!("{number:04}"), Exchange { asked, answer })
        });
        Episode::of(exchanges.collect())
    }

    fn next(episode: &Episode, asked: &Asked) -> Result<String, String> {
        match episode.next(asked) {
            Next::Answer(recording) => Ok(recording.name.clone()),
            Next::None(why) => Err(why),
        }
    }

    #[test]
    fn a_repeated_request_gets_its_next_answer_and_none_twice() {
        let (one, other) = (asked(CHAT, &[], &body("a")), asked(CHAT, &[], &body("b")));
        let episode = episode(&[one.clone(), other.clone(), one.clone()]);
        assert_eq!(next(&episode, &one).as_deref(), Ok("0000"));
        assert_eq!(episode.unused(), ["0001", "0002"]);
        assert_eq!(next(&episode, &one).as_deref(), Ok("0002"));
        let why = next(&episode, &one).expect_err("no third answer");
        assert!(why.contains("2 times") && why.contains("0002"), "{why}");
        assert_eq!(next(&episode, &other).as_deref(), Ok("0001"));
        assert!(episode.unused().is_empty());
    }

    #[test]
    fn the_nearest_recording_is_named_with_both_values() {
        let far = asked(CHAT, &[], r#"{"model":"other","n":2}"#);
        let near = asked(CHAT, &[("openai-beta", "a")], &body("Hello"));
        let episode = episode(&[far, near]);
        let other = asked(CHAT, &[("openai-beta", "a")], &body("Hullo"));
        let why = next(&episode, &other).expect_err("no answer");
        let expected = "the nearest recording is 0001, which differs in field `messages[0].content`: recorded \
                        \"Hello\", asked \"Hullo\"";
        assert_eq!(why, expected);
        let other = asked(CHAT, &[], &body("Hello"));
        let why = next(&episode, &other).expect_err("no answer");
        assert!(
            why.ends_with("header `openai-beta`: recorded a, asked nothing"),
            "{why}"
        );
        let other = asked("/v1/embeddings", &[], "{}");
        let why = next(&episode, &other).expect_err("no answer");
        assert!(
            why.contains("no recording has this method and path"),
            "{why}"
        );
        let why = next(&super::Episode::of(Vec::new()), &other).expect_err("no answer");
        assert_eq!(why, "the cassette is empty");
    }

    #[test]
    fn values_are_told_without_secrets_and_bounded() {
        let near = asked(CHAT, &[], &body("a"));
        let episode = episode(&[near]);
        let secret = "sk-0123456789abcdefgh";
        let long = body(&format!("{secret} {}", "x".repeat(1000)));
        let why = next(&episode, &asked(CHAT, &[("x-api-key", secret)], &long));
        let why = why.expect_err("no answer");
        assert!(!why.contains(secret) && why.contains("[redacted]"), "{why}");
        assert!(why.len() < 1000, "{why}");
    }
}
