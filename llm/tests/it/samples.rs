//! A good answer of every shape. Each says `he said "hi"`, ends in that quote, and tells what it
//! thought and what it cost, where its API can.

use reflex_llm::{Rejected, Shape};

use crate::judging::{Judged, LIMITS};

/// An answer, and the part of it that makes it bad.
pub(crate) struct Sample {
    pub(crate) shape: &'static str,
    pub(crate) body: &'static str,
    /// What says that it ended well, and what would say that it ran into its length limit.
    pub(crate) ending: Option<(&'static str, &'static str)>,
}

impl Sample {
    pub(crate) fn shape(&self) -> Shape {
        Shape::from_token(self.shape).unwrap()
    }

    /// What is said of a body of this shape, in pieces.
    pub(crate) fn judge<'a>(
        &self,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Rejected> {
        let shape = self.shape();
        Judged(shape.api, LIMITS).record(shape.representation, chunks)
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.shape.ends_with("+sse")
    }
}

pub(crate) const ALL: [Sample; 13] = [
    Sample {
        shape: "chat-completions",
        body: r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"he said \"hi\"","reasoning_content":"hm","refusal":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,"completion_tokens_details":{"reasoning_tokens":2}}}"#,
        ending: Some((r#""stop""#, r#""length""#)),
    },
    Sample {
        shape: "chat-completions+sse",
        body: r#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"hm"},"finish_reason":null}]}

data: {"id":"c","choices":[{"index":0,"delta":{"content":"he said \"hi\""},"finish_reason":null}]}

data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,"completion_tokens_details":{"reasoning_tokens":2}}}

data: [DONE]

"#,
        ending: Some((r#""stop""#, r#""length""#)),
    },
    Sample {
        shape: "completions",
        body: r#"{"object":"text_completion","choices":[{"text":"he said \"hi\"","index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#,
        ending: Some((r#""stop""#, r#""length""#)),
    },
    Sample {
        shape: "completions+sse",
        body: r#"data: {"choices":[{"text":"he said \"hi\"","index":0,"finish_reason":null}]}

data: {"choices":[{"text":"","index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}

data: [DONE]

"#,
        ending: Some((r#""stop""#, r#""length""#)),
    },
    Sample {
        shape: "responses",
        body: r#"{"object":"response","status":"completed","error":null,"incomplete_details":null,"output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},{"type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"he said \"hi\""}]}],"usage":{"input_tokens":3,"output_tokens":5,"total_tokens":8,"output_tokens_details":{"reasoning_tokens":2}}}"#,
        ending: Some((
            r#""completed","error":null,"incomplete_details":null"#,
            r#""incomplete","error":null,"incomplete_details":{"reason":"max_output_tokens"}"#,
        )),
    },
    Sample {
        shape: "responses+sse",
        body: r#"event: response.created
data: {"type":"response.created","response":{"status":"in_progress","output":[]}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":"he said \"hi\""}

event: response.completed
data: {"type":"response.completed","response":{"status":"completed","error":null,"incomplete_details":null,"output":[{"type":"message","content":[{"type":"output_text","text":"he said \"hi\""}]}],"usage":{"input_tokens":3,"output_tokens":5,"total_tokens":8,"output_tokens_details":{"reasoning_tokens":2}}}}

"#,
        ending: Some((
            r#""completed","error":null,"incomplete_details":null"#,
            r#""incomplete","error":null,"incomplete_details":{"reason":"max_output_tokens"}"#,
        )),
    },
    Sample {
        shape: "embeddings",
        body: r#"{"object":"list","data":[{"index":0,"embedding":[0.25,-1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        ending: None,
    },
    Sample {
        shape: "anthropic-messages",
        body: r#"{"type":"message","role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"he said \"hi\""}],"stop_reason":"end_turn","usage":{"input_tokens":2,"cache_read_input_tokens":1,"output_tokens":5}}"#,
        ending: Some((r#""end_turn""#, r#""max_tokens""#)),
    },
    Sample {
        shape: "anthropic-messages+sse",
        body: r#"event: message_start
data: {"type":"message_start","message":{"type":"message","role":"assistant","content":[],"usage":{"input_tokens":2,"cache_read_input_tokens":1,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"he said \"hi\""}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}

event: message_stop
data: {"type":"message_stop"}

"#,
        ending: Some((r#""end_turn""#, r#""max_tokens""#)),
    },
    Sample {
        shape: "gemini-generate-content",
        body: r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true},{"text":"he said \"hi\""}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":3,"thoughtsTokenCount":2,"totalTokenCount":8}}"#,
        ending: Some((r#""STOP""#, r#""MAX_TOKENS""#)),
    },
    Sample {
        shape: "gemini-stream-generate-content",
        body: r#"[{"candidates":[{"content":{"parts":[{"text":"he said "}],"role":"model"}}]}
,
{"candidates":[{"content":{"parts":[{"text":"\"hi\""}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":5,"totalTokenCount":8}}
]"#,
        ending: Some((r#""STOP""#, r#""MAX_TOKENS""#)),
    },
    Sample {
        shape: "gemini-stream-generate-content+sse",
        body: r#"data: {"candidates":[{"content":{"parts":[{"text":"he said "}],"role":"model"}}]}

data: {"candidates":[{"content":{"parts":[{"text":"\"hi\""}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":5,"totalTokenCount":8}}

"#,
        ending: Some((r#""STOP""#, r#""MAX_TOKENS""#)),
    },
    Sample {
        shape: "gemini-embed-content",
        body: r#"{"embedding":{"values":[0.25,-1]},"usageMetadata":{"promptTokenCount":8}}"#,
        ending: None,
    },
];
