//! The daemon's edge API as the filter speaks it: requests out, replies in. `docs/edge-api.md`
//! describes the API.

use std::rc::Rc;

use reflex_llm::{Key, Shape, status};

use crate::answer::Answer;

/// A request to the daemon.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// With version and key.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// What is to be stored.
    pub body: Option<Rc<Answer>>,
    /// How long the daemon may take.
    pub timeout_ms: u64,
}

/// What the daemon needs to know of an answer that it stores.
#[derive(Clone, Copy, Debug)]
pub struct Insert<'a> {
    /// Under which it is stored.
    pub key: &'a Key,
    /// The shape by which the daemon judges it once more.
    pub shape: Shape,
    /// The model that was asked for, at most [`reflex_llm::MODEL_BYTES_MAX`].
    pub model: Option<&'a str>,
    /// How long it lives; `None`: it never expires.
    pub ttl_seconds: Option<u64>,
    /// In how many seconds it may not be served stale either; none is as the daemon's operator
    /// says.
    pub end_seconds: Option<u64>,
    /// How old it is already: another cache on the way had it.
    pub age_seconds: u64,
    /// A purge since then refuses it.
    pub epoch: Option<&'a Epoch>,
    /// The fill that ends with it.
    pub fill: Option<&'a str>,
}

/// The daemon's reply to a lookup.
#[derive(Debug)]
pub enum Reply {
    /// It has the answer.
    Found(Found),
    /// It does not, and this request is to fetch it.
    Lead,
    /// It does not, and another request fetches it.
    Busy,
    /// It does not.
    Absent,
    /// It did not answer, or its reply is invalid.
    Failed,
}

/// An answer of the daemon.
#[derive(Debug)]
pub struct Found {
    /// The answer.
    pub answer: Rc<Answer>,
    /// Whether it was fetched while this request waited for it.
    pub collapsed: bool,
}

/// Changes with each purge, and when the daemon starts. Opaque.
pub type Epoch = Rc<str>;

/// What a reply tells of purges.
#[derive(Debug, PartialEq)]
pub struct Told {
    /// What the epoch is by now.
    pub epoch: Epoch,
    /// The epoch since which the reply lists the purges, and the list. Without it, everything may
    /// have been purged.
    pub since: Option<(Epoch, Vec<Purged>)>,
}

/// What was purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// Everything.
    All,
    /// What this tenant has.
    Tenant([u8; 32]),
    /// What is kept under this digest.
    Digest([u8; 32]),
}

impl Purged {
    /// Whether a key is among what was purged.
    pub fn covers(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(tenant) => key.tenant.0 == *tenant,
            Self::Digest(digest) => key.digest == *digest,
        }
    }
}

/// A message's headers, names in lower case.
pub type Headers<'h> = [(&'h str, &'h [u8])];

/// How long a daemon that waits for a fill may take beyond the wait.
const WAIT_SLACK_MS: u64 = 100;

/// Timeout of calls whose reply is ignored.
const NOTE_TIMEOUT_MS: u64 = 1000;

/// Upper bound of the length of an epoch.
const EPOCH_BYTES_MAX: usize = 64;

const EPOCH: &str = "x-reflex-epoch";
const PURGED_SINCE: &str = "x-reflex-purged-since";
const PURGED: &str = "x-reflex-purged";
const FILL: &str = "x-reflex-fill";
const FILL_ID: &str = "x-reflex-fill-id";
const WAIT: &str = "x-reflex-wait";
const TTL: &str = "x-reflex-ttl";
const END: &str = "x-reflex-end";
const SHAPE: &str = "x-reflex-shape";
const MODEL: &str = "x-reflex-model";
const ENTRY: &str = "x-reflex-entry";

impl Request {
    /// Asks for an answer; with `fill`, to lead the fill of it under that name. `known` is what is
    /// known of purges.
    pub fn lookup(key: &Key, fill: Option<&str>, known: Option<&Epoch>, timeout_ms: u64) -> Self {
        let fill = fill.map(|fill| (FILL_ID, fill.to_owned()));
        let headers = fill.into_iter().chain(epoch_header(known)).collect();
        Self::new("GET", entry(key), headers, timeout_ms)
    }

    /// Waits for an answer that another request fetches.
    pub fn wait(key: &Key, known: Option<&Epoch>, wait_ms: u64) -> Self {
        let wait = [(WAIT, wait_ms.to_string())];
        let headers = wait.into_iter().chain(epoch_header(known)).collect();
        Self::new("GET", entry(key), headers, wait_ms + WAIT_SLACK_MS)
    }

    /// Stores an answer.
    pub fn insert(insert: &Insert<'_>, answer: &Rc<Answer>, timeout_ms: u64) -> Self {
        let ttl = insert.ttl_seconds.map(|ttl| ttl.to_string());
        let mut headers = vec![
            (TTL, ttl.unwrap_or_else(|| "never".into())),
            (SHAPE, insert.shape.token().into_owned()),
        ];
        let end = insert.end_seconds.map(|end| (END, end.to_string()));
        headers.extend(end);
        if insert.age_seconds > 0 {
            headers.push((status::AGE, insert.age_seconds.to_string()));
        }
        // The daemon refuses a name that no header can have, and the answer with it.
        let model = insert.model.filter(|model| is_visible(model));
        headers.extend(model.map(|model| (MODEL, model.to_owned())));
        headers.extend(epoch_header(insert.epoch));
        headers.extend(insert.fill.map(|fill| (FILL_ID, fill.to_owned())));
        Self {
            body: Some(Rc::clone(answer)),
            ..Self::new("PUT", entry(insert.key), headers, timeout_ms)
        }
    }

    /// Gives back the lead of a fill: there will be no answer.
    pub fn release(key: &Key, fill: &str) -> Self {
        let headers = vec![(FILL_ID, fill.to_owned())];
        Self::new("DELETE", entry(key) + "/fill", headers, NOTE_TIMEOUT_MS)
    }

    /// Asks for purges.
    pub fn epoch(known: Option<&Epoch>, timeout_ms: u64) -> Self {
        let headers = epoch_header(known).into_iter().collect();
        Self::new("GET", "/v1/epoch".into(), headers, timeout_ms)
    }

    fn new(
        method: &'static str,
        path: String,
        headers: Vec<(&'static str, String)>,
        timeout_ms: u64,
    ) -> Self {
        Self {
            method,
            path,
            headers,
            body: None,
            timeout_ms,
        }
    }
}

fn epoch_header(known: Option<&Epoch>) -> Option<(&'static str, String)> {
    known.map(|epoch| (EPOCH, epoch.to_string()))
}

/// What the daemon has said to a lookup of `key`.
pub fn reply(
    key: &Key,
    headers: &Headers<'_>,
    now_ms: u64,
    body: impl FnOnce() -> Option<Vec<u8>>,
) -> Reply {
    if epoch(headers, EPOCH).is_none() {
        return Reply::Failed;
    }
    let fill = value(headers, FILL);
    match value(headers, ":status") {
        Some("200") => {
            // The reply names the key of its answer, so that a mix-up on the way is not served.
            if !value(headers, ENTRY).is_some_and(|it| it.chars().eq(hex(&key.digest))) {
                return Reply::Failed;
            }
            // Envoy takes only headers that are text. Such a reply is no failure of the daemon.
            let is_text = |value: &[u8]| std::str::from_utf8(value).is_ok();
            if !kept(headers).all(|(_, value)| is_text(value)) {
                return Reply::Absent;
            }
            let found = answer(headers, now_ms, body);
            found.map_or(Reply::Failed, |answer| {
                Reply::Found(Found {
                    answer: Rc::new(answer),
                    collapsed: fill == Some("collapsed"),
                })
            })
        }
        Some("404") => match fill {
            Some("leader") => Reply::Lead,
            Some("busy") => Reply::Busy,
            _ => Reply::Absent,
        },
        _ => Reply::Failed,
    }
}

/// The purges that a reply of the daemon lists; none if the reply is not the daemon's.
pub fn told(headers: &Headers<'_>) -> Option<Told> {
    let purged = || {
        let since = Epoch::from(epoch(headers, PURGED_SINCE)?);
        let parts = value(headers, PURGED)?.split(',').map(str::trim);
        let parts = parts.filter(|part| !part.is_empty());
        // A list that is not understood may cover everything.
        let purged: Option<Vec<_>> = parts.map(purged).collect();
        Some((since, purged?))
    };
    Some(Told {
        epoch: epoch(headers, EPOCH)?.into(),
        since: purged(),
    })
}

fn epoch<'h>(headers: &Headers<'h>, name: &str) -> Option<&'h str> {
    let epoch = value(headers, name)?;
    (1..=EPOCH_BYTES_MAX)
        .contains(&epoch.len())
        .then_some(epoch)
}

fn purged(part: &str) -> Option<Purged> {
    let (what, bytes) = part.split_once('=')?;
    let bytes = bytes32(bytes)?;
    match what {
        "tenant" => Some(Purged::Tenant(bytes)),
        "digest" => Some(Purged::Digest(bytes)),
        _ => None,
    }
}

fn bytes32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |at: usize| (pair[at] as char).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(bytes)
}

/// Whether a reply to an insert, a purge or the like reports success.
pub fn is_done(headers: &Headers<'_>) -> bool {
    value(headers, ":status").is_some_and(|status| status.starts_with('2'))
}

fn answer(
    headers: &Headers<'_>,
    now_ms: u64,
    body: impl FnOnce() -> Option<Vec<u8>>,
) -> Option<Answer> {
    let seconds = |name| match value(headers, name) {
        None => Some(None),
        Some(text) => text.parse::<u64>().ok().map(Some),
    };
    let age_ms = seconds(status::AGE)??.saturating_mul(1000);
    let expires_at_ms = seconds(TTL)?.map(|ttl| now_ms.saturating_add(ttl.saturating_mul(1000)));
    let kept = kept(headers)
        .map(|(name, value)| {
            let value = std::str::from_utf8(value).ok()?;
            Some(((*name).to_owned(), value.to_owned()))
        })
        .collect::<Option<_>>()?;
    Some(Answer {
        headers: kept,
        body: body()?,
        stored_at_ms: now_ms.saturating_sub(age_ms),
        expires_at_ms,
    })
}

/// The headers that belong to an answer.
fn kept<'h, 'a>(headers: &'a Headers<'h>) -> impl Iterator<Item = &'a (&'h str, &'h [u8])> {
    let all = headers.iter();
    all.filter(|(name, _)| reflex_llm::is_kept(name) || *name == status::X_REFLEX_SAVED_TOKENS)
}

fn value<'h>(headers: &Headers<'h>, name: &str) -> Option<&'h str> {
    let found = headers.iter().find(|(other, _)| *other == name);
    found.and_then(|(_, value)| std::str::from_utf8(value).ok())
}

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn entry(key: &Key) -> String {
    const ENTRIES: &str = "/v1/entries/";
    let mut path = String::with_capacity(ENTRIES.len() + 2 * 64 + "//fill".len());
    path.push_str(ENTRIES);
    path.extend(hex(&key.tenant.0));
    path.push('/');
    path.extend(hex(&key.digest));
    path
}

/// The digits of these bytes. Without the formatter, which takes 2 µs for a key in wasm.
fn hex(bytes: &[u8; 32]) -> impl Iterator<Item = char> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 0xf)]);
    let digits = bytes.iter();
    digits.flat_map(move |byte| [digit(byte >> 4), digit(*byte)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use reflex_llm::Tenant;

    fn key() -> Key {
        Key {
            tenant: Tenant([0xab; 32]),
            digest: [0x01; 32],
        }
    }

    fn headers<'h>(all: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h [u8])> {
        let all = all.iter();
        all.map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    fn ask(all: &[(&str, &str)]) -> Reply {
        reply(&key(), &headers(all), 100_000, || Some(b"{}".to_vec()))
    }

    type Fields = Vec<(&'static str, &'static str)>;

    fn hit() -> Fields {
        const DIGEST: &str = "0101010101010101010101010101010101010101010101010101010101010101";
        vec![
            (":status", "200"),
            ("x-reflex-epoch", "1.0"),
            ("x-reflex-entry", DIGEST),
            ("content-type", "application/json"),
            ("age", "7"),
            ("x-reflex-ttl", "60"),
            ("server", "envoy"),
        ]
    }

    #[test]
    fn a_hit_brings_the_answer_with_its_times_and_only_the_headers_that_are_kept() {
        let Reply::Found(found) = ask(&hit()) else {
            panic!("not found")
        };
        let kept = [("content-type".to_owned(), "application/json".to_owned())];
        assert_eq!(found.answer.headers, kept);
        assert_eq!(found.answer.body, b"{}");
        assert_eq!(found.answer.stored_at_ms, 93_000);
        assert_eq!(found.answer.expires_at_ms, Some(160_000));
        assert!(!found.collapsed);
    }

    #[test]
    fn a_header_that_is_no_text_is_no_failure_of_the_daemon() {
        let hit = hit();
        let mut all = headers(&hit);
        all.push(("content-disposition", b"\xe4"));
        let said = reply(&key(), &all, 0, || Some(Vec::new()));
        assert!(matches!(said, Reply::Absent), "{said:?}");
        all.pop();
        all.push(("x-request-id", b"\xe4"));
        let said = reply(&key(), &all, 0, || Some(Vec::new()));
        assert!(matches!(said, Reply::Found(_)), "{said:?}");
    }

    #[test]
    fn nonsense_is_a_failure() {
        let check = |change: &dyn Fn(&mut Fields)| {
            let mut all = hit();
            change(&mut all);
            assert!(matches!(ask(&all), Reply::Failed), "{all:?}");
        };
        let drop = |name: &'static str| move |all: &mut Fields| all.retain(|(it, _)| *it != name);
        check(&drop(":status"));
        check(&drop("x-reflex-epoch"));
        check(&drop("x-reflex-entry"));
        check(&drop("age"));
        check(&|all| all[0].1 = "204");
        check(&|all| all[0].1 = "503");
        check(&|all| all[2].1 = "02");
        check(&|all| all[4].1 = "soon");
        check(&|all| all[5].1 = "-1");
        assert!(matches!(ask(&[]), Reply::Failed));
        let cut = reply(&key(), &headers(&hit()), 0, || None);
        assert!(matches!(cut, Reply::Failed));
    }

    #[test]
    fn what_was_purged_is_told_one_by_one_or_not_at_all() {
        let check = |all: &[(&str, &str)], expected: Option<&[Purged]>| {
            let mut all = all.to_vec();
            all.push(("x-reflex-epoch", "1.4"));
            let told = told(&headers(&all)).expect("of the daemon");
            assert_eq!(&*told.epoch, "1.4");
            let since = told.since.map(|(since, purged)| {
                assert_eq!(&*since, "1.2");
                purged
            });
            assert_eq!(since.as_deref(), expected, "{all:?}");
        };
        let since = ("x-reflex-purged-since", "1.2");
        let of = |text: &str| {
            let text = text
                .replace("AB", &"ab".repeat(32))
                .replace("01", &"01".repeat(32));
            text.leak() as &str
        };
        check(&[], None);
        check(&[since], None);
        check(&[("x-reflex-purged", "")], None);
        check(&[since, ("x-reflex-purged", "")], Some(&[]));
        let purged = of("digest=01, tenant=AB");
        let both = [Purged::Digest([1; 32]), Purged::Tenant([0xab; 32])];
        check(&[since, ("x-reflex-purged", purged)], Some(&both));
        for nonsense in [
            "all",
            "digest=0",
            "digest=+1",
            of("digest=01, more"),
            of("model=01"),
        ] {
            check(&[since, ("x-reflex-purged", nonsense)], None);
        }
        assert_eq!(told(&headers(&[since])), None);
    }

    #[test]
    fn a_miss_says_which_request_fills_it() {
        let miss = |fill| {
            let mut all = vec![(":status", "404"), ("x-reflex-epoch", "1.0")];
            all.extend(fill);
            ask(&all)
        };
        assert!(matches!(miss(None), Reply::Absent));
        assert!(matches!(
            miss(Some(("x-reflex-fill", "leader"))),
            Reply::Lead
        ));
        assert!(matches!(miss(Some(("x-reflex-fill", "busy"))), Reply::Busy));
        // A 404 that is not the daemon's.
        assert!(matches!(ask(&[(":status", "404")]), Reply::Failed));
    }

    #[test]
    fn requests_name_the_entry_in_full() {
        let known = Epoch::from("1.0");
        let lookup = Request::lookup(&key(), Some("f1"), None, 9);
        let path = format!("/v1/entries/{}/{}", "ab".repeat(32), "01".repeat(32));
        assert_eq!((lookup.method, &lookup.path), ("GET", &path));
        assert_eq!(lookup.headers, [("x-reflex-fill-id", "f1".to_owned())]);
        // Each request says which epoch is known.
        let epoch = ("x-reflex-epoch", "1.0".to_owned());
        for request in [
            Request::lookup(&key(), None, Some(&known), 9),
            Request::wait(&key(), Some(&known), 9),
            Request::epoch(Some(&known), 9),
        ] {
            assert!(request.headers.contains(&epoch), "{request:?}");
        }
        let release = Request::release(&key(), "f1");
        assert_eq!((release.method, release.path), ("DELETE", path + "/fill"));
    }

    #[test]
    fn an_insert_names_the_model_if_a_header_can() {
        let answer = Rc::new(Answer {
            headers: Vec::new(),
            body: Vec::new(),
            stored_at_ms: 0,
            expires_at_ms: None,
        });
        let named = |model: Option<&str>| {
            let insert = Insert {
                key: &key(),
                shape: Shape::from_token("chat-completions").expect("a shape"),
                model,
                ttl_seconds: None,
                end_seconds: None,
                age_seconds: 0,
                epoch: None,
                fill: None,
            };
            let request = Request::insert(&insert, &answer, 9);
            let mut headers = request.headers.into_iter();
            headers.find_map(|(name, value)| (name == "x-reflex-model").then_some(value))
        };
        assert_eq!(named(Some("gpt-5:x/y")).as_deref(), Some("gpt-5:x/y"));
        for model in [None, Some("a\r\nb"), Some("gpt 5"), Some("größe"), Some("")] {
            assert_eq!(named(model), None, "{model:?}");
        }
    }
}
