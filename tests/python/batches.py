"""Batches of embeddings that overlap: each text gets its own vector, in its place."""

from edge import client


def mixed(text, seed):
    """As the provider of the tests makes a number of a text."""
    for byte in text.encode():
        seed = (seed * 31 + byte) % 999_983
    return seed


def check(texts):
    answer = client().embeddings.create(model="mock", input=texts, encoding_format="float")
    assert [one.index for one in answer.data] == list(range(len(texts))), answer
    own = [[mixed(text, 7), mixed(text, 11)] for text in texts]
    assert [one.embedding[:2] for one in answer.data] == own, (texts, answer)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens, answer


for texts in (
    ["one", "two"],
    ["two"],
    ["two", "one"],
    ["three", "two", "four", "one"],
    ["one", "one"],
    ["five", "three", "five", "three"],
):
    for _ in range(2):
        check(texts)
