"""The same chat completion twice: the same answer, the second time from the cache."""

from edge import client, messages

create = client().chat.completions.with_raw_response.create
first, second = (create(model="mock", messages=messages("Why is the sky blue?")) for _ in range(2))

assert first.headers["x-reflex-status"] == "MISS", first.headers
assert second.headers["x-reflex-status"] == "HIT_L1_EXACT", second.headers
assert second.headers["cache-status"].startswith("reflex; hit"), second.headers
assert int(second.headers["age"]) >= 0, second.headers

first, second = first.parse(), second.parse()
assert first.id == second.id, (first.id, second.id)
assert first == second, (first, second)
assert "Why is the sky blue?" in first.choices[0].message.content, first
assert first.usage.total_tokens > 0, first
