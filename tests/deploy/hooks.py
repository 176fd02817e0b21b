"""What schemathesis does not know of the admin API: its token, and that an import is JSON Lines."""

import json
import os

import schemathesis


@schemathesis.auth()
class Token:
    """Left out where a check is about a request without it."""

    def get(self, case, ctx):
        return os.environ["REFLEX_ADMIN_TOKEN"]

    def set(self, case, data, ctx):
        case.headers = case.headers or {}
        case.headers["authorization"] = f"Bearer {data}"


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    lines = value if isinstance(value, list) else [value]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
