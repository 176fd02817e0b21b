//! Valid requests of every API, from a seed, and what the design says of their keys: an oracle
//! that knows nothing of how the crate works.

use crate::gemini::generate;
use crate::messages::message;
use crate::random::{Json, Random};
use crate::request::{Request, chat, completion};
use crate::responses::response;

/// One API as the design's table has it.
pub(crate) struct Valid {
    pub(crate) name: &'static str,
    request: fn() -> Request,
    path: &'static str,
    /// A rich body. Random members are added to it.
    body: &'static str,
    /// The top-level fields that are out of the key.
    ignored: &'static [&'static str],
    /// Whether `stream` chooses the representation.
    streams: bool,
    /// Whether content blocks may carry markers.
    markers: bool,
}

const OPENAI: &[&str] = &[
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "metadata",
    "store",
];

pub(crate) const ALL: [Valid; 9] = [
    Valid {
        name: "chat completions",
        request: chat,
        path: "/v1/chat/completions",
        body: r#"{"model":"gpt-4o","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]},{"role":"tool","tool_call_id":"c","content":"1"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"user":{"type":"string"}}}}}],"temperature":0.5,"stop":["a","b"],"user":"u","store":false,"stream":true,"stream_options":{"include_usage":true},"logit_bias":{"50256":-100}}"#,
        ignored: OPENAI,
        streams: true,
        markers: false,
    },
    Valid {
        name: "completions",
        request: completion,
        path: "/v1/completions",
        body: r#"{"model":"gpt-3.5-turbo-instruct","prompt":["hi","ho"],"n":2,"max_tokens":7,"suffix":".","metadata":{"a":"b"},"stream":false}"#,
        ignored: OPENAI,
        streams: true,
        markers: false,
    },
    Valid {
        name: "responses",
        request: response,
        path: "/v1/responses",
        body: r#"{"model":"gpt-5","instructions":"Be brief.","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"function_call_output","call_id":"c","output":"1"}],"store":false,"reasoning":{"effort":"low"},"text":{"format":{"type":"text"}},"tools":[{"type":"function","name":"f","parameters":{"type":"object"}}],"safety_identifier":"s","stream":true}"#,
        ignored: OPENAI,
        streams: true,
        markers: false,
    },
    Valid {
        name: "embeddings",
        request: chat,
        path: "/v1/embeddings",
        body: r#"{"model":"text-embedding-3-small","input":["a","b",[1,2]],"dimensions":256,"encoding_format":"float","user":"u"}"#,
        ignored: &["user"],
        streams: false,
        markers: false,
    },
    Valid {
        name: "messages",
        request: message,
        path: "/v1/messages",
        body: r#"{"model":"claude-sonnet-4-5","max_tokens":64,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"document","source":{"type":"content","content":[{"type":"text","text":"d","cache_control":{"type":"ephemeral"}}]}}]},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"cache_control":{"type":"ephemeral"}}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"r"}],"cache_control":null}]}],"tools":[{"name":"f","input_schema":{"type":"object","properties":{"cache_control":{}}},"cache_control":{"type":"ephemeral","ttl":"1h"}}],"metadata":{"user_id":"u"},"stream":true}"#,
        ignored: &["metadata", "cache_control"],
        streams: true,
        markers: true,
    },
    Valid {
        name: "generateContent",
        request: generate,
        path: "/v1beta/models/gemini-2.5-flash:generateContent",
        body: GEMINI,
        ignored: &["labels"],
        streams: false,
        markers: false,
    },
    Valid {
        name: "streamGenerateContent",
        request: generate,
        path: "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        body: GEMINI,
        ignored: &["labels"],
        streams: false,
        markers: false,
    },
    Valid {
        name: "embedContent",
        request: generate,
        path: "/v1alpha/models/gemini-embedding-001:embedContent",
        body: r#"{"model":"models/m","content":{"parts":[{"text":"hi"}]},"taskType":"RETRIEVAL_QUERY"}"#,
        ignored: &["labels"],
        streams: false,
        markers: false,
    },
    Valid {
        name: "batchEmbedContents",
        request: generate,
        path: "/v1beta/models/gemini-embedding-001:batchEmbedContents",
        body: r#"{"requests":[{"model":"models/m","content":{"parts":[{"text":"a"}]}},{"model":"models/m","content":{"parts":[{"text":"b"}]}}]}"#,
        ignored: &["labels"],
        streams: false,
        markers: false,
    },
];

const GEMINI: &str = r#"{"systemInstruction":{"parts":[{"text":"Be brief."}]},"contents":[{"role":"user","parts":[{"text":"hi"},{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]}],"generationConfig":{"temperature":0.5,"candidateCount":2,"stopSequences":["a","b"]},"tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT"}}]}],"safetySettings":[{"category":"c","threshold":"BLOCK_NONE"}],"labels":{"team":"a"}}"#;

impl Valid {
    /// The body with members added at random.
    pub(crate) fn body(&self, random: &mut Random) -> Json {
        let mut body = Json::of(&serde_json::from_str(self.body).unwrap());
        for _ in 0..random.below(4) {
            body.add_member(random);
        }
        body
    }

    /// The request with a body in one of its spellings.
    pub(crate) fn request(&self, body: &Json, random: &mut Random) -> Request {
        let mut spelled = String::new();
        body.spell(random, &mut spelled);
        (self.request)().path(self.path).body(spelled)
    }

    /// What of a body may change the answer: two bodies are one request if and only if this is
    /// the same of both.
    pub(crate) fn counting(&self, body: &Json) -> (bool, Json) {
        let Json::Object(members) = body.sorted() else {
            panic!("a request is an object");
        };
        let stream = ("stream".to_owned(), Json::Word("true"));
        let streams = self.streams && members.contains(&stream);
        let kept = members.into_iter().filter(|(name, _)| {
            let name = name.as_str();
            let is_representation = self.streams && name == "stream";
            !is_representation && !self.ignored.contains(&name)
        });
        let kept = kept.map(|(name, value)| {
            let value = match &*name {
                "messages" | "system" | "tools" | "content" | "source" if self.markers => {
                    unmarked(value)
                }
                _ => value,
            };
            (name, value)
        });
        (streams, Json::Object(kept.collect()))
    }
}

/// Without the markers of blocks. An argument of that name is none.
fn unmarked(value: Json) -> Json {
    match value {
        Json::Array(elements) => Json::Array(elements.into_iter().map(unmarked).collect()),
        Json::Object(members) => {
            let is_marker = |name: &str, value: &Json| {
                name == "cache_control" && matches!(value, Json::Object(_) | Json::Word("null"))
            };
            let kept = members
                .into_iter()
                .filter(|(name, value)| !is_marker(name, value));
            let kept = kept.map(|(name, value)| match &*name {
                "messages" | "system" | "tools" | "content" | "source" => {
                    let value = unmarked(value);
                    (name, value)
                }
                _ => (name, value),
            });
            Json::Object(kept.collect())
        }
        other => other,
    }
}
