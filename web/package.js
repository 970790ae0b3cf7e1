// The wasm package that `bash web/build.sh` makes: its JavaScript and its module, which belong
// together. The pair is kept for offline use once it has started, never one half of it.

import { fetchWithProgress, Store } from "./download.js";
import { Fault } from "./fault.js";

export const PACKAGE_STORE = "kiln-package";
const SCRIPT = new URL("pkg/kiln_web.js", import.meta.url).href;
const MODULE = new URL("pkg/kiln_web_bg.wasm", import.meta.url).href;

/**
 * @param {(bytes: number, total: number) => void} progress
 * @returns {Promise<{Classifier: any, memory: WebAssembly.Memory}>}
 * @throws {Fault} "missing-package" or "package"
 */
export async function loadPackage(progress) {
  const { default: init, Classifier } = await importScript();
  let response;
  try {
    response = await fetchWithProgress(MODULE, progress);
  } catch (fault) {
    throw new Fault("package", fault.message);
  }
  const kept = response.clone();
  // Some hosts do not know the type, without which no browser compiles while downloading.
  const typed = new Response(response.body, { headers: { "Content-Type": "application/wasm" } });
  const { memory } = await init({ module_or_path: typed });
  await keep(kept);
  return { Classifier, memory };
}

async function importScript() {
  try {
    return await import(SCRIPT);
  } catch (error) {
    throw await importFault(error);
  }
}

/** `import` does not say why it failed: ask the server. */
async function importFault(error) {
  const response = await fetch(SCRIPT, { cache: "no-cache" }).catch(() => undefined);
  if (response === undefined) return new Fault("package", "the server cannot be reached, and nothing is kept from an earlier visit");
  if (response.status === 404) return new Fault("missing-package", "there is no web/pkg: it is built, not stored in the repository");
  if (response.status !== 200) return new Fault("package", `the server answered ${response.status} for ${SCRIPT}`);
  return new Fault("package", error.message);
}

async function keep(module) {
  const store = new Store(PACKAGE_STORE);
  const script = await fetch(SCRIPT).catch(() => undefined);
  if (script?.status !== 200) return;
  await store.put(MODULE, new Response(module.body, { headers: { "Content-Type": "application/wasm" } }));
  await store.put(SCRIPT, script);
}
