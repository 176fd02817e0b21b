"""Asks and streams without a pause, as several users at once, until the file is there that the second
argument names. The test reloads the configuration meanwhile."""

import asyncio
import pathlib
import sys

from edge import async_client, messages

STOP = pathlib.Path(sys.argv[2])
USERS = 4
PROMPTS = 5


async def main():
    client = async_client()

    async def plain(prompt):
        answer = await client.chat.completions.create(model="mock", messages=messages(prompt))
        return answer.choices[0].message.content

    async def streamed(prompt):
        stream = await client.chat.completions.create(
            model="mock", messages=messages(prompt), stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return "".join(pieces)

    async def user(number):
        count = 0
        while not STOP.exists():
            prompt = f"What is {count % PROMPTS} to {number}?"
            for ask in (plain, streamed):
                said = await ask(prompt)
                assert said.endswith(f'You asked: "{prompt}"'), (prompt, said)
                count += 1
        return count

    counts = await asyncio.gather(*map(user, range(USERS)))
    print(sum(counts), flush=True)


asyncio.run(main())
