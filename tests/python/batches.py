"""Batches of embeddings that overlap: each text gets its own vector, in its place."""

from edge import client


def check(texts):
    answer = client().embeddings.create(model="mock", input=texts, encoding_format="float")
    assert [one.index for one in answer.data] == list(range(len(texts))), answer
    # The provider of the tests makes a vector of the sum of the bytes, and their number.
    own = [[sum(text.encode()), len(text)] for text in texts]
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
