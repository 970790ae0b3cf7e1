// Progress, error messages and screen reader announcements.

import { megabytes } from "./format.js";
import { describe } from "./problems.js";

const STAGES = {
  runtime: "Loading the runtime",
  bundle: "Loading the network",
  read: "Checking the network",
  prepare: "Preparing the network",
  warm: "First run",
};

export class Status {
  #elements;
  /** The kind of the fault that is shown. */
  #kind;

  /** @param elements {load, text, progress, problem, what, why, remedy, retry, close, announcement} */
  constructor(elements) {
    this.#elements = elements;
    elements.close.addEventListener("click", () => this.clearProblem());
  }

  /** @param {{stage: string, done: number, total: number}} progress `total` is 0 if unknown */
  showProgress({ stage, done, total }) {
    const { load, text, progress } = this.#elements;
    load.dataset.state = "loading";
    const inBytes = stage === "runtime" || stage === "bundle";
    const amount = total ? `${megabytes(done)} of ${megabytes(total)} MB` : `${megabytes(done)} MB`;
    text.textContent = inBytes ? `${STAGES[stage]}, ${amount}` : STAGES[stage];
    if (total) progress.value = done / total;
    else progress.removeAttribute("value");
  }

  /** @param {"ready" | "failed"} state */
  finish(state, message) {
    const { load, text, progress } = this.#elements;
    load.dataset.state = state;
    text.textContent = message;
    progress.value = 1;
  }

  /** @param {() => void} [retry] called by the button "Try again", which shows only if a retry may help */
  showProblem(fault, subject, retry) {
    const { problem, what, why, remedy, retry: button } = this.#elements;
    const words = describe(fault, subject);
    this.#kind = fault.kind;
    what.textContent = words.what;
    why.textContent = words.why;
    remedy.textContent = words.remedy;
    button.hidden = !(words.retry && retry);
    button.onclick = () => {
      this.clearProblem();
      retry();
    };
    problem.hidden = false;
  }

  /** @param {string} [kind] hides only a fault of this kind */
  clearProblem(kind = this.#kind) {
    if (kind === this.#kind) this.#elements.problem.hidden = true;
  }

  announce(text) {
    this.#elements.announcement.textContent = text;
  }
}
