"""The same message twice, plain and streamed: the same answer, the second time from the cache."""

import sys

from anthropic import Anthropic
from edge import messages

client = Anthropic(api_key="sk-test", base_url=sys.argv[1], max_retries=0, timeout=60)
ASK = {"model": "mock", "max_tokens": 99, "messages": messages("Why is the sky blue?")}


def plain():
    answer = client.messages.with_raw_response.create(**ASK)
    return answer.headers["x-reflex-status"], answer.parse()


def streamed():
    with client.messages.stream(**ASK) as stream:
        events = list(stream)
        return stream.response.headers["x-reflex-status"], stream.get_final_message(), events


for ask in (plain, streamed):
    first, second = ask(), ask()
    assert first[0] == "MISS", first
    assert second[0] == "HIT_L1_EXACT", second
    assert first[1:] == second[1:], (first, second)
    message = second[1]
    assert "Why is the sky blue?" in message.content[0].text, message
    assert message.stop_reason == "end_turn" and message.usage.output_tokens > 1, message
