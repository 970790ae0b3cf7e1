// Bundles, downloaded or cached from an earlier visit. A bundle is parsed only after its digest matches the list, and
// cached only after wasm has built a classifier from it, so the cache never holds a broken bundle.

import { fetchWithProgress, readBody, Store } from "./download.js";
import { Fault, toFault } from "./fault.js";

const store = new Store("kiln-bundles");

/**
 * @template T
 * @param {{url: string, sha256: string, bytes: number}} entry from web/models/index.json, URL resolved
 * @param {(bytes: Uint8Array) => Promise<T>} use builds a classifier from the bundle, or throws
 * @param {(bytes: number, total: number) => void} progress
 * @returns {Promise<{used: T, source: "cache" | "download"}>} what `use` returned
 */
export async function withBundle(entry, use, progress) {
  // The digest is part of the key: a retrained bundle never matches the old one.
  const key = `${entry.url}?sha256=${entry.sha256}`;
  const cached = await store.get(key);
  if (cached) {
    try {
      const bytes = new Uint8Array(await cached.arrayBuffer());
      await assertListed(bytes, entry);
      return { used: await use(bytes), source: "cache" };
    } catch (error) {
      if (toFault(error, "bundle").kind === "crashed") throw error;
      await store.delete(key);
    }
  }
  const bytes = await readBody(await fetchWithProgress(entry.url, progress, entry.bytes));
  assertSafetensors(bytes);
  await assertListed(bytes, entry);
  const used = await use(bytes);
  await store.put(key, new Response(bytes));
  await store.deleteOthers(key);
  return { used, source: "download" };
}

/**
 * Rejects bytes whose digest is not the listed one. Outside secure contexts browsers cannot compute it; then only wasm
 * checks the bundle.
 */
async function assertListed(bytes, { sha256 }) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  if ([...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) {
    throw new Fault("bundle", "its digest does not match the list of bundles: the file was changed or truncated");
  }
}

/** Rejects files that are clearly something else, such as an error page sent with status 200. */
export function assertSafetensors(bytes) {
  const headerBytes = bytes.length < 9 ? NaN : Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const opensWithBrace = bytes[8] === 0x7b;
  if (!(headerBytes <= bytes.length - 8 && opensWithBrace)) {
    throw new Fault("bundle", "it is not a safetensors file, or it is truncated");
  }
}
