// What went wrong, of a kind that the page has words for (problems.js).

export class Fault extends Error {
  /**
   * @param {string} kind one of the keys of `PROBLEMS` in problems.js
   * @param {string} message why, for the reader
   */
  constructor(kind, message) {
    super(message);
    this.name = "Fault";
    this.kind = kind;
  }
}

/** Any thrown value as a fault: faults as they are, the rest as `kind`. */
export function toFault(error, kind) {
  if (error instanceof Fault) return error;
  // A trap leaves the module's memory in an unknown state, whatever was being done.
  if (error instanceof WebAssembly.RuntimeError) return new Fault("crashed", error.message);
  return new Fault(kind, error?.message ?? String(error));
}
