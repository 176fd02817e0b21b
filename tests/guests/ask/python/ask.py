"""A guest in Python: answers prompts, and asks the cache before it thinks."""

import wit_world
from componentize_py_types import Err
from wit_world import Answer
from wit_world.imports import cache


class WitWorld(wit_world.WitWorld):
    def ask(self, tenant: bytes, prompt: str) -> Answer:
        name = cache.Name_Prompt(cache.Prompt(tenant, prompt))
        known = look_up(name)
        if known is not None:
            return Answer(known.decode(), cached=True)
        text = think(prompt)
        keep(name, text.encode())
        return Answer(text, cached=False)


def look_up(name: cache.Name) -> bytes | None:
    """The cached answer of that name; nothing if the cache is in trouble."""
    try:
        entry = cache.lookup(name)
    except Err:
        return None
    if entry is None:
        return None
    # An entry pins its storage, so it is let go at once.
    with entry:
        payload = b""
        # One read may give less than what is asked for.
        while part := entry.read(len(payload), entry.size()):
            payload += part
        return payload


def keep(name: cache.Name, payload: bytes) -> None:
    """Stores an answer for an hour, if the cache takes it."""
    try:
        cache.insert(name, b"text/plain", payload, cache.InsertOptions(ttl_seconds=3600))
    except Err:
        pass


def think(prompt: str) -> str:
    """Stands for a call of a model."""
    return f"You said: {prompt}"
