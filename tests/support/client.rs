//! A client that sees every byte, and an answer as it sees it.
//!
//! It does not follow redirects, retry or decompress: a cache's mistakes would hide behind that.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::within;

/// The path of chat completions.
pub const CHAT: &str = "/v1/chat/completions";

/// A request to be made.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    /// Sent in parts of so many bytes, its length unsaid.
    part: Option<usize>,
}

impl Ask {
    /// A chat completion for this prompt, with the credential `Bearer test`.
    pub fn chat(prompt: &str) -> Self {
        Self::body(chat_body(prompt).to_string())
    }

    /// The same as a stream.
    pub fn stream(prompt: &str) -> Self {
        let mut body = chat_body(prompt);
        body["stream"] = json!(true);
        Self::body(body.to_string())
    }

    /// A chat completion with these bytes as its body, whatever they are.
    pub fn body(body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            path: CHAT.into(),
            headers: vec![
                ("content-type".into(), "application/json".into()),
                ("authorization".into(), "Bearer test".into()),
            ],
            body: body.into(),
            part: None,
        }
    }

    /// A request to any API, with the credential `Bearer test`.
    pub fn to(path: &str, body: &Value) -> Self {
        Self {
            path: path.into(),
            ..Self::body(body.to_string())
        }
    }

    /// A GET without credential.
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            part: None,
        }
    }

    /// Any request, without headers.
    pub fn new(method: Method, path: &str, body: impl Into<Bytes>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: body.into(),
            part: None,
        }
    }

    /// With another credential, or none.
    pub fn key(mut self, key: Option<&str>) -> Self {
        self.headers.retain(|(name, _)| name != "authorization");
        match key {
            Some(key) => self.header("authorization", &format!("Bearer {key}")),
            None => self,
        }
    }

    /// With one header more.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a wish for how the provider treats it; see [`crate::behaviour::Behaviour`].
    pub fn mock(self, behaviour: &str) -> Self {
        self.header("x-mock", behaviour)
    }

    /// With another body.
    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sent in parts of so many bytes, without saying how long it is.
    pub fn chunked(mut self, part: usize) -> Self {
        self.part = Some(part);
        self
    }

    /// As a message to the server at `base`, with a body of any kind.
    ///
    /// # Panics
    ///
    /// If the test has made something up that is not a request.
    pub fn into_request<B>(self, base: &str, body: B) -> Request<B> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("{base}{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(body).expect("a request that can be sent")
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is sent as the body.
    pub fn sent(&self) -> &Bytes {
        &self.body
    }
}

/// The body of a request.
#[derive(Debug)]
struct Sent {
    parts: VecDeque<Bytes>,
    /// What the client says of it in advance.
    length: Option<u64>,
}

impl Sent {
    fn of(mut body: Bytes, part: Option<usize>) -> Self {
        let length = part.is_none().then_some(body.len() as u64);
        let part = part.unwrap_or(body.len());
        let mut parts = VecDeque::new();
        while !body.is_empty() {
            parts.push_back(body.split_to(part.min(body.len())));
        }
        Self { parts, length }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

fn chat_body(prompt: &str) -> Value {
    json!({"model": "mock", "messages": [{"role": "user", "content": prompt}]})
}

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    pool: Pool<HttpConnector, Sent>,
}

impl Client {
    /// A client of the server at `base`, `http://ADDRESS`.
    pub fn new(base: &str) -> Self {
        Self {
            base: base.into(),
            pool: Pool::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The same over HTTP/2 without TLS.
    pub fn http2(base: &str) -> Self {
        let pool = Pool::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        Self {
            base: base.into(),
            pool,
        }
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Panics
    ///
    /// If the server sends no response.
    pub async fn send(&self, ask: Ask) -> Streaming {
        self.try_send(ask)
            .await
            .unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// The same where there may be none.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or closed the connection before it answered.
    ///
    /// # Panics
    ///
    /// If it takes too long, or the test has made something up that is not a request.
    pub async fn try_send(&self, ask: Ask) -> Result<Streaming, String> {
        let body = Sent::of(ask.body.clone(), ask.part);
        let request = ask.into_request(&self.base, body);
        let response = within("the head of a response", self.pool.request(request))
            .await
            .map_err(|error| format!("{error:?}"))?;
        Ok(Streaming::new(response))
    }

    /// Sends a request and waits for the whole answer.
    pub async fn fetch(&self, ask: Ask) -> Answer {
        self.send(ask).await.whole().await
    }
}

/// An answer of which the head is there. Dropping it hangs up.
#[derive(Debug)]
pub struct Streaming {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
}

impl Streaming {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// The next bytes; nothing at the end.
    ///
    /// # Errors
    ///
    /// The body was cut.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match within("the next part of a body", self.body.frame()).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("{error:?}")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Reads on until what has been read contains `text`, and returns it all.
    ///
    /// # Panics
    ///
    /// If the body ends first.
    pub async fn until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        loop {
            match self.chunk().await {
                Ok(Some(chunk)) => read.extend_from_slice(&chunk),
                end => panic!("the body ended ({end:?}) without `{text}`"),
            }
            let read = String::from_utf8_lossy(&read);
            if read.contains(text) {
                return read.into_owned();
            }
        }
    }

    /// Everything that is still to come.
    ///
    /// # Panics
    ///
    /// If the body is cut.
    pub async fn whole(mut self) -> Answer {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await.expect("a body that is not cut") {
            body.extend_from_slice(&chunk);
        }
        Answer {
            status: self.status,
            headers: self.headers,
            body: body.into(),
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// `x-reflex-status`.
    pub fn reflex(&self) -> &str {
        self.header("x-reflex-status")
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}
