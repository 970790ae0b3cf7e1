// Streamed downloads with progress, and the cache that keeps them for offline use.

import { Fault } from "./fault.js";

/**
 * Fetches `url` and calls `progress(bytes, total)` as the body arrives. `total` is 0 if unknown.
 *
 * @param {number} [size] the size in bytes, if known: Content-Length may be the compressed size
 * @returns {Promise<Response>} status 200, with a body that is still arriving
 * @throws {Fault} "download"
 */
export async function fetchWithProgress(url, progress, size) {
  let response;
  try {
    response = await fetch(url, { cache: "no-cache" });
  } catch {
    throw new Fault("download", "the server cannot be reached, and nothing is cached from an earlier visit");
  }
  if (response.status !== 200) throw new Fault("download", `the server returned status ${response.status} for ${url}`);

  const length = response.headers.has("Content-Encoding") ? 0 : Number(response.headers.get("Content-Length"));
  const total = size || length || 0;
  let bytes = 0;
  progress(0, total);
  const counter = new TransformStream({
    transform(chunk, controller) {
      bytes += chunk.byteLength;
      // The body is too long and may never end. Stop here; the digest check then rejects the file.
      if (size && bytes > size) {
        controller.terminate();
        return;
      }
      progress(bytes, Math.max(total, total && bytes));
      controller.enqueue(chunk);
    },
  });
  const type = response.headers.get("Content-Type") ?? "";
  return new Response(response.body.pipeThrough(counter), { headers: { "Content-Type": type } });
}

/** Reads the whole body. @throws {Fault} "download" if the connection breaks */
export async function readBody(response) {
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch {
    throw new Fault("download", "the connection broke before the file was complete");
  }
}

/**
 * A cache that may be unavailable: browsers have none outside secure contexts and refuse writes when storage is full.
 * The page then works, but not offline.
 */
export class Store {
  #cache;

  constructor(name) {
    this.#cache = globalThis.caches?.open(name).catch(() => undefined);
  }

  async get(key) {
    const cache = await this.#cache;
    return cache?.match(key);
  }

  async put(key, response) {
    const cache = await this.#cache;
    await cache?.put(key, response).catch(() => {});
  }

  async delete(key) {
    const cache = await this.#cache;
    await cache?.delete(key);
  }

  /** Deletes other versions of the same file: keys that differ only in the query. */
  async deleteOthers(key) {
    const cache = await this.#cache;
    const current = new URL(key);
    for (const { url } of (await cache?.keys()) ?? []) {
      if (url !== current.href && new URL(url).pathname === current.pathname) await cache.delete(url);
    }
  }
}
