// `reflex:cache/cache` over a Map, for guests that `jco transpile` has made into JavaScript: a host
// that is not ours. It knows keys and prompts; a guest's request is not for it to classify.

const entries = new Map();

class Entry {
  #metadata;
  #payload;
  #storedAt;
  #ttl;

  constructor(metadata, payload, ttl) {
    this.#metadata = metadata;
    this.#payload = payload;
    this.#storedAt = Date.now();
    this.#ttl = ttl;
  }

  get isFresh() {
    return this.#ttl === undefined || this.ageSeconds() < this.#ttl;
  }

  metadata() {
    return this.#metadata;
  }

  size() {
    return BigInt(this.#payload.length);
  }

  read(offset, length) {
    const end = offset + length;
    return this.#payload.subarray(Number(offset), Number(end));
  }

  ageSeconds() {
    return BigInt(Math.floor((Date.now() - this.#storedAt) / 1000));
  }

  ttlSeconds() {
    return this.#ttl === undefined ? undefined : this.#ttl - this.ageSeconds();
  }
}

/** One string for each name, and no two names the same one. */
function keyOf({ tag, val }) {
  if (tag === "request") throw { tag: "bypass", val: "not-classified" };
  if (val.tenant.length !== 32) throw { tag: "invalid", val: "tenant" };
  const hex = (bytes) => Buffer.from(bytes).toString("hex");
  return `${tag} ${hex(val.tenant)} ${tag === "key" ? hex(val.digest) : val.text}`;
}

function find(name) {
  const entry = entries.get(keyOf(name));
  return entry?.isFresh ? entry : undefined;
}

export const cache = {
  Entry,
  getLimits: () => ({
    requestBytesMax: 1n << 20n,
    entryBytesMax: 1n << 24n,
    metadataBytesMax: 1n << 16n,
    readBytesMax: 1n << 20n,
  }),
  lookup: find,
  contains: (name) => find(name) !== undefined,
  insert(name, metadata, payload, { ttlSeconds }) {
    entries.set(keyOf(name), new Entry(metadata.slice(), payload.slice(), ttlSeconds));
  },
  remove: (name) => entries.delete(keyOf(name)),
};
