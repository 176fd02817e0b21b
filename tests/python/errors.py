"""Errors of the provider, and ours when there is no provider, are what the client knows."""

import sys

import openai
from edge import client, messages


def expect(error, status, prompt, **headers):
    try:
        client().chat.completions.create(
            model="mock", messages=messages(prompt), extra_headers=headers
        )
    except error as raised:
        assert raised.status_code == status, raised
        assert raised.body["message"], raised.body
    else:
        sys.exit(f"{prompt}: no {error.__name__}")


expect(openai.RateLimitError, 429, "too often", **{"x-mock": "status=429"})
expect(openai.InternalServerError, 500, "broken", **{"x-mock": "status=500"})
print("stop the provider", flush=True)
# It may still answer once or twice while it is being stopped; each prompt is a new one.
for attempt in range(1000):
    try:
        client().chat.completions.create(model="mock", messages=messages(f"{attempt}: there?"))
    except openai.InternalServerError:
        break
expect(openai.InternalServerError, 502, "are you there?")
