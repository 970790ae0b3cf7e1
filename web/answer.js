// The prediction as text and bars.

import { percent } from "./format.js";

const BARS = 5;
/** Below this probability, the top class is less likely than all others together. */
const UNSURE_BELOW = 0.5;
/** If the lead over the second class is smaller than this, the page names the second class too. */
const CLOSE_WITHIN = 0.25;

/** Class indices, most likely first. */
export function ranked(probabilities) {
  return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
}

/** A sentence that warns of low confidence, or "" if there is no reason to. */
export function doubtOf(probabilities, classes) {
  const [first, second] = ranked(probabilities);
  const lead = probabilities[first] - (probabilities[second] ?? 0);
  if (probabilities[first] < UNSURE_BELOW) return "Low confidence: no class reaches 50 %.";
  if (lead < CLOSE_WITHIN) return `Low confidence: it could also be ${classes[second]}.`;
  return "";
}

export class Bars {
  #list;
  #rows;

  /** @param {HTMLOListElement} list @param {(classIndex: number) => void} onChoose */
  constructor(list, onChoose) {
    this.#list = list;
    this.#rows = Array.from({ length: BARS }, () => makeRow(onChoose));
    // Empty rows reserve the space before the first prediction. Screen readers skip them.
    list.setAttribute("aria-hidden", "true");
    list.append(...this.#rows.map(({ item }) => item));
  }

  /** @param {number} chosen the class whose heat map is shown */
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
