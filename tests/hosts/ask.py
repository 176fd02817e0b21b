"""python ask.py GUEST.wasm: the guest of the tests in a host of Python's `wasmtime`, with the cache
as a dictionary. It knows prompts and keys; a guest's request is not for it to classify."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from wasmtime import Engine, Store
from wasmtime.component import Component, Linker, ResourceHost, ResourceType, Variant

# Any number will do; it tells this host's resource types apart.
ENTRY = 1


@dataclass
class Entry:
    metadata: bytes
    payload: bytes
    stored_at: float
    ttl: int | None


class Cache:
    """The functions of `reflex:cache/cache`."""

    def __init__(self):
        self.entries = {}
        self.held = {}

    def find(self, name):
        entry = self.entries.get(key_of(name))
        if entry is None or entry.ttl is not None and age(entry) >= entry.ttl:
            return None
        return entry

    def lookup(self, store, name):
        try:
            entry = self.find(name)
        except Refused:
            # An error of a function that may also give nothing cannot be said in this API.
            return None
        if entry is None:
            return None
        handle = max(self.held, default=0) + 1
        self.held[handle] = entry
        return ResourceHost.own(handle, ENTRY).to_any(store)

    def insert(self, _, name, metadata, payload, options):
        try:
            key = key_of(name)
        except Refused as refused:
            return refused.error
        ttl = getattr(options, "ttl-seconds")
        self.entries[key] = Entry(metadata, payload, time.monotonic(), ttl)

    def read(self, store, entry, offset, length):
        payload = self.held[entry.to_host(store).rep].payload
        return payload[offset : offset + length]

    def size(self, store, entry):
        return len(self.held[entry.to_host(store).rep].payload)

    def drop(self, _, handle):
        del self.held[handle]


class Refused(Exception):
    def __init__(self, tag, text):
        self.error = Variant(tag, text)


def age(entry):
    return int(time.monotonic() - entry.stored_at)


def key_of(name):
    if name.tag == "request":
        raise Refused("bypass", "not-classified")
    if len(name.payload.tenant) != 32:
        raise Refused("invalid", "tenant")
    rest = name.payload.text if name.tag == "prompt" else name.payload.digest
    return (name.tag, name.payload.tenant, rest)


def main():
    engine = Engine()
    cache = Cache()
    linker = Linker(engine)
    component = Component(engine, Path(sys.argv[1]).read_bytes())
    with linker.root() as root, root.add_instance("reflex:cache/cache@0.1.0") as interface:
        interface.add_resource("entry", ResourceType.host(ENTRY), cache.drop)
        interface.add_func("lookup", cache.lookup)
        interface.add_func("insert", cache.insert)
        interface.add_func("[method]entry.size", cache.size)
        interface.add_func("[method]entry.read", cache.read)
    store = Store(engine)
    guest = linker.instantiate(store, component)

    def ask(tenant, prompt):
        function = guest.get_func(store, "ask")
        answer = function(store, tenant, prompt)
        function.post_return(store)
        assert not cache.held, "it still holds an entry"
        return answer.text, answer.cached

    one, other = bytes([1]) * 32, bytes([2]) * 32
    text = "You said: Grüße, 世界"
    for tenant, cached in [(one, False), (one, True), (other, False), (other, True)]:
        assert ask(tenant, "Grüße, 世界") == (text, cached), (tenant, cached)
    # What the cache refuses is not the asker's trouble.
    for _ in range(2):
        assert ask(b"short", "Hi") == ("You said: Hi", False)


main()
