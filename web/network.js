// The model card: describes the network from the bundle's metadata.

import { count, percent } from "./format.js";

/** For example "ResNet-18, width 16, 32 × 32 pixels". */
export function architectureOf({ architecture, image_size: size }) {
  const { depth, width, patch } = architecture;
  const name = patch === undefined ? `ResNet-${depth}` : `Vision transformer, ${count(depth)} blocks`;
  return `${name}, width ${width}, ${size} × ${size} pixels`;
}

/** The accuracy with its data set, split and sample count: without them the number means little. */
export function accuracyOf({ accuracy, accuracy_split: split, accuracy_samples: samples, dataset, quantisation }) {
  if (accuracy === undefined || accuracy === null) return "Accuracy not known: nobody has measured it.";
  const measured = `Accuracy ${percent(accuracy, 2)} on ${count(samples)} ${split} images of “${dataset}”`;
  return quantisation ? `${measured}; ${quantizationOf(quantisation)}.` : `${measured}.`;
}

/** The change in accuracy from storing the weights in fewer bits, if it was measured. */
function quantizationOf({ storage, accuracy_before: before, accuracy_after: after }) {
  if (after === undefined || after === null) return `stored as ${storage}`;
  const points = 100 * (after - before);
  return `stored as ${storage}: ${percent(after, 2)} (${points > 0 ? "+" : "−"}${Math.abs(points).toFixed(2)} points)`;
}

/** The share of the center square that the network sees, along each side: less than 1 after a resize and a crop. */
export function seenShare({ image_size: size, preprocessing }) {
  return preprocessing ? size / preprocessing.resize : 1;
}

/** The class names, with a warning that any other picture gets one of them too. */
export function classesOf(classes) {
  const shown = classes.slice(0, 12).join(", ");
  const more = classes.length > 12 ? ` and ${count(classes.length - 12)} more` : "";
  return `Classes: ${shown}${more}. Pictures of anything else also get one of these labels.`;
}
