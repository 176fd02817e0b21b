"""Thoughts and the details of usage, plain and streamed: on a hit they are what they were."""

from edge import client, messages

ASK = {
    "model": "mock",
    "messages": messages("Think."),
    "extra_headers": {"x-mock": "thought"},
}


def plain():
    return [client().chat.completions.create(**ASK)]


def streamed():
    usage = {"stream_options": {"include_usage": True}}
    return list(client().chat.completions.create(**ASK, stream=True, **usage))


for ask in (plain, streamed):
    first, second = ask(), ask()
    assert [part.to_dict() for part in first] == [part.to_dict() for part in second]
    said = [choice for part in second for choice in part.choices]
    said = [choice.message if ask is plain else choice.delta for choice in said]
    thoughts = "".join(getattr(one, "reasoning_content", None) or "" for one in said)
    assert thoughts == "They want to know. Let me see.", thoughts
    usage = second[-1].usage
    assert usage.completion_tokens_details.reasoning_tokens > 3, usage
    assert usage.prompt_tokens_details.cached_tokens == 0, usage
