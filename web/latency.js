// The latency of one classification, stage by stage.

import { milliseconds } from "./format.js";

const STAGES = ["decode", "upload", "compute", "readBack"];
const COLUMNS = { cold: 0, warm: 1 };

export class Latency {
  #split;
  #body;

  constructor(split, body) {
    this.#split = split;
    this.#body = body;
  }

  /** @param {"cold" | "warm"} column @param timings milliseconds per stage */
  show(column, timings) {
    for (const stage of [...STAGES, "total"]) {
      const row = this.#body.querySelector(`[data-stage=${stage}]`);
      row.querySelectorAll("td")[COLUMNS[column]].textContent = milliseconds(timings[stage]);
    }
    if (column === "warm") this.#showSplit(timings);
  }

  #showSplit(timings) {
    STAGES.forEach((stage, i) => this.#split.children[i].style.setProperty("flex-grow", timings[stage] / timings.total));
  }

  /** Clears the table when the network or backend changes. */
  clear() {
    for (const cell of this.#body.querySelectorAll("td")) cell.textContent = "–";
  }
}
