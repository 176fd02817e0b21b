"""Fifty different prompts at once, twice: each gets its own answer, and the same one again."""

import asyncio

from edge import async_client, messages

PROMPTS = [f"What is prompt {number} of fifty?" for number in range(50)]


async def main():
    client = async_client()

    async def ask(prompt):
        answer = await client.chat.completions.create(model="mock", messages=messages(prompt))
        said = answer.choices[0].message.content
        assert said.endswith(f'You asked: "{prompt}"'), (prompt, said)
        return answer.id

    first = await asyncio.gather(*map(ask, PROMPTS))
    assert len(set(first)) == len(PROMPTS), first
    assert await asyncio.gather(*map(ask, PROMPTS)) == first


asyncio.run(main())
