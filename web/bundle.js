// Bundles from the network or from an earlier visit. A bundle is kept only after wasm has checked
// its digest and made a classifier of it, so that nothing broken is ever kept.

import { fetchWithProgress, readBody, Store } from "./download.js";
import { Fault, toFault } from "./fault.js";

const store = new Store("kiln-bundles");

/**
 * @template T
 * @param {{url: string, digest: string, bytes: number}} entry of web/models/index.json, URL resolved
 * @param {(bytes: Uint8Array) => Promise<T>} use makes a classifier of the bundle, or throws
 * @param {(bytes: number, total: number) => void} progress
 * @returns {Promise<{used: T, source: "kept" | "network"}>}
 */
export async function withBundle(entry, use, progress) {
  // The digest in the key: a bundle that was trained anew is not taken for the old one.
  const key = `${entry.url}?digest=${entry.digest}`;
  const kept = await store.get(key);
  if (kept) {
    try {
      return { used: await use(new Uint8Array(await kept.arrayBuffer())), source: "kept" };
    } catch (error) {
      if (toFault(error, "bundle").kind === "crashed") throw error;
      await store.delete(key);
    }
  }
  const bytes = await readBody(await fetchWithProgress(entry.url, progress, entry.bytes));
  assertSafetensors(bytes);
  const used = await use(bytes);
  await store.put(key, new Response(bytes));
  await store.deleteOthers(key);
  return { used, source: "network" };
}

/** Refuses what is plainly something else, such as a host's error page sent as 200. */
export function assertSafetensors(bytes) {
  const headerBytes = bytes.length < 9 ? NaN : Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const opensWithBrace = bytes[8] === 0x7b;
  if (!(headerBytes <= bytes.length - 8 && opensWithBrace)) {
    throw new Fault("bundle", "it is not a safetensors file, or it is cut off");
  }
}
