// The wasm packages that `bash web/build.sh` builds: web/pkg for one thread, web/pkg-threads for several. Each is a
// script and a module that must match, so both are cached for offline use together, after they have started.

import { fetchWithProgress, Store } from "./download.js";
import { Fault } from "./fault.js";
import { startThreads, threadsHere } from "./threads.js";

export const PACKAGE_STORE = "kiln-package";

/**
 * Loads the package with threads if the host and browser allow it, otherwise the one without.
 *
 * @param {(bytes: number, total: number) => void} progress
 * @returns {Promise<{Classifier: any, memory: WebAssembly.Memory, oneThread?: string}>} `oneThread`: why only one
 *   thread is used
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

/** @param {(wasm: object, script: string) => Promise<void>} [prepare] starts what the package needs, such as threads */
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
  const copy = response.clone();
  // Browsers compile while downloading only if the type is right, and some hosts send another.
  const typed = new Response(response.body, { headers: { "Content-Type": "application/wasm" } });
  const { memory } = await wasm.default({ module_or_path: typed });
  await prepare?.(wasm, script);
  await keep(script, module, copy);
  return { Classifier: wasm.Classifier, memory };
}

async function importScript(script, folder) {
  try {
    return await import(script);
  } catch (error) {
    throw await importFault(error, script, folder);
  }
}

/** `import` does not say why it failed, so fetch the script and look at the status. */
async function importFault(error, script, folder) {
  const response = await fetch(script, { cache: "no-cache" }).catch(() => undefined);
  if (response === undefined) return new Fault("package", "the server cannot be reached, and nothing is cached from an earlier visit");
  if (response.status === 404) return new Fault("missing-package", `the folder web/${folder} was not found: it is built, not part of the repository`);
  if (response.status !== 200) return new Fault("package", `the server returned status ${response.status} for ${script}`);
  return new Fault("package", error.message);
}

async function keep(script, module, body) {
  const store = new Store(PACKAGE_STORE);
  const answer = await fetch(script).catch(() => undefined);
  if (answer?.status !== 200) return;
  await store.put(module, new Response(body.body, { headers: { "Content-Type": "application/wasm" } }));
  await store.put(script, answer);
}
