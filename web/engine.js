// The page's side of the worker: sends requests, receives results, and restarts a worker that crashed.

import { Fault } from "./fault.js";

/** After this many crashes in a row, with no picture classified in between, the worker is not restarted. */
const MAX_CRASHES = 3;

export class Engine {
  #worker;
  /** Receives the crash of a thread: the worker is blocked waiting for that thread and cannot report it. */
  #alarm;
  #waiting = new Map();
  #lastId = 0;
  #crashes = 0;
  #onProgress;
  #onCrash;

  /**
   * @param {(progress: {stage: string, done: number, total: number}) => void} onProgress
   * @param {(fault: Fault) => void} onCrash kind "crashed": a new, empty worker runs, so load again.
   *   Kind "dead": no new worker was started.
   */
  constructor(onProgress, onCrash) {
    this.#onProgress = onProgress;
    this.#onCrash = onCrash;
    this.start();
  }

  /** Starts a worker if none is running, for example after the kind "dead". */
  start() {
    if (this.#worker) return;
    const name = `kiln-${Math.random()}`;
    this.#alarm = new BroadcastChannel(name);
    this.#alarm.addEventListener("message", ({ data }) => this.#crash(data));
    this.#worker = new Worker(new URL("worker.js", import.meta.url), { type: "module", name });
    this.#worker.addEventListener("message", ({ data }) => this.#receive(data));
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#crash(event.message || "the worker could not be started");
    });
  }

  /**
   * Sends a request to the worker; worker.js lists the types.
   * @throws {Fault} the worker's fault, or "crashed"
   */
  request(type, payload = {}, transfer = []) {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      if (!this.#worker) return reject(new Fault("dead", "it crashed several times in a row"));
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, type, ...payload }, transfer);
    });
  }

  #receive({ id, event, result, fault, ...rest }) {
    if (event === "progress") return this.#onProgress(rest);
    if (event === "crashed" || fault?.kind === "crashed") return this.#crash((fault ?? rest).message);
    const call = this.#waiting.get(id);
    if (!call) return;
    this.#waiting.delete(id);
    if (fault) return call.reject(new Fault(fault.kind, fault.message));
    if (result.logits) this.#crashes = 0;
    call.resolve(result);
  }

  #crash(message) {
    if (!this.#worker) return;
    this.#worker.terminate();
    this.#alarm.close();
    this.#worker = undefined;
    this.#crashes += 1;
    const fault = new Fault(this.#crashes < MAX_CRASHES ? "crashed" : "dead", message);
    for (const { reject } of this.#waiting.values()) reject(fault);
    this.#waiting.clear();
    if (fault.kind === "crashed") this.start();
    else this.#crashes = 0;
    this.#onCrash(fault);
  }
}
