"""python ask.py GUEST.wasm: the guest of the tests in a host of Python's `wasmtime`."""

import sys
from pathlib import Path

from cache import Cache
from wasmtime import Engine, Store
from wasmtime.component import Component, Linker


def main():
    engine = Engine()
    cache = Cache()
    linker = Linker(engine)
    component = Component(engine, Path(sys.argv[1]).read_bytes())
    with linker.root() as root:
        cache.add_to(root)
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
