// node policy.mjs TRANSPILED.js: the policy component under Node.js, by way of `jco transpile`.

import assert from "node:assert/strict";
import { cache } from "./cache.mjs";
import { load } from "./load.mjs";

// What the component decides about, by the name that the cache knows it by.
let asked;
const { decider } = await load(process.argv[2], {
  "reflex:cache/cache": cache,
  "reflex:cache/request": { lookup: () => cache.lookup(asked) },
});

/** From the cache if the component says so, else by `think` or not at all. */
function answer(name, think) {
  asked = name;
  const { tag, val } = decider.decide();
  switch (tag) {
    case "serve":
      return { cached: new TextDecoder().decode(val.read(0n, val.size())) };
    case "ask": {
      const text = think();
      cache.insert(name, new Uint8Array(), new TextEncoder().encode(text), val);
      return { text };
    }
    case "pass":
      return { passed: val, text: think() };
  }
}

const tenants = [1, 2].map((byte) => new Uint8Array(32).fill(byte));
for (const [number, tenant] of tenants.entries()) {
  const name = { tag: "prompt", val: { tenant, text: "Grüße, 世界" } };
  const text = `to tenant ${number}`;
  assert.deepEqual(answer(name, () => text), { text });
  assert.deepEqual(answer(name, assert.fail), { cached: text });
}
// A refusal of the cache does not fail the guest; a request without a key has a reason.
const short = { tag: "prompt", val: { tenant: new Uint8Array(5), text: "Hi" } };
assert.deepEqual(answer(short, () => "Hi"), { passed: "unavailable", text: "Hi" });
const request = { tag: "request", val: {} };
assert.deepEqual(answer(request, () => "Hi"), { passed: "not-classified", text: "Hi" });
