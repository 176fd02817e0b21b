"""The same response twice, plain and streamed: the same answer, one call each."""

from edge import client

ASK = {"model": "mock", "input": "Why is the sky blue?", "store": False}


def plain():
    return [client().responses.create(**ASK)]


def streamed():
    return list(client().responses.create(**ASK, stream=True))


for ask in (plain, streamed):
    first, second = ask(), ask()
    assert first == second, (first, second)
    whole = second[-1] if ask is plain else second[-1].response
    assert "Why is the sky blue?" in whole.output_text, whole
