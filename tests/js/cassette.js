// One episode by the clients for JavaScript: documents, streams, calls of tools, errors. Prints all that the
// clients saw, which is the same when the episode is replayed.

import assert from "node:assert/strict";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const url = process.argv[2];
const options = { apiKey: "sk-test", maxRetries: 0, timeout: 60_000 };
const openai = new OpenAI({ ...options, baseURL: `${url}/v1` });
const anthropic = new Anthropic({ ...options, baseURL: url });

const messages = [{ role: "user", content: "Why is the sky blue?" }];
const chat = { model: "mock", messages };
const message = { ...chat, max_tokens: 99 };
const tools = [
  { type: "function", function: { name: "look_up", parameters: { type: "object" } } },
];
const messageTools = [{ name: "look_up", input_schema: { type: "object" } }];
const call = { headers: { "x-mock": "tool" } };
const busy = { headers: { "x-mock": "status=429" } };

async function all(promise) {
  const parts = [];
  for await (const part of await promise) parts.push(part);
  return parts;
}

async function refused(promise, error) {
  const thrown = await promise.then(() => undefined, (reason) => reason);
  assert.ok(thrown instanceof error, String(thrown));
  return [thrown.status, thrown.message];
}

const completions = openai.chat.completions;
const seen = [
  await completions.create(chat),
  await all(completions.create({ ...chat, stream: true })),
  await completions.create({ ...chat, tools }, call),
  await all(completions.create({ ...chat, tools, stream: true }, call)),
  await refused(completions.create(chat, busy), OpenAI.RateLimitError),
  await openai.responses.create({ model: "mock", input: "Why is the sky blue?" }),
  await anthropic.messages.create(message),
  await all(anthropic.messages.create({ ...message, stream: true })),
  await anthropic.messages.create({ ...message, tools: messageTools }, call),
  await refused(anthropic.messages.create(message, busy), Anthropic.RateLimitError),
];
console.log(JSON.stringify(seen));
