// The threads of the wasm package that has several: the worker that owns the package, and others that share its memory.

import { Fault } from "./fault.js";

const MOST_THREADS = 8;

/** Browsers may drop workers that nothing refers to. */
const others = [];

/** How many threads this worker may have and, if it is one, why. @returns {{count: number, oneThread?: string}} */
export function threadsHere() {
  if (!globalThis.crossOriginIsolated) return { count: 1, oneThread: "this host does not send the headers that several need" };
  const count = Math.min(navigator.hardwareConcurrency, MOST_THREADS);
  return count > 1 ? { count } : { count: 1, oneThread: "the browser counts one core" };
}

/**
 * @param {{shared: Function, startPool: Function}} wasm the package, started
 * @param {string} script its URL
 * @param {number} count threads, this worker included
 * @throws {Fault} "package"
 */
export async function startThreads(wasm, script, count) {
  const message = { script, ...wasm.shared() };
  try {
    // All of them first: the pool waits for its threads, and while it does nothing else of this worker runs.
    await Promise.all(Array.from({ length: count - 1 }, () => startThread(message)));
    wasm.startPool(count - 1);
  } catch (error) {
    others.splice(0).forEach((thread) => thread.terminate());
    throw new Fault("package", `a thread did not start: ${error.message}`);
  }
}

function startThread(message) {
  return new Promise((resolve, reject) => {
    const thread = new Worker(new URL("thread.js", import.meta.url), { type: "module", name: self.name });
    others.push(thread);
    thread.addEventListener("message", ({ data: { fault } }) => (fault === undefined ? resolve() : reject(new Error(fault))));
    thread.addEventListener("error", (event) => {
      event.preventDefault();
      reject(new Error(event.message || "its script could not be loaded"));
    });
    thread.postMessage(message);
  });
}
