// The list of all classes, for networks that have many: searched by name, each with its probability and its heat map.

import { count, percent } from "./format.js";

/** The page lists the classes where the model card cannot name them all. */
const LISTED_FROM = 13;
/** Rows shown at once: more would be slow to lay out, and nobody reads them. */
const MAX_ROWS = 50;

export class ClassList {
  #elements;
  #onChoose;
  #classes = [];
  #probabilities;
  #chosen;

  /**
   * @param elements {details, summary, search, found, note}
   * @param {(classIndex: number) => void} onChoose
   */
  constructor(elements, onChoose) {
    this.#elements = elements;
    this.#onChoose = onChoose;
    elements.search.addEventListener("input", () => this.#list());
    elements.details.addEventListener("toggle", () => this.#list());
  }

  /** @param {string[]} classes of a network that was just loaded */
  show(classes) {
    const { details, summary, search } = this.#elements;
    this.#classes = classes;
    this.#probabilities = this.#chosen = undefined;
    search.value = "";
    summary.textContent = `All ${count(classes.length)} classes`;
    details.hidden = classes.length < LISTED_FROM;
    this.#list();
  }

  /** @param {Float32Array} probabilities of the last answer @param {number} chosen the class whose heat map is shown */
  mark(probabilities, chosen) {
    this.#probabilities = probabilities;
    this.#chosen = chosen;
    this.#list();
  }

  #list() {
    const { details, search, found, note } = this.#elements;
    if (details.hidden || !details.open) return;
    const wanted = search.value.trim().toLowerCase();
    const matches = [...this.#classes.keys()].filter((index) => this.#classes[index].toLowerCase().includes(wanted));
    const order = this.#probabilities;
    if (order) matches.sort((a, b) => order[b] - order[a]);
    found.replaceChildren(...matches.slice(0, MAX_ROWS).map((index) => this.#row(index)));
    const shown = Math.min(matches.length, MAX_ROWS);
    note.textContent = shown < matches.length ? `${count(shown)} of ${count(matches.length)} shown` : `${count(shown)} found`;
  }

  #row(index) {
    const button = document.createElement("button");
    button.type = "button";
    button.disabled = !this.#probabilities;
    button.setAttribute("aria-pressed", String(index === this.#chosen));
    const name = document.createElement("span");
    name.textContent = name.title = this.#classes[index];
    const share = document.createElement("b");
    share.textContent = this.#probabilities ? percent(this.#probabilities[index]) : "";
    button.append(name, share);
    button.addEventListener("click", () => this.#onChoose(index));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }
}
