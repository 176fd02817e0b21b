// A guest in JavaScript: answers prompts, and asks the cache before it thinks.

import { insert, lookup } from "reflex:cache/cache@0.1.0";

export function ask(tenant, prompt) {
  const name = { tag: "prompt", val: { tenant, text: prompt } };
  const known = lookUp(name);
  if (known !== undefined) {
    return { text: new TextDecoder().decode(known), cached: true };
  }
  const text = think(prompt);
  keep(name, new TextEncoder().encode(text));
  return { text, cached: false };
}

/** The cached answer of that name; nothing if the cache is in trouble. */
function lookUp(name) {
  let entry;
  try {
    entry = lookup(name);
  } catch {
    return undefined;
  }
  if (entry === undefined) return undefined;
  const size = entry.size();
  const payload = new Uint8Array(Number(size));
  let length = 0;
  // One read may give less than what is asked for.
  for (;;) {
    const part = entry.read(BigInt(length), size);
    if (part.length === 0) break;
    payload.set(part, length);
    length += part.length;
  }
  // An entry pins its storage, so it is let go at once.
  entry[Symbol.dispose]();
  return payload;
}

/** Stores an answer for an hour, if the cache takes it. */
function keep(name, payload) {
  try {
    insert(name, new TextEncoder().encode("text/plain"), payload, { ttlSeconds: 3600n });
  } catch {
    // The answer is good all the same.
  }
}

/** Stands for a call of a model. */
function think(prompt) {
  return `You said: ${prompt}`;
}
