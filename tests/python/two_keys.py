"""Two API keys with the same prompt: each gets, and keeps, an answer of its own."""

from edge import client, messages


def ask(api_key):
    answer = client(api_key).chat.completions.create(model="mock", messages=messages("Mine?"))
    return answer.id


first, other = ask("sk-first"), ask("sk-other")
assert first != other, (first, other)
assert (first, other) == (ask("sk-first"), ask("sk-other"))
