//! Valid requests of every API, from a seed, and the keys that the design gives them: an oracle
//! that does not depend on the crate's code.

use crate::gemini::generate;
use crate::messages::message;
use crate::random::{Json, Random};
use crate::request::{Request, chat, completion};
use crate::responses::response;

/// The members of an object, in their order.
type Members = Vec<(String, Json)>;

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
    /// The hint to the provider's prompt cache that content blocks may carry.
    hint: &'static str,
    /// Where the API's own objects stand, whose order of members says nothing; with a star, those
    /// that may carry the hint.
    known: &'static [&'static str],
    /// Where objects stand that may carry the hint, and whose order is the user's.
    hinted: &'static [&'static str],
}

const OPENAI_OBJECTS: &[&str] = &[
    "",
    "/messages*",
    "/messages/content*",
    "/messages/content/file",
    "/messages/content/image_url",
    "/messages/content/input_audio",
    "/messages/content/video_url",
    "/messages/audio",
    "/messages/function_call",
    "/messages/tool_calls",
    "/messages/tool_calls/custom",
    "/messages/tool_calls/function",
    "/audio",
    "/function_call",
    "/logit_bias",
    "/reasoning",
    "/response_format",
    "/response_format/json_schema",
    "/stream_options",
    "/thinking",
    "/tool_choice",
    "/tool_choice/custom",
    "/tool_choice/function",
];

const RESPONSE_OBJECTS: &[&str] = &[
    "",
    "/input*",
    "/input/content*",
    "/input/content/file",
    "/input/content/image_url",
    "/input/content/input_audio",
    "/input/content/video_url",
    "/input/output*",
    "/input/output/file",
    "/input/output/image_url",
    "/input/output/input_audio",
    "/input/output/video_url",
    "/input/summary",
    "/reasoning",
    "/stream_options",
    "/text",
    "/text/format",
    "/tool_choice",
    "/tool_choice/custom",
    "/tool_choice/function",
];

/// Blocks may hold blocks: as deep as these tests go.
const MESSAGE_OBJECTS: &[&str] = &[
    "",
    "/messages*",
    "/messages/content*",
    "/messages/content/citations",
    "/messages/content/content*",
    "/messages/content/content/citations",
    "/messages/content/content/content*",
    "/messages/content/content/source*",
    "/messages/content/source*",
    "/messages/content/source/content*",
    "/messages/content/source/content/content*",
    "/messages/content/source/content/source*",
    "/messages/content/source/source*",
    "/messages/source*",
    "/messages/source/content*",
    "/messages/citations",
    "/output_config",
    "/output_config/format",
    "/output_format",
    "/system*",
    "/system/citations",
    "/system/content*",
    "/system/content/content*",
    "/system/source*",
    "/system/source/content*",
    "/thinking",
    "/tool_choice",
];

const GEMINI_OBJECTS: &[&str] = &[
    "",
    "/content",
    "/content/parts",
    "/contents",
    "/contents/parts",
    "/contents/parts/functionCall",
    "/contents/parts/functionResponse",
    "/contents/parts/inlineData",
    "/generationConfig",
    "/generationConfig/thinkingConfig",
    "/requests",
    "/requests/content",
    "/requests/content/parts",
    "/safetySettings",
    "/systemInstruction",
    "/systemInstruction/parts",
    "/toolConfig",
    "/toolConfig/functionCallingConfig",
];

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
        hint: "prompt_cache_breakpoint",
        known: OPENAI_OBJECTS,
        hinted: &[],
    },
    Valid {
        name: "completions",
        request: completion,
        path: "/v1/completions",
        body: r#"{"model":"gpt-3.5-turbo-instruct","prompt":["hi","ho"],"n":2,"max_tokens":7,"suffix":".","metadata":{"a":"b"},"stream":false}"#,
        ignored: OPENAI,
        streams: true,
        hint: "prompt_cache_breakpoint",
        known: OPENAI_OBJECTS,
        hinted: &[],
    },
    Valid {
        name: "responses",
        request: response,
        path: "/v1/responses",
        body: r#"{"model":"gpt-5","instructions":"Be brief.","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"function_call_output","call_id":"c","output":"1"}],"store":false,"reasoning":{"effort":"low"},"text":{"format":{"type":"text"}},"tools":[{"type":"function","name":"f","parameters":{"type":"object"}}],"safety_identifier":"s","stream":true}"#,
        ignored: OPENAI,
        streams: true,
        hint: "prompt_cache_breakpoint",
        known: RESPONSE_OBJECTS,
        hinted: &[],
    },
    Valid {
        name: "embeddings",
        request: chat,
        path: "/v1/embeddings",
        body: r#"{"model":"text-embedding-3-small","input":["a","b",[1,2]],"dimensions":256,"encoding_format":"float","user":"u"}"#,
        ignored: &["user"],
        streams: false,
        hint: "prompt_cache_breakpoint",
        known: OPENAI_OBJECTS,
        hinted: &[],
    },
    Valid {
        name: "messages",
        request: message,
        path: "/v1/messages",
        body: r#"{"model":"claude-sonnet-4-5","max_tokens":64,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"document","source":{"type":"content","content":[{"type":"text","text":"d","cache_control":{"type":"ephemeral"}}]}}]},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"cache_control":{"type":"ephemeral"}}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"r"}],"cache_control":null}]}],"tools":[{"name":"f","input_schema":{"type":"object","properties":{"cache_control":{}}},"cache_control":{"type":"ephemeral","ttl":"1h"}}],"metadata":{"user_id":"u"},"stream":true}"#,
        ignored: &["metadata", "cache_control"],
        streams: true,
        hint: "cache_control",
        known: MESSAGE_OBJECTS,
        hinted: &["/tools"],
    },
    Valid {
        name: "generateContent",
        request: generate,
        path: "/v1beta/models/gemini-2.5-flash:generateContent",
        body: GEMINI,
        ignored: &["labels"],
        streams: false,
        hint: "",
        known: GEMINI_OBJECTS,
        hinted: &[],
    },
    Valid {
        name: "streamGenerateContent",
        request: generate,
        path: "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        body: GEMINI,
        ignored: &["labels"],
        streams: false,
        hint: "",
        known: GEMINI_OBJECTS,
        hinted: &[],
    },
    Valid {
        name: "embedContent",
        request: generate,
        path: "/v1alpha/models/gemini-embedding-001:embedContent",
        body: r#"{"model":"models/m","content":{"parts":[{"text":"hi"}]},"taskType":"RETRIEVAL_QUERY"}"#,
        ignored: &["labels"],
        streams: false,
        hint: "",
        known: GEMINI_OBJECTS,
        hinted: &[],
    },
    Valid {
        name: "batchEmbedContents",
        request: generate,
        path: "/v1beta/models/gemini-embedding-001:batchEmbedContents",
        body: r#"{"requests":[{"model":"models/m","content":{"parts":[{"text":"a"}]}},{"model":"models/m","content":{"parts":[{"text":"b"}]}}]}"#,
        ignored: &["labels"],
        streams: false,
        hint: "",
        known: GEMINI_OBJECTS,
        hinted: &[],
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
        let mut body = body.clone();
        self.reorder(&mut body, "", &mut |members| random.shuffle(members));
        let mut spelled = String::new();
        body.spell(random, &mut spelled);
        (self.request)().path(self.path).body(spelled)
    }

    /// The parts of a body that may change the answer: two bodies are one request if and only if
    /// these parts are equal.
    pub(crate) fn counting(&self, body: &Json) -> (bool, Json) {
        let mut body = body.clone();
        let sort = &mut |members: &mut Vec<(String, Json)>| members.sort_by(|a, b| a.0.cmp(&b.0));
        self.reorder(&mut body, "", sort);
        self.unhint(&mut body, "");
        let Json::Object(members) = body else {
            panic!("a request is an object");
        };
        let stream = ("stream".to_owned(), Json::Word("true"));
        let streams = self.streams && members.contains(&stream);
        let kept = members.into_iter().filter(|(name, _)| {
            let name = name.as_str();
            let is_representation = self.streams && name == "stream";
            !is_representation && !self.ignored.contains(&name)
        });
        (streams, Json::Object(kept.collect()))
    }

    /// Puts the members of the API's own objects in another order. Elements of an array stand
    /// where the array does.
    fn reorder(&self, json: &mut Json, at: &str, order: &mut dyn FnMut(&mut Members)) {
        match json {
            Json::Array(elements) => {
                let elements = elements.iter_mut();
                elements.for_each(|element| self.reorder(element, at, order));
            }
            Json::Object(members) => {
                for (name, value) in members.iter_mut() {
                    self.reorder(value, &format!("{at}/{name}"), order);
                }
                let known = self.known.iter();
                let mut known = known.map(|it| it.trim_end_matches('*'));
                if known.any(|it| it == at) {
                    order(members);
                }
            }
            _ => {}
        }
    }

    /// Removes the hints.
    fn unhint(&self, json: &mut Json, at: &str) {
        match json {
            Json::Array(elements) => elements.iter_mut().for_each(|it| self.unhint(it, at)),
            Json::Object(members) => {
                let starred = format!("{at}*");
                let may_hint = self.known.contains(&&*starred) || self.hinted.contains(&at);
                members.retain(|(name, value)| {
                    let is_hint = matches!(value, Json::Object(_) | Json::Word("null"));
                    !(may_hint && name == self.hint && is_hint)
                });
                for (name, value) in members {
                    self.unhint(value, &format!("{at}/{name}"));
                }
            }
            _ => {}
        }
    }
}
