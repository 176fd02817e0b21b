"""The same Gemini request twice, plain and streamed: the same answer, one call each."""

import sys

from google import genai

client = genai.Client(api_key="sk-test", http_options={"base_url": sys.argv[1]})
ASK = {"model": "mock", "contents": "Why is the sky blue?"}


def plain():
    return [client.models.generate_content(**ASK)]


def streamed():
    return list(client.models.generate_content_stream(**ASK))


for ask in (plain, streamed):
    first, second = ask(), ask()
    assert [chunk.response_id for chunk in first] == [chunk.response_id for chunk in second]
    assert [chunk.text for chunk in first] == [chunk.text for chunk in second]
    assert "Why is the sky blue?" in "".join(chunk.text or "" for chunk in second), second
    assert len(second) == 1 or ask is streamed
