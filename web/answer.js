// The answer in words and bars.

import { percent } from "./format.js";

const BARS = 5;
/** Below this the most likely class is less likely than all others together. */
const UNSURE_BELOW = 0.5;
/** A runner-up this near is named beside the first. */
const CLOSE_WITHIN = 0.25;

/** Class indices, most likely first. */
export function ranked(probabilities) {
  return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
}

/** How far the answer is to be trusted, in a sentence. */
export function doubtOf(probabilities, classes) {
  const [first, second] = ranked(probabilities);
  const lead = probabilities[first] - (probabilities[second] ?? 0);
  if (probabilities[first] < UNSURE_BELOW) return "The network isn’t sure: no class gets half.";
  if (lead < CLOSE_WITHIN) return `The network isn’t sure: it might be ${classes[second]}.`;
  return "";
}

export class Bars {
  #list;
  #rows;

  /** @param {HTMLOListElement} list @param {(classIndex: number) => void} onChoose */
  constructor(list, onChoose) {
    this.#list = list;
    this.#rows = Array.from({ length: BARS }, () => makeRow(onChoose));
    // Rows without names keep the place; a screen reader has nothing to say of them.
    list.setAttribute("aria-hidden", "true");
    list.append(...this.#rows.map(({ item }) => item));
  }

  /** @param {number} chosen the class whose activation is shown */
  show(probabilities, classes, chosen) {
    const order = ranked(probabilities);
    this.#rows.forEach((row, place) => {
      const classIndex = order[place];
      row.item.hidden = classIndex === undefined;
      if (classIndex !== undefined) fillRow(row, classIndex, classes[classIndex], probabilities[classIndex], chosen);
    });
    this.#list.removeAttribute("aria-hidden");
  }
}

function makeRow(onChoose) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.disabled = true;
  const name = document.createElement("span");
  const bar = document.createElement("i");
  const share = document.createElement("b");
  button.append(name, bar, share);
  item.append(button);
  button.addEventListener("click", () => onChoose(Number(button.dataset.classIndex)));
  return { item, button, name, bar, share };
}

function fillRow({ button, name, bar, share }, classIndex, label, probability, chosen) {
  button.disabled = false;
  button.dataset.classIndex = classIndex;
  button.setAttribute("aria-pressed", String(classIndex === chosen));
  name.textContent = name.title = label;
  share.textContent = percent(probability);
  bar.style.setProperty("--share", probability);
}
