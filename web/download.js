// Streamed downloads that report their bytes, and what is kept of them for offline use.

import { Fault } from "./fault.js";

/**
 * Fetches `url`, and calls `progress(bytes, total)` as its body comes in. `total` is 0 where nobody
 * knows it.
 *
 * @param {number} [size] the size in bytes if known; Content-Length is that of the compressed body
 * @returns {Promise<Response>} status 200, with a body that is still coming in
 * @throws {Fault} "download"
 */
export async function fetchWithProgress(url, progress, size) {
  let response;
  try {
    response = await fetch(url, { cache: "no-cache" });
  } catch {
    throw new Fault("download", "the server cannot be reached, and nothing is kept from an earlier visit");
  }
  if (response.status !== 200) throw new Fault("download", `the server answered ${response.status} for ${url}`);

  const length = response.headers.has("Content-Encoding") ? 0 : Number(response.headers.get("Content-Length"));
  const total = size || length || 0;
  let bytes = 0;
  progress(0, total);
  const counter = new TransformStream({
    transform(chunk, controller) {
      bytes += chunk.byteLength;
      // A body that may never end; what has come in so far is not the file, as its reader will find.
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

/** The whole body. @throws {Fault} "download" when the connection breaks */
export async function readBody(response) {
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch {
    throw new Fault("download", "the connection broke before the file was complete");
  }
}

/**
 * A cache that may not be there: browsers have none outside secure contexts, and refuse to fill it
 * when the disk is full. Then everything works, only not offline.
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

  /** Deletes other versions of the same file: what differs in the query alone. */
  async deleteOthers(key) {
    const cache = await this.#cache;
    const kept = new URL(key);
    for (const { url } of (await cache?.keys()) ?? []) {
      if (url !== kept.href && new URL(url).pathname === kept.pathname) await cache.delete(url);
    }
  }
}
