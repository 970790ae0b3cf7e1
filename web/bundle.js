// Bundles from the network or from an earlier visit. Nothing reads a bundle before its bytes are known to be those
// of the list, and it is kept only after wasm has made a classifier of it, so that nothing broken is ever kept.

import { fetchWithProgress, readBody, Store } from "./download.js";
import { Fault, toFault } from "./fault.js";

const store = new Store("kiln-bundles");

/**
 * @template T
 * @param {{url: string, sha256: string, bytes: number}} entry of web/models/index.json, URL resolved
 * @param {(bytes: Uint8Array) => Promise<T>} use makes a classifier of the bundle, or throws
 * @param {(bytes: number, total: number) => void} progress
 * @returns {Promise<{used: T, source: "kept" | "network"}>}
 */
export async function withBundle(entry, use, progress) {
  // The digest in the key: a bundle that was trained anew is not taken for the old one.
  const key = `${entry.url}?sha256=${entry.sha256}`;
  const kept = await store.get(key);
  if (kept) {
    try {
      const bytes = new Uint8Array(await kept.arrayBuffer());
      await assertListed(bytes, entry);
      return { used: await use(bytes), source: "kept" };
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
  return { used, source: "network" };
}

/** Refuses bytes that are not those of the list. Outside secure contexts browsers compute no digest: then wasm's check is the only one. */
async function assertListed(bytes, { sha256 }) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  if ([...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) {
    throw new Fault("bundle", "its digest is not that of the list of bundles: it was changed or cut off on its way");
  }
}

/** Refuses what is plainly something else, such as a host's error page sent as 200. */
export function assertSafetensors(bytes) {
  const headerBytes = bytes.length < 9 ? NaN : Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const opensWithBrace = bytes[8] === 0x7b;
  if (!(headerBytes <= bytes.length - 8 && opensWithBrace)) {
    throw new Fault("bundle", "it is not a safetensors file, or it is cut off");
  }
}
