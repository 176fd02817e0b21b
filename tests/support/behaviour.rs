//! What the provider of the tests does with a request. A test says it for all requests, or a
//! client for one request by the header `x-mock`, which passes through the cache as any other.

use std::str::FromStr;
use std::time::Duration;

/// One way to treat a request for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers at once.
    #[default]
    Answer,
    /// Answers with so much time between tokens.
    Paced(Duration),
    /// Sends the head, then each frame when the test releases it.
    Gated,
    /// Never answers.
    Silent,
    /// Answers with an error of this status.
    Status(u16),
    /// Answers 200 with an `error` in the body, or in the middle of the stream.
    Error,
    /// Runs into the token limit.
    Length,
    /// The model refuses.
    Refusal,
    /// The model calls a tool, where the API has tools.
    Tool,
    /// The model thinks before it speaks, and usage tells how much, where the API has that.
    Thought,
    /// Closes the connection in the middle of the body.
    Cut,
    /// Compresses the answer, whatever the request accepts.
    Gzip,
    /// Gated, and puts `[DONE]` behind the end of a stream that has another one, as some gateways do.
    Done,
    /// Gated, with one more event behind the end of a stream, which must not have any.
    More,
    /// Says so many bytes more than usual; of embeddings, in so many numbers each.
    Large(usize),
    /// Sends headers that concern the connection only.
    HopByHop,
    /// Answers a request for embeddings in an odd way.
    Odd(Oddity),
}

/// What may be odd about embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// One vector is missing.
    Short,
    /// The last two vectors are in the wrong order, by their indexes too.
    Shuffled,
    /// The last two indexes are the same.
    Twice,
    /// A field that is not known.
    Field,
    /// Another model than before.
    Model,
    /// The last vector has another length.
    Length,
}

impl FromStr for Behaviour {
    type Err = String;

    /// `answer`, `paced=30` (milliseconds), `gated`, `silent`, `status=500`, `error`, `length`,
    /// `refusal`, `tool`, `thought`, `cut`, `gzip`, `done`, `more`, `large=100000` (bytes),
    /// `hop-by-hop`, `odd=short`, `odd=shuffled`, `odd=twice`, `odd=field`, `odd=model`,
    /// `odd=length`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let number = || {
            value
                .parse::<u16>()
                .map_err(|error| format!("`{text}`: {error}"))
        };
        let size = || {
            value
                .parse::<usize>()
                .map_err(|error| format!("`{text}`: {error}"))
        };
        Ok(match name {
            "answer" => Self::Answer,
            "paced" => Self::Paced(Duration::from_millis(number()?.into())),
            "gated" => Self::Gated,
            "silent" => Self::Silent,
            "status" => Self::Status(number()?),
            "error" => Self::Error,
            "length" => Self::Length,
            "refusal" => Self::Refusal,
            "tool" => Self::Tool,
            "thought" => Self::Thought,
            "cut" => Self::Cut,
            "gzip" => Self::Gzip,
            "done" => Self::Done,
            "more" => Self::More,
            "large" => Self::Large(size()?),
            "hop-by-hop" => Self::HopByHop,
            "odd" => Self::Odd(match value {
                "short" => Oddity::Short,
                "shuffled" => Oddity::Shuffled,
                "twice" => Oddity::Twice,
                "field" => Oddity::Field,
                "model" => Oddity::Model,
                "length" => Oddity::Length,
                _ => return Err(format!("`{text}`: no such oddity")),
            }),
            _ => {
                return Err(format!(
                    "`{text}` is not something that the provider can do"
                ));
            }
        })
    }
}
