// The same request of each kind twice, by the clients for JavaScript: the second time it comes
// from the cache, and is the same. Prints how many calls of the provider that makes.

import assert from "node:assert/strict";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const url = process.argv[2];
const options = { apiKey: "sk-test", maxRetries: 0, timeout: 60_000 };
const openai = new OpenAI({ ...options, baseURL: `${url}/v1` });
const anthropic = new Anthropic({ ...options, baseURL: url });

const prompt = "Why is the sky blue?";
const messages = [{ role: "user", content: prompt }];
const says = (text) => assert.ok(text.endsWith(`You asked: "${prompt}"`), text);

const usual = { model: "mock", messages };
const tools = [
  { type: "function", function: { name: "look_up", parameters: { type: "object" } } },
];
const message = { ...usual, max_tokens: 99 };
const messageTools = [{ name: "look_up", input_schema: { type: "object" } }];
const tool = { headers: { "x-mock": "tool" } };

// Whatever comes: the status, then one document or all events.
async function ask(promise) {
  const { data, response } = await promise.withResponse();
  const parts = [];
  if (Symbol.asyncIterator in data) {
    for await (const part of data) parts.push(part);
  } else {
    parts.push(data);
  }
  return { status: response.headers.get("x-reflex-status"), parts };
}

const completions = openai.chat.completions;
const cases = {
  completion: {
    ask: () => completions.create(usual),
    check: ([whole]) => {
      says(whole.choices[0].message.content);
      assert.ok(whole.usage.total_tokens > 1);
    },
  },
  "streamed completion": {
    ask: () =>
      completions.create({ ...usual, stream: true, stream_options: { include_usage: true } }),
    check: (chunks) => {
      says(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""));
      assert.ok(chunks.length > 5);
      assert.ok(chunks.at(-1).usage.total_tokens > 1);
    },
  },
  "completion with a call": {
    ask: () => completions.create({ ...usual, tools }, tool),
    check: ([whole]) => {
      const [call] = whole.choices[0].message.tool_calls;
      assert.equal(call.function.name, "look_up");
      says(JSON.parse(call.function.arguments).what);
    },
  },
  "streamed completion with a call": {
    ask: () => completions.create({ ...usual, tools, stream: true }, tool),
    check: (chunks) => {
      const calls = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []);
      says(JSON.parse(calls.map((call) => call.function.arguments ?? "").join("")).what);
      assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
    },
  },
  response: {
    ask: () => openai.responses.create({ model: "mock", input: prompt, store: false }),
    check: ([whole]) => says(whole.output_text),
  },
  "streamed response": {
    ask: () =>
      openai.responses.create({ model: "mock", input: prompt, store: false, stream: true }),
    check: (events) => {
      assert.equal(events.at(-1).type, "response.completed");
      says(events.map((event) => event.delta ?? "").join(""));
    },
  },
  // The client asks for base64 by itself; the provider of the tests sends numbers.
  embeddings: {
    ask: () =>
      openai.embeddings.create({ model: "mock", input: ["one", "two"], encoding_format: "float" }),
    check: ([whole]) => {
      assert.deepEqual(whole.data.map((one) => one.index), [0, 1]);
      assert.deepEqual(whole.data.map((one) => one.embedding.at(-1)), [3, 3]);
      assert.notEqual(whole.data[0].embedding[0], whole.data[1].embedding[0]);
    },
  },
  message: {
    ask: () => anthropic.messages.create(message),
    check: ([whole]) => {
      says(whole.content[0].text);
      assert.ok(whole.usage.output_tokens > 1);
    },
  },
  "streamed message": {
    ask: () => anthropic.messages.create({ ...message, stream: true }),
    check: (events) => {
      says(events.map((event) => event.delta?.text ?? "").join(""));
      assert.equal(events.at(-1).type, "message_stop");
    },
  },
  "message with a call": {
    ask: () => anthropic.messages.create({ ...message, tools: messageTools }, tool),
    check: ([whole]) => {
      assert.equal(whole.stop_reason, "tool_use");
      says(whole.content[0].input.what);
    },
  },
  "streamed message with a call": {
    ask: () => anthropic.messages.create({ ...message, tools: messageTools, stream: true }, tool),
    check: (events) => {
      says(JSON.parse(events.map((event) => event.delta?.partial_json ?? "").join("")).what);
    },
  },
};

const ids = new Set();
for (const [name, { ask: request, check }] of Object.entries(cases)) {
  const first = await ask(request());
  const second = await ask(request());
  assert.equal(first.status, "MISS", name);
  assert.equal(second.status, "HIT_L1_EXACT", name);
  assert.deepEqual(second.parts, first.parts, name);
  check(second.parts);
  ids.add(JSON.stringify(first.parts));
}
assert.equal(ids.size, Object.keys(cases).length);
console.log(ids.size);
