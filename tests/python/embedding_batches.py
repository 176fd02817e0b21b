"""A batch of embeddings of which part is known: each text has its own vector at its own index, and
the provider is asked only for the rest. As the SDK asks by itself (base64), and for numbers."""

from edge import client


def ask(texts, **options):
    raw = client().embeddings.with_raw_response.create(model="mock", input=texts, **options)
    answer = raw.parse()
    assert answer.model == "mock" and answer.object == "list", answer
    count = 1 if isinstance(texts, str) else len(texts)
    assert [item.index for item in answer.data] == list(range(count)), answer
    return raw.headers, [list(item.embedding) for item in answer.data], answer.usage


for options in ({}, {"encoding_format": "float"}):
    _, [alpha], _ = ask("alpha", **options)
    headers, first, usage = ask(["beta", "gamma delta", "epsilon"], **options)
    assert headers["cache-status"] == "reflex; fwd=miss", headers
    beta, gamma, epsilon = first

    texts = ["new", "epsilon", "alpha", "newer text", "beta", "new", "gamma delta"]
    headers, vectors, partial = ask(texts, **options)
    assert headers["cache-status"] == "reflex; fwd=partial", headers
    assert headers["x-reflex-status"] == "MISS", headers
    new, newer = vectors[0], vectors[3]
    assert vectors == [new, epsilon, alpha, newer, beta, new, gamma], vectors
    # A vector names its text and the call that made it: all seven are right, and two are new.
    assert new[:2] != newer[:2] and new[2] == newer[2] == alpha[2] + 2, vectors
    saved = int(headers["x-reflex-saved-tokens"])
    assert 0 < saved < partial.prompt_tokens == partial.total_tokens, (saved, partial)

    headers, again, whole = ask(texts, **options)
    assert headers["x-reflex-status"] == "HIT_L1_EXACT", headers
    assert again == vectors
    assert int(headers["x-reflex-saved-tokens"]) == whole.total_tokens

    # One text alone, as a string and as an array, is what the batch has taught.
    for alone in ("newer text", ["newer text"]):
        headers, vectors, _ = ask(alone, **options)
        assert headers["x-reflex-status"] == "HIT_L1_EXACT", headers
        assert vectors == [newer], vectors

    # The same batch as the first: the sum that the provider has told.
    headers, vectors, repeated = ask(["beta", "gamma delta", "epsilon"], **options)
    assert headers["x-reflex-status"] == "HIT_L1_EXACT", headers
    assert (vectors, repeated) == (first, usage), (vectors, repeated)
