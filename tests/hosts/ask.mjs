// node ask.mjs TRANSPILED.js: the guest of the tests under Node.js, by way of `jco transpile`.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { cache } from "./cache.mjs";

const file = process.argv[2];
const { instantiate } = await import(pathToFileURL(file));
const core = async (name) => WebAssembly.compile(await readFile(join(dirname(file), name)));
const guest = await instantiate(core, { "reflex:cache/cache": cache });

const [one, other] = [1, 2].map((byte) => new Uint8Array(32).fill(byte));
const text = "You said: Grüße, 世界";
for (const [tenant, cached] of [[one, false], [one, true], [other, false], [other, true]]) {
  assert.deepEqual({ ...guest.ask(tenant, "Grüße, 世界") }, { text, cached });
}
// What the cache refuses is not the asker's trouble.
assert.equal(guest.ask(new Uint8Array(5), "Hi").cached, false);
assert.equal(guest.ask(new Uint8Array(5), "Hi").cached, false);
