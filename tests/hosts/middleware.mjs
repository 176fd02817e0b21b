// node middleware.mjs TRANSPILED.js: the middleware component under Node.js, by way of `jco
// transpile`. It needs a Node.js that has `WebAssembly.Suspending`.

import assert from "node:assert/strict";
import { Request, Response, imports } from "./http.mjs";
import { load } from "./load.mjs";

/** What the provider was asked. */
const asked = [];
/** What the provider does before it answers. */
let meanwhile = async () => {};

const { handler } = await load(
  process.argv[2],
  imports(async (request) => {
    const number = asked.push(request);
    await meanwhile();
    const type = ["content-type", new TextEncoder().encode("application/json")];
    return new Response(200, [type], new TextEncoder().encode(`answer ${number}`));
  }),
);

const send = (body, headers = {}) =>
  handler.handle(
    new Request("POST", "/v1/chat/completions", { authorization: "Bearer a", ...headers }, body),
  );

async function check(expected, body, headers) {
  const response = await send(body, headers);
  const said = [response.status, response.header("x-reflex-status"), response.text];
  assert.deepEqual(said, expected);
  return response;
}

await check([200, "MISS", "answer 1"], '{"model":"m","messages":[]}');
assert.equal(asked[0].header("accept-encoding"), "identity");
// The same, spelled differently.
const hit = await check([200, "HIT_L1_EXACT", "answer 1"], '{ "messages": [], "model": "m" }');
assert.equal(hit.header("content-type"), "application/json");
await check([200, "MISS", "answer 2"], '{"model":"m","messages":[]}', { authorization: "Bearer b" });
await check([200, "BYPASS", "answer 3"], "not JSON");
assert.equal(asked.length, 3);
const absent = await send('{"model":"m","messages":[1]}', { "cache-control": "only-if-cached" });
assert.equal(absent.status, 504);

// Two requests for the same answer at once, and a third for another one, while the provider takes
// its time.
const begun = Promise.withResolvers();
const answered = Promise.withResolvers();
meanwhile = () => {
  begun.resolve();
  return answered.promise;
};
const same = [send('{"model":"m","messages":[2]}'), send('{"model":"m","messages":[2]}')];
await begun.promise;
meanwhile = async () => {};
await check([200, "MISS", "answer 5"], '{"model":"m","messages":[3]}');
answered.resolve();
const [led, followed] = await Promise.all(same);
assert.deepEqual([led.text, followed.text], ["answer 4", "answer 4"]);
assert.equal(led.header("cache-status"), "reflex; fwd=miss");
assert.equal(followed.header("cache-status"), "reflex; fwd=miss; collapsed");
assert.equal(asked.length, 5);

// The client gets the failure of a provider, which is asked again next time.
meanwhile = async () => {
  throw { tag: "connection-refused" };
};
for (let tries = 0; tries < 2; tries += 1) {
  await assert.rejects(send('{"model":"m","messages":[4]}'), (error) => {
    assert.equal(error.payload.tag, "connection-refused");
    return true;
  });
}
assert.equal(asked.length, 7);
