// The wasm packages that `bash web/build.sh` makes: one for a single thread, and one for several. Each is a script and
// a module, which belong together. The pair is kept for offline use once it has started, never one half of it.

import { fetchWithProgress, Store } from "./download.js";
import { Fault } from "./fault.js";
import { startThreads, threadsHere } from "./threads.js";

export const PACKAGE_STORE = "kiln-package";

/**
 * The package with threads where host and browser allow them, otherwise the one without.
 *
 * @param {(bytes: number, total: number) => void} progress
 * @returns {Promise<{Classifier: any, memory: WebAssembly.Memory, oneThread?: string}>} `oneThread`: why there is one
 * @throws {Fault} "missing-package" or "package"
 */
export async function loadPackage(progress) {
  const { count, oneThread } = threadsHere();
  if (oneThread) return { ...(await load("pkg", progress)), oneThread };
  try {
    return await load("pkg-threads", progress, (wasm, script) => startThreads(wasm, script, count));
  } catch (fault) {
    return { ...(await load("pkg", progress)), oneThread: fault.message };
  }
}

/** @param {(wasm: object, script: string) => Promise<void>} [prepare] what the package needs before it works */
async function load(folder, progress, prepare) {
  const script = new URL(`${folder}/kiln_web.js`, import.meta.url).href;
  const module = new URL(`${folder}/kiln_web_bg.wasm`, import.meta.url).href;
  const wasm = await importScript(script, folder);
  let response;
  try {
    response = await fetchWithProgress(module, progress);
  } catch (fault) {
    throw new Fault("package", fault.message);
  }
  const kept = response.clone();
  // Some hosts do not know the type, without which no browser compiles while downloading.
  const typed = new Response(response.body, { headers: { "Content-Type": "application/wasm" } });
  const { memory } = await wasm.default({ module_or_path: typed });
  await prepare?.(wasm, script);
  await keep(script, module, kept);
  return { Classifier: wasm.Classifier, memory };
}

async function importScript(script, folder) {
  try {
    return await import(script);
  } catch (error) {
    throw await importFault(error, script, folder);
  }
}

/** `import` does not say why it failed: ask the server. */
async function importFault(error, script, folder) {
  const response = await fetch(script, { cache: "no-cache" }).catch(() => undefined);
  if (response === undefined) return new Fault("package", "the server cannot be reached, and nothing is kept from an earlier visit");
  if (response.status === 404) return new Fault("missing-package", `there is no web/${folder}: it is built, not stored in the repository`);
  if (response.status !== 200) return new Fault("package", `the server answered ${response.status} for ${script}`);
  return new Fault("package", error.message);
}

async function keep(script, module, body) {
  const store = new Store(PACKAGE_STORE);
  const answer = await fetch(script).catch(() => undefined);
  if (answer?.status !== 200) return;
  await store.put(module, new Response(body.body, { headers: { "Content-Type": "application/wasm" } }));
  await store.put(script, answer);
}
