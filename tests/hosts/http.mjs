// `reflex:cache/http` over the map of `cache.mjs`, with requests and responses that are objects of
// this host's: no byte of a body passes through the guest. An answer is kept if its status is 200; to
// judge it by its content, as `reflex-llm` does in our own host, is not for this one. Nor are batches
// of embeddings: they are asked for as a whole.

import { cache } from "./cache.mjs";

const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);

class Message {
  /** `headers` as in WIT: pairs of a name in lower case and bytes. */
  constructor(headers, body) {
    this.headers = headers;
    this.body = body;
  }

  header(name) {
    const found = this.headers.find(([other]) => other === name);
    return found && decode(found[1]);
  }

  /** Of `cache-status`, a list, what is set becomes the last member. */
  mark(remove, set) {
    const said = this.header("cache-status");
    const after = ([name, value]) =>
      name === "cache-status" && said ? [name, encode(`${said}, ${decode(value)}`)] : [name, value];
    this.edit(remove, set.map(after));
  }

  edit(remove, set) {
    const gone = new Set([...remove, ...set.map(([name]) => name)]);
    this.headers = this.headers.filter(([name]) => !gone.has(name)).concat(set);
  }
}

export class Request extends Message {
  constructor(method, path, headers, body) {
    super(Object.entries(headers).map(([name, value]) => [name, encode(value)]), encode(body));
    this.method = method;
    this.path = path;
  }
}

export class Response extends Message {
  constructor(status, headers, body) {
    super(headers, body);
    this.status = status;
  }

  getStatusCode() {
    return this.status;
  }

  get text() {
    return decode(this.body);
  }
}

/** The duty to ask the provider, for all requests for the same answer. */
class Fill {
  #end;

  constructor(ended) {
    this.turn = new Promise((resolve) => {
      this.#end = (turn) => {
        ended();
        resolve(turn);
      };
    });
  }

  end(turn) {
    this.#end(turn);
  }

  /** The guest has dropped it: the followers look again. */
  [Symbol.dispose ?? Symbol.for("dispose")]() {
    this.#end({ tag: "again" });
  }
}

/** What is being asked for, by key. */
const fills = new Map();

const copy = ({ status, headers, body }) => new Response(status, [...headers], body);

const http = {
  Fill,
  getPolicy: () => ({
    shareAnonymous: false,
    requestBytesMax: 1n << 20n,
    clientControl: "obey",
    samples: 1,
    hasGroups: false,
    paths: [],
    rules: {
      ignoredHeaders: [],
      ignoredCookies: [],
      ignoredQuery: [],
      ignoredFields: [],
      keyedFields: [],
      bypassFields: [],
      bypassModels: [],
    },
  }),
  groupOf: (tenant) => tenant,
  sample: (key) => key,
  inspect({ method, path, headers }) {
    const texts = [method, "https://api.example.com", path].map(encode);
    const parts = [...texts, ...headers.flatMap(([name, value]) => [encode(name), value])];
    let end = 0;
    const ends = parts.map((part) => (end += part.length));
    return { text: Buffer.concat(parts), ends: Uint32Array.from(ends) };
  },
  async peek(request, bytesMax) {
    // A body that is still on its way would be waited for here.
    await Promise.resolve();
    const isWhole = BigInt(request.body.length) <= bytesMax;
    const body = isWhole ? { tag: "ok", val: request.body } : { tag: "err", val: "too-long" };
    return { request, body };
  },
  editRequest: (request, remove, set) => request.edit(remove, set),
  editResponse: (response, remove, set) => response.mark(remove, set),
  lookupFresh(key) {
    const entry = cache.lookup({ tag: "key", val: key });
    return (
      entry && { entry, ageSeconds: entry.ageSeconds(), ttlSeconds: entry.ttlSeconds() }
    );
  },
  replay(entry, set) {
    const headers = [["content-type", entry.metadata()]];
    const response = new Response(200, headers, entry.read(0n, entry.size()));
    response.edit([], set);
    return response;
  },
  lookupStale: () => undefined,
  respond: (status, headers, body) => new Response(status, headers, body.slice()),
  async join({ key }) {
    const id = JSON.stringify([[...key.tenant], [...key.digest]]);
    const leader = fills.get(id);
    if (leader !== undefined) return leader.turn;
    const fill = new Fill(() => fills.delete(id));
    fills.set(id, fill);
    return { tag: "lead", val: fill };
  },
  giveUp: (fill, error) => fill.end({ tag: "failed", val: error }),
  recordResponse(response, { key, ttlSeconds }, fill) {
    const isGood = response.status === 200;
    if (isGood) {
      const type = encode(response.header("content-type") ?? "application/json");
      cache.insert({ tag: "key", val: key }, type, response.body, { ttlSeconds });
    }
    const followed = copy(response);
    // The cache status of the leader is not for the followers.
    followed.edit(["cache-status"], []);
    fill?.end(isGood ? { tag: "follow", val: followed } : { tag: "again" });
    return response;
  },
};

class Batch {
  #texts;

  constructor(_tenant, _elements, places) {
    this.#texts = places.length;
  }

  find() {
    return new Array(this.#texts).fill(undefined);
  }

  findStale() {
    return undefined;
  }
}

const embeddings = {
  Batch,
  replayBatch() {
    throw { tag: "unavailable", val: "batches" };
  },
  withBody: (request, body) => Object.assign(request, { body: body.slice() }),
  completeBatch: async () => ({ tag: "apart" }),
  recordBatch: (_, ...rest) => http.recordResponse(...rest),
};

/** What the middleware imports. `ask` is the provider: it has a request and gives a response. */
export const imports = (ask) => ({
  "reflex:cache/cache": cache,
  "reflex:cache/http": http,
  "reflex:cache/embeddings": embeddings,
  "wasi:http/handler": { handle: ask },
  "wasi:http/types": { Request, Response },
});
