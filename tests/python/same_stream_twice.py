"""The same streamed chat completion twice: the same chunks in the same order, and usage when it
is asked for."""

from edge import client, messages


def chunks(**options):
    stream = client().chat.completions.create(
        model="mock", messages=messages("Count to ten."), stream=True, **options
    )
    return list(stream)


for options in ({}, {"stream_options": {"include_usage": True}}):
    first, second = chunks(**options), chunks(**options)
    assert first == second, (first, second)
    assert len({chunk.id for chunk in first + second}) == 1
    assert len(first) > 5, first
    text = "".join(chunk.choices[0].delta.content or "" for chunk in first if chunk.choices)
    assert text.endswith('You asked: "Count to ten."'), text
    usage = [chunk.usage for chunk in second if chunk.usage]
    assert len(usage) == len(options), usage
