// Errors of the provider are what the clients for JavaScript know, and are never answered from
// the cache: once the provider is well again, so is the client.

import assert from "node:assert/strict";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const url = process.argv[2];
const options = { apiKey: "sk-test", maxRetries: 0, timeout: 60_000 };
const ask = { model: "mock", max_tokens: 99, messages: [{ role: "user", content: "Well?" }] };

const openai = new OpenAI({ ...options, baseURL: `${url}/v1` });
const anthropic = new Anthropic({ ...options, baseURL: url });

for (const [client, create] of [
  [OpenAI, (headers) => openai.chat.completions.create(ask, { headers })],
  [Anthropic, (headers) => anthropic.messages.create(ask, { headers })],
]) {
  for (const [status, error] of [
    [429, client.RateLimitError],
    [500, client.InternalServerError],
  ]) {
    const refused = (thrown) => thrown instanceof error && thrown.status === status;
    await assert.rejects(create({ "x-mock": `status=${status}` }), refused);
    await assert.rejects(create({ "x-mock": `status=${status}` }), refused);
  }
  assert.ok(await create({}));
}
