//! Answers of any API, recorded whole or in pieces.

use reflex_llm::{
    Api, Limits, ProviderControl, Recorder, Rejected, Representation, Shape, Storable,
};

/// The rules of the tests, unless they are about other rules.
pub(crate) const LIMITS: Limits = Limits {
    body_bytes_max: 1 << 20,
    allow_length: false,
    provider_control: ProviderControl::Ignore,
};

/// Answers that ran into a length limit are kept, too.
pub(crate) const LENGTH_ALLOWED: Limits = Limits {
    allow_length: true,
    ..LIMITS
};

/// An API whose answers are judged.
#[derive(Clone, Copy)]
pub(crate) struct Judged(pub(crate) Api, pub(crate) Limits);

impl Judged {
    /// An answer of one JSON document.
    pub(crate) fn json(self, body: &str) -> Result<(), Rejected> {
        self.record(Representation::Json, [body.as_bytes()])
    }

    /// A streamed answer, in one piece.
    pub(crate) fn sse(self, body: &str) -> Result<(), Rejected> {
        self.record(Representation::Sse, [body.as_bytes()])
    }

    /// A streamed answer made of the data of frames, each under the name that its `type` says.
    pub(crate) fn events(self, data: &[&str]) -> Result<(), Rejected> {
        let frames: Vec<String> = data.iter().map(|data| event(data)).collect();
        self.sse(&frames.concat())
    }

    /// An answer in pieces, which is kept byte for byte or not at all.
    pub(crate) fn record<'a>(
        self,
        representation: Representation,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Rejected> {
        record(Shape::new(self.0, representation), self.1, chunks).map(drop)
    }

    /// A good stream: it is kept however it is cut, and none of its proper prefixes is.
    #[track_caller]
    pub(crate) fn good_stream(self, text: &str) {
        for end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', end);
            let bytes = text.as_bytes();
            for at in 0..bytes.len() {
                let verdict = self.record(Representation::Sse, [&bytes[..at]]);
                assert!(verdict.is_err(), "{}", text.escape_debug());
                let (head, tail) = bytes.split_at(at);
                self.good_chunks(&[head, tail]);
            }
            self.good_chunks(&bytes.chunks(1).collect::<Vec<_>>());
        }
    }

    #[track_caller]
    fn good_chunks(self, chunks: &[&[u8]]) {
        let verdict = self.record(Representation::Sse, chunks.iter().copied());
        assert_eq!(verdict, Ok(()), "{}", chunks.concat().escape_ascii());
    }
}

/// An answer in pieces, which is kept byte for byte or not at all.
pub(crate) fn record<'a>(
    shape: Shape,
    limits: Limits,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Storable, Rejected> {
    let content_type: &[u8] = match shape.representation {
        Representation::Json => b"application/json; charset=UTF-8",
        Representation::Sse => b"text/event-stream",
    };
    let mut recorder = Recorder::new(shape, limits);
    recorder.head(200, &[("content-type", content_type)])?;
    let mut sent = Vec::new();
    for chunk in chunks {
        recorder.feed(chunk);
        sent.extend_from_slice(chunk);
    }
    let kept = recorder.finish()?;
    assert!(kept.status == 200 && kept.body == sent);
    Ok(kept)
}

/// A frame as OpenAI and Anthropic write them: the event's name is the `type` of its data.
pub(crate) fn event(data: &str) -> String {
    let name = data.split_once(r#""type":""#).map(|(_, rest)| rest);
    match name.and_then(|rest| rest.split_once('"')) {
        Some((name, _)) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}
