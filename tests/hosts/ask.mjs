// node ask.mjs TRANSPILED.js: the guest of the tests under Node.js, by way of `jco transpile`.

import assert from "node:assert/strict";
import { cache } from "./cache.mjs";
import { load } from "./load.mjs";

const guest = await load(process.argv[2], { "reflex:cache/cache": cache });

const [one, other] = [1, 2].map((byte) => new Uint8Array(32).fill(byte));
const text = "You said: Grüße, 世界";
for (const [tenant, cached] of [[one, false], [one, true], [other, false], [other, true]]) {
  assert.deepEqual({ ...guest.ask(tenant, "Grüße, 世界") }, { text, cached });
}
// A refusal of the cache does not fail the guest.
assert.equal(guest.ask(new Uint8Array(5), "Hi").cached, false);
assert.equal(guest.ask(new Uint8Array(5), "Hi").cached, false);
