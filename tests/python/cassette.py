"""One episode by the clients of OpenAI, Anthropic and Google: documents, streams, calls of tools, errors.

Prints all that the clients saw as one line, which is the same when the episode is replayed.
"""

import json
import sys

import anthropic
import openai
from google import genai

URL = sys.argv[1]
PROMPT = "Why is the sky blue?"
OPTIONS = {"api_key": "sk-test", "max_retries": 0, "timeout": 60}
OPENAI = openai.OpenAI(base_url=f"{URL}/v1", **OPTIONS)
ANTHROPIC = anthropic.Anthropic(base_url=URL, **OPTIONS)
GOOGLE = genai.Client(api_key="sk-test", http_options={"base_url": URL})

MESSAGES = [{"role": "user", "content": PROMPT}]
CHAT = {"model": "mock", "messages": MESSAGES}
MESSAGE = {"model": "mock", "max_tokens": 99, "messages": MESSAGES}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
MESSAGE_TOOLS = [{"name": "look_up", "input_schema": {"type": "object"}}]
CALL = {"extra_headers": {"x-mock": "tool"}}
GEMINI = {"model": "mock", "contents": PROMPT}


def many(answer):
    return [part.to_dict() for part in answer]


def refused(error, ask):
    try:
        ask()
    except error as raised:
        return [type(raised).__name__, raised.status_code, raised.body]
    sys.exit(f"no {error.__name__}")


chat = OPENAI.chat.completions.create
message = ANTHROPIC.messages.create
busy = {"extra_headers": {"x-mock": "status=429"}}

seen = [
    chat(**CHAT).to_dict(),
    many(chat(**CHAT, stream=True)),
    chat(**CHAT, tools=TOOLS, **CALL).to_dict(),
    many(chat(**CHAT, tools=TOOLS, stream=True, **CALL)),
    refused(openai.RateLimitError, lambda: chat(**CHAT, **busy)),
    OPENAI.responses.create(model="mock", input=PROMPT).to_dict(),
    OPENAI.embeddings.create(model="mock", input=[PROMPT], encoding_format="float").to_dict(),
    message(**MESSAGE).to_dict(),
    many(message(**MESSAGE, stream=True)),
    message(**MESSAGE, tools=MESSAGE_TOOLS, **CALL).to_dict(),
    refused(anthropic.RateLimitError, lambda: message(**MESSAGE, **busy)),
    GOOGLE.models.generate_content(**GEMINI).text,
    [chunk.text for chunk in GOOGLE.models.generate_content_stream(**GEMINI)],
]
assert PROMPT in json.dumps(seen), seen
print(json.dumps(seen, default=str), flush=True)
