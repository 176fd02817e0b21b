"""A stream that the provider holds back after its first token, until this script has said that
it has seen it."""

from edge import client, messages

stream = client().chat.completions.create(
    model="mock",
    messages=messages("Take your time."),
    stream=True,
    extra_headers={"x-mock": "gated"},
)
text = ""
for chunk in stream:
    delta = chunk.choices[0].delta.content or ""
    if delta and not text:
        print("first chunk", flush=True)
    text += delta
assert text.endswith('You asked: "Take your time."'), text
print("last chunk", flush=True)
