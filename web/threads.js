// Threads of the multithreaded wasm package: the worker that owns the package, and others that share its memory.

import { Fault } from "./fault.js";

const MOST_THREADS = 8;

/** Keeps references: browsers may collect workers that nothing refers to. */
const others = [];

/** How many threads to use and, if only one, why. @returns {{count: number, oneThread?: string}} */
export function threadsHere() {
  if (!globalThis.crossOriginIsolated) return { count: 1, oneThread: "this host does not send the headers that multithreading needs" };
  const count = Math.min(navigator.hardwareConcurrency, MOST_THREADS);
  return count > 1 ? { count } : { count: 1, oneThread: "the browser reports one core" };
}

/**
 * @param {{shared: Function, startPool: Function}} wasm the initialized package
 * @param {string} script the URL of its script
 * @param {number} count number of threads, including this worker
 * @throws {Fault} "package"
 */
export async function startThreads(wasm, script, count) {
  const message = { script, ...wasm.shared() };
  try {
    // Start them all first: startPool blocks this worker until every thread has joined.
    await Promise.all(Array.from({ length: count - 1 }, () => startThread(message)));
    wasm.startPool(count - 1);
  } catch (error) {
    others.splice(0).forEach((thread) => thread.terminate());
    throw new Fault("package", `a thread failed to start: ${error.message}`);
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
