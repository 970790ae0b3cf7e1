// An error with a kind; problems.js has the text for each kind.

export class Fault extends Error {
  /**
   * @param {string} kind one of the keys of `PROBLEMS` in problems.js
   * @param {string} message the reason, shown to the user
   */
  constructor(kind, message) {
    super(message);
    this.name = "Fault";
    this.kind = kind;
  }
}

/** Converts any thrown value to a fault: faults stay as they are, traps become "crashed", the rest become `kind`. */
export function toFault(error, kind) {
  if (error instanceof Fault) return error;
  // A trap leaves the module's memory in an unknown state, so the worker must be replaced.
  if (error instanceof WebAssembly.RuntimeError) return new Fault("crashed", error.message);
  return new Fault(kind, error?.message ?? String(error));
}
