"""`reflex:cache/cache` as a dictionary, for guests in Python's `wasmtime`: a host that is not ours. It
knows keys and prompts; a guest's request is not for it to classify."""

import time
from dataclasses import dataclass

from wasmtime.component import ResourceHost, ResourceType, Variant

# Any number will do; it tells this host's resource types apart.
ENTRY = 1


@dataclass
class Entry:
    metadata: bytes
    payload: bytes
    stored_at: float
    ttl: int | None


class Cache:
    """The functions of the interface."""

    def __init__(self):
        self.entries = {}
        # What guests hold, by their handles.
        self.held = {}

    def add_to(self, root):
        with root.add_instance("reflex:cache/cache@0.1.0") as interface:
            interface.add_resource("entry", ResourceType.host(ENTRY), self.drop)
            interface.add_func("lookup", self.lookup)
            interface.add_func("insert", self.insert)
            interface.add_func("[method]entry.size", self.size)
            interface.add_func("[method]entry.read", self.read)

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
        payload = self.of(store, entry).payload
        return payload[offset : offset + length]

    def size(self, store, entry):
        return len(self.of(store, entry).payload)

    def of(self, store, entry):
        return self.held[entry.to_host(store).rep]

    def take(self, store, entry):
        """An entry that a guest has given away."""
        return self.held.pop(entry.to_host(store).rep)

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
