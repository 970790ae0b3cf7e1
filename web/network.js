// The model card: what a bundle's metadata says of the network.

import { count, percent } from "./format.js";

/** "ResNet-18, width 16, 32 x 32 pixels" */
export function architectureOf({ architecture, image_size: size }) {
  const { depth, width, patch } = architecture;
  const name = patch === undefined ? `ResNet-${depth}` : `Vision transformer, ${count(depth)} blocks`;
  return `${name}, width ${width}, ${size} × ${size} pixels`;
}

/** What it got right, on what and of how many; a figure without these says nothing. */
export function accuracyOf({ accuracy, accuracy_split: split, accuracy_samples: samples, dataset, quantisation }) {
  if (accuracy === undefined) return "Its accuracy is not recorded.";
  const of = `${percent(accuracy, 2)} of ${count(samples)} ${split} images of “${dataset}” right`;
  return quantisation ? `${of}; ${quantisationOf(quantisation)}.` : `${of}.`;
}

/** What storing the weights in fewer bits cost, where that was measured. */
function quantisationOf({ storage, accuracy_before: before, accuracy_after: after }) {
  if (after === undefined || after === null) return `stored as ${storage}`;
  const points = 100 * (after - before);
  return `stored as ${storage}: ${percent(after, 2)} (${points > 0 ? "+" : "−"}${Math.abs(points).toFixed(2)} points)`;
}

/** The classes it knows: anything else gets the nearest of them. */
export function classesOf(classes) {
  const shown = classes.slice(0, 12).join(", ");
  const more = classes.length > 12 ? ` and ${count(classes.length - 12)} more` : "";
  return `Knows ${shown}${more}. Anything else gets one of these names too.`;
}
