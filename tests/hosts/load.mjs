// What `jco transpile` has made of a component, with what it imports.

import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

export async function load(file, imports) {
  const { instantiate } = await import(pathToFileURL(file));
  const core = async (name) => WebAssembly.compile(await readFile(join(dirname(file), name)));
  return instantiate(core, imports);
}
