"""Requests that differ in one thing, as the second argument says: each has an answer of its own,
and the same one again. Prints how many there were."""

import sys

from edge import client, messages

ASK = {"model": "mock", "messages": messages("The same question.")}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
OTHER_PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgp="}}
TEXT = {"type": "text", "text": "The same question."}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def user(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


def looked_up(*results):
    """A conversation in which a tool has been called, with the results so far."""
    asked = [*messages("The same question."), {"role": "assistant", "tool_calls": [CALL]}]
    answered = [{"role": "tool", "tool_call_id": id, "content": text} for id, text in results]
    return {"messages": asked + answered}


def extra(**fields):
    return {"extra_body": fields}


DIFFERENCES = {
    "sampling": [
        {"logit_bias": {"50256": -100}},
        {"logit_bias": {"50256": 100}},
        {"max_tokens": 1},
        {"max_tokens": 2},
        {"max_completion_tokens": 2},
        {"stop": "x"},
        {"stop": ["x"]},
        {"stop": ["x", "y"]},
        {"n": 1},
        {"n": 2},
        {"temperature": 0},
        {"top_p": 0.5},
    ],
    "of_providers": [
        extra(top_k=5),
        extra(enable_thinking=True),
        extra(enable_thinking=False),
        extra(chat_template_kwargs={"thinking": True}),
        extra(provider={"order": ["a", "b"]}),
        extra(provider={"order": ["b", "a"]}),
        extra(nobody_has_heard_of=1),
    ],
    "format": [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "text"}},
        {"seed": 1},
        {"seed": 2},
        {"reasoning_effort": "low"},
        {"reasoning_effort": "high"},
        {"verbosity": "low"},
    ],
    "tools": [
        {"tools": [TOOL]},
        {"tools": [TOOL, TOOL]},
        looked_up(("call_1", "4")),
        looked_up(("call_2", "4")),
    ],
    "tool_choice": [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "parallel_tool_calls": False},
    ],
    "model": [{"model": "mock-mini"}, {"model": "mock-2"}, {"model": "Mock"}],
    "pictures": [user(TEXT), user(TEXT, PICTURE), user(TEXT, OTHER_PICTURE), user(PICTURE, TEXT)],
    "conversation": [
        looked_up(),
        looked_up(("call_1", "4")),
        looked_up(("call_1", "4"), ("call_1", "4")),
        {"messages": messages("Before.") + messages("The same question.")},
    ],
    "system": [
        {"messages": [{"role": "system", "content": text}, *ASK["messages"]]}
        for text in ("Be brief.", "Be long.")
    ]
    + [{"messages": [{"role": "developer", "content": "Be brief."}, *ASK["messages"]]}],
    # Words that collide in CRC-32, in DJB2 and in FNV-1a of 32 bits, and in Java's hash.
    "short_hashes": [
        {"messages": messages(word)}
        for word in (
            "plumless", "buckeroo", "hetairas", "mentioner", "costarring", "liquid", "Aa", "BB",
        )
    ],
}


def ask(difference):
    answer = client().chat.completions.with_raw_response.create(**{**ASK, **difference})
    return answer.headers["x-reflex-status"], answer.parse().id


requests = [{}, *DIFFERENCES[sys.argv[2]]]
first = [ask(request) for request in requests]
assert [status for status, _ in first] == ["MISS"] * len(requests), first
assert len({answer for _, answer in first}) == len(requests), first
again = [ask(request) for request in requests]
assert again == [("HIT_L1_EXACT", answer) for _, answer in first], again
print(len(requests), flush=True)
