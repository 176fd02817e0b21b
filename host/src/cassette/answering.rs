//! One request: answered from the folder, or by the provider and recorded, or passed, or refused.

use super::Pace;
use super::asked::Asked;
use super::episode::{Episode, Next};
use super::folder::{EXCHANGES_MAX, Folder};
use super::provider::Provider;
use super::redact::Redactor;
use super::replaying;
use super::report::Report;
use super::rules::Rules;
use super::taping::{Head, tape};
use crate::exchange::body::ahead::read_ahead;
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use crate::serve::heads;
use crate::serve::own_error::ErrorVoice;
use crate::serve::plain::plain;
use crate::serve::timed::Timed;
use crate::serve::tunnel;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use reflex_llm::{Api, Bypass};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest request that is recorded.
const REQUEST_BYTES_MAX: u64 = 64 << 20;
/// Answers that are being recorded at once, each of which may hold as much as an answer may have.
const TAPES_MAX: usize = 256;

/// Tells the SDKs of OpenAI and Anthropic not to ask again: the next time, nothing is there, either.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Everything that a request needs on its way.
#[derive(Debug)]
pub(super) struct Deck {
    pub(super) folder: Folder,
    pub(super) rules: Arc<Rules>,
    pub(super) episode: Episode,
    /// None in a replay.
    pub(super) provider: Option<Provider>,
    pub(super) is_replay: bool,
    /// Paths of unknown APIs are recorded, too.
    pub(super) is_all: bool,
    pub(super) pace: Pace,
    pub(super) budget: Arc<Budget>,
    pub(super) idle_max: Duration,
    pub(super) request_max: Duration,
    pub(super) tally: Tally,
}

/// What has happened.
#[derive(Debug)]
pub(super) struct Tally {
    state: Mutex<State>,
    /// Answers that are being recorded.
    running: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    report: Report,
    next_number: u32,
}

impl Tally {
    pub(super) fn from(next_number: u32) -> Self {
        Self {
            state: Mutex::new(State {
                report: Report::default(),
                next_number,
            }),
            running: watch::channel(0).0,
        }
    }

    /// Waits until no answer is being recorded.
    pub(super) async fn all_written(&self) {
        let mut running = self.running.subscribe();
        // The sender is here.
        let _ = running.wait_for(|count| *count == 0).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is being recorded, from its request until its file is there.
struct Tape {
    deck: Arc<Deck>,
    number: u32,
    asked: Option<Asked>,
    name: String,
}

impl Drop for Tape {
    fn drop(&mut self) {
        if self.asked.take().is_some() {
            let why = "its answer did not come to an end".to_owned();
            self.deck.fail(self.name.clone(), why);
        }
        self.deck.tally.running.send_modify(|count| *count -= 1);
    }
}

impl Deck {
    /// What has become of the episode so far.
    pub(super) fn report(&self) -> Report {
        let mut report = self.tally.state().report.clone();
        // Each is told when it is dropped, which is too late for this report.
        let running = *self.tally.running.borrow();
        if running > 0 {
            let why = "it has not come to its end";
            report.fail(format!("{running} answers"), why.into());
        }
        report.recordings = self.episode.len();
        report.unused = self.episode.unused();
        report
    }

    fn fail(&self, asked: String, why: String) {
        tracing::warn!(asked = plain(&asked), why = plain(&why), "not recorded");
        self.tally.state().report.fail(asked, why);
    }

    /// Answers a request.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<BoxBody> {
        let voice = ErrorVoice::of(
            request.uri(),
            request.method(),
            request.headers(),
            &Arc::default(),
        );
        if !heads::fits(&request) {
            let why = "the head of the request is too large";
            return voice.error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why);
        }
        if *request.method() == Method::CONNECT || tunnel::wanted(&request).is_some() {
            let why = "a cassette has no WebSockets, and this is not a forward proxy";
            return voice.error(StatusCode::NOT_IMPLEMENTED, why);
        }
        let (parts, body) = request.into_parts();
        let body = Timed::request(body, self.idle_max, self.request_max);
        let read = read_ahead(body, REQUEST_BYTES_MAX, &self.budget, None).await;
        let (whole, body) = match read {
            Ok(read) => read.with_body(),
            Err(_) => return voice.cut_off(),
        };
        let path = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        let redactor = Redactor::of(&self.rules, &parts.headers, path);
        let name = format!("{} {}", parts.method, redactor.path(path));
        let asked = readable(&parts, &whole, &redactor);
        let asked = match asked {
            Ok(asked) => asked,
            Err(why) if self.is_replay => {
                let status = StatusCode::GATEWAY_TIMEOUT;
                return self.missing(&voice, status, name, why.into());
            }
            Err(why) => {
                self.fail(name, why.into());
                let whole = whole.unwrap_or_default();
                return self.pass(Request::from_parts(parts, body), &whole).await;
            }
        };
        let why = match self.episode.next(&asked) {
            Next::Answer(recording) => {
                tracing::debug!(recording = recording.name, "replayed");
                self.tally.state().report.replayed += 1;
                return replaying::response(&recording.answer, &parts.method, self.pace);
            }
            Next::None(why) => why,
        };
        if self.is_replay {
            return self.missing(&voice, StatusCode::GATEWAY_TIMEOUT, name, why);
        }
        let whole = whole.unwrap_or_default();
        if !self.is_all && Api::at(path, &[]).is_none() {
            return self.pass(Request::from_parts(parts, body), &whole).await;
        }
        let Some(tape) = self.begin(asked, name.clone()) else {
            let why =
                format!("more than {TAPES_MAX} answers at once, or {EXCHANGES_MAX} exchanges");
            self.fail(name, why);
            return self.pass(Request::from_parts(parts, body), &whole).await;
        };
        let request = Request::from_parts(parts, body);
        // On a task of its own: a client that leaves early does not end it.
        let recording = async move { self.record(tape, request, whole, redactor).await };
        match tokio::spawn(recording).await {
            Ok(response) => response,
            Err(_) => voice.error(StatusCode::INTERNAL_SERVER_ERROR, "recording has failed"),
        }
    }

    /// The response to a request that no recording answers.
    fn missing(
        &self,
        voice: &ErrorVoice,
        status: StatusCode,
        name: String,
        why: String,
    ) -> Response<BoxBody> {
        tracing::warn!(asked = plain(&name), why = plain(&why), "not found");
        let folder = plain(&self.folder.path().display().to_string());
        let told = format!("{} has no recording of {}: {why}", folder, plain(&name));
        self.tally.state().report.miss(name, why);
        let mut response = voice.error(status, &told);
        let headers = response.headers_mut();
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        response
    }

    /// Passes a request on that is not recorded.
    async fn pass(&self, request: Request<BoxBody>, whole: &[u8]) -> Response<BoxBody> {
        let voice = ErrorVoice::of(
            request.uri(),
            request.method(),
            request.headers(),
            &Arc::default(),
        );
        match &self.provider {
            Some(provider) => match provider.ask(request, whole).await {
                Ok(response) | Err(response) => response,
            },
            // Only a replay has none.
            None => voice.error(StatusCode::GATEWAY_TIMEOUT, "no provider"),
        }
    }

    /// A place for an answer that is to be recorded, in the order of requests.
    fn begin(self: &Arc<Self>, asked: Asked, name: String) -> Option<Tape> {
        let mut state = self.tally.state();
        if *self.tally.running.borrow() >= TAPES_MAX || state.next_number > EXCHANGES_MAX as u32 {
            return None;
        }
        let number = state.next_number;
        state.next_number += 1;
        self.tally.running.send_modify(|count| *count += 1);
        Some(Tape {
            deck: Arc::clone(self),
            number,
            asked: Some(asked),
            name,
        })
    }

    async fn record(
        self: &Arc<Self>,
        mut tape_of: Tape,
        request: Request<BoxBody>,
        whole: Bytes,
        redactor: Redactor,
    ) -> Response<BoxBody> {
        let Some(provider) = &self.provider else {
            return self.pass(request, &whole).await;
        };
        let sent = Instant::now();
        let response = match provider.ask(request, &whole).await {
            Ok(response) => response,
            Err(response) => {
                tape_of.asked = None;
                let why = "the provider could not be reached: that is no answer of its".to_owned();
                self.fail(tape_of.name.clone(), why);
                return response;
            }
        };
        let head = Head::of(response.status(), response.headers(), &redactor);
        let (response, passing) = tape(response, head, sent, move |taped| async move {
            let Some(asked) = tape_of.asked.take() else {
                return;
            };
            let file = asked.file_name(tape_of.number);
            let deck = Arc::clone(&tape_of.deck);
            let written = taped.exchange(asked, &redactor);
            let written = written.and_then(|exchange| deck.folder.write(&file, &exchange.write()));
            match written {
                Ok(()) => {
                    tracing::debug!(file, "recorded");
                    deck.tally.state().report.recorded += 1;
                }
                Err(why) => deck.fail(tape_of.name.clone(), why),
            }
        });
        tokio::spawn(passing);
        response
    }
}

/// The request as it is looked for, or why it cannot be.
fn readable(
    parts: &Parts,
    whole: &Result<Bytes, Bypass>,
    redactor: &Redactor,
) -> Result<Asked, &'static str> {
    let whole = match whole {
        Ok(whole) => whole,
        Err(Bypass::BodyTooLarge) => return Err("its body is longer than 64 MiB"),
        Err(Bypass::Trailers) => return Err("it has trailers"),
        Err(_) => return Err("the requests under way hold all the memory that they may"),
    };
    let mut codings = parts.headers.get_all(CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err("its body is compressed, and may hold a credential");
    }
    Asked::of(parts, whole, redactor).ok_or("its body is no text and holds its credential")
}
