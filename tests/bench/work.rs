//! The work: requests with a prompt of 1 KiB, and answers of several kinds.

use bytes::Bytes;
use http_body::{Body, Frame};
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Sleep, sleep};

/// The prompt of each request.
const PROMPT_BYTES: usize = 1024;

/// Events of an answer that is a stream, the end included.
pub(crate) const EVENTS: usize = 50;

/// Events of a stream that drips, and the pause before each but the first.
pub(crate) const DRIPS: usize = 10;
const DRIP_PAUSE: Duration = Duration::from_millis(5);

/// Longer than any measurement takes.
pub(crate) const SLOW_ANSWER_TIME: Duration = Duration::from_secs(60);

/// One kind of answer, and the requests that get it.
#[derive(Clone)]
pub(crate) struct Work {
    /// In tables.
    pub(crate) name: &'static str,
    /// The `User-Agent` of its requests, by which servers that read no body know it. Caches do not
    /// tell requests apart by it.
    pub(crate) agent: &'static str,
    pub(crate) answer: Answer,
    streamed: bool,
}

#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes at once.
    Bytes(Bytes),
    /// [`DRIPS`] events, each with the time at which it was sent.
    Drip,
    /// These bytes after [`SLOW_ANSWER_TIME`].
    Slow(Bytes),
}

impl Work {
    /// Every kind.
    pub(crate) fn all() -> Vec<Self> {
        let work = |name, agent, answer, streamed| Self {
            name,
            agent,
            answer,
            streamed,
        };
        let json = |bytes| Answer::Bytes(json(bytes));
        vec![
            work("4 KiB", "bench/4k", json(4 << 10), false),
            work("64 KiB", "bench/64k", json(64 << 10), false),
            work("1 MiB", "bench/1m", json(1 << 20), false),
            work("SSE", "bench/sse", Answer::Bytes(stream()), true),
            work("drip", "bench/drip", Answer::Drip, true),
            work(
                "slow",
                "bench/slow",
                Answer::Slow(self::json(4 << 10)),
                false,
            ),
        ]
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut all = Self::all().into_iter();
        all.find(|work| work.name == name).expect("a known name")
    }

    pub(crate) fn content_type(&self) -> &'static str {
        if self.streamed {
            "text/event-stream"
        } else {
            "application/json"
        }
    }

    /// A request whose prompt ends in this number. Those of two works differ in their model, too.
    pub(crate) fn request(&self, number: u64) -> Vec<u8> {
        let prompt = format!("{}{number:020}", "p".repeat(PROMPT_BYTES - 20));
        let stream = if self.streamed {
            r#""stream":true,"#
        } else {
            ""
        };
        let agent = self.agent;
        let body = format!(
            r#"{{"model":"{agent}",{stream}"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
        );
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer bench\r\n\
             user-agent: {agent}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// A chat completion of so many bytes.
pub(crate) fn json(bytes: usize) -> Bytes {
    let start = r#"{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":""#;
    let end = r#""},"finish_reason":"stop"}]}"#;
    let content = "x".repeat(bytes - start.len() - end.len());
    format!("{start}{content}{end}").into()
}

fn event(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

const LAST_EVENTS: usize = 2;

fn last_events() -> String {
    event("{}", "\"stop\"") + "data: [DONE]\n\n"
}

/// A chat completion of [`EVENTS`] events.
fn stream() -> Bytes {
    let mut text = String::new();
    for number in LAST_EVENTS..EVENTS {
        text += &event(&format!(r#"{{"content":" word {number}"}}"#), "null");
    }
    (text + &last_events()).into()
}

/// The body of a stream that drips.
pub(crate) struct Drip {
    sent: usize,
    pause: Pin<Box<Sleep>>,
}

/// Stands before the time in an event of [`Drip`].
const SENT_AT: &str = "sent at ";

/// Nanoseconds since 1970, for events that arrive in another process of this machine.
pub(crate) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// When the events in this piece of a [`Drip`] were sent.
pub(crate) fn sent_at_ns(piece: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(piece);
    let after = text.split(SENT_AT).skip(1);
    let digits = after.map(|rest| rest.split('"').next().unwrap_or_default());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

impl Drip {
    pub(crate) fn new() -> Self {
        Self {
            sent: 0,
            pause: Box::pin(sleep(Duration::ZERO)),
        }
    }
}

impl Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent > DRIPS {
            return Poll::Ready(None);
        }
        // The first goes out with the head, without a look at the clock.
        if self.sent > 0 {
            ready!(self.pause.as_mut().poll(context));
        }
        self.pause = Box::pin(sleep(DRIP_PAUSE));
        let text = if self.sent == DRIPS {
            last_events()
        } else {
            let content = format!(r#"{{"content":"{SENT_AT}{}"}}"#, now_ns());
            event(&content, "null")
        };
        self.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[test]
    fn answers_have_the_sizes_of_their_names() {
        let bytes = |name| match Work::named(name).answer {
            Answer::Bytes(bytes) => bytes,
            _ => panic!("{name} is not in memory"),
        };
        assert_eq!(bytes("4 KiB").len(), 4 << 10);
        assert_eq!(bytes("1 MiB").len(), 1 << 20);
        let stream = bytes("SSE");
        let stream = String::from_utf8_lossy(&stream);
        assert_eq!(stream.matches("data: ").count(), EVENTS);
    }

    #[tokio::test]
    async fn a_drip_tells_when_each_event_was_sent() {
        let before = now_ns();
        let body = Drip::new().collect().await.expect("events").to_bytes();
        let sent = sent_at_ns(&body);
        assert_eq!(sent.len(), DRIPS);
        assert!(sent.is_sorted() && sent[0] >= before && sent[DRIPS - 1] <= now_ns());
        assert!(body.ends_with(b"data: [DONE]\n\n"));
    }

    #[test]
    fn requests_of_two_works_or_numbers_differ_in_their_body() {
        let body = |name, number| {
            let request = Work::named(name).request(number);
            let text = String::from_utf8(request).expect("text");
            text.split_once("\r\n\r\n").expect("a body").1.to_owned()
        };
        assert_ne!(body("4 KiB", 1), body("64 KiB", 1));
        assert_ne!(body("4 KiB", 1), body("4 KiB", 2));
        assert_eq!(body("4 KiB", 1), body("4 KiB", 1));
    }
}
