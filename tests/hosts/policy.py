"""python policy.py POLICY.wasm: the policy component in a host of Python's `wasmtime`, which asks it
about prompts."""

import sys
from pathlib import Path

from cache import Cache
from wasmtime import Engine, Store
from wasmtime.component import Component, Linker, Record, ResourceAny, Variant


class Policy:
    def __init__(self, path):
        engine = Engine()
        self.cache = Cache()
        # What the component decides about, by the name that the cache knows it by.
        self.request = None
        linker = Linker(engine)
        component = Component(engine, Path(path).read_bytes())
        with linker.root() as root:
            self.cache.add_to(root)
            with root.add_instance("reflex:cache/request@0.1.0") as interface:
                interface.add_func("lookup", self.lookup)
        self.store = Store(engine)
        guest = linker.instantiate(self.store, component)
        decider = guest.get_export_index(self.store, "reflex:cache/decider@0.1.0")
        decide = guest.get_export_index(self.store, "decide", decider)
        self.decide = guest.get_func(self.store, decide)

    def lookup(self, store):
        return self.cache.lookup(store, self.request)

    def answer(self, tenant, prompt, think):
        """From the cache if the component says so, else by `think`, and whether it was cached."""
        self.request = named(tenant, prompt)
        decision = self.decide(self.store)
        self.decide.post_return(self.store)
        # Each kind of decision has a type of its own.
        if isinstance(decision, ResourceAny):
            return self.cache.take(self.store, decision).payload, True
        assert isinstance(decision, Record), decision
        payload = think(prompt)
        self.cache.insert(self.store, self.request, b"", payload, decision)
        return payload, False


def named(tenant, prompt):
    name = Record()
    name.tenant, name.text = tenant, prompt
    return Variant("prompt", name)


def main():
    policy = Policy(sys.argv[1])

    def check(tenant, prompt, expected):
        answer = policy.answer(tenant, prompt, lambda prompt: prompt[::-1].encode())
        assert answer == expected, (answer, expected)
        assert not policy.cache.held, "an entry is still held"

    one, other = bytes([1]) * 32, bytes([2]) * 32
    for tenant, cached in [(one, False), (one, True), (other, False), (other, True)]:
        check(tenant, "世界", ("界世".encode(), cached))
    check(one, "abc", (b"cba", False))
    # What the cache refuses is asked for each time.
    for _ in range(2):
        check(b"short", "abc", (b"cba", False))


main()
