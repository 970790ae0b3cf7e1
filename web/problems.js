// Faults in words: what happened, why, and what to do about it.

import { sentence } from "./format.js";

const OTHER_PICTURE = "Try another picture: JPEG, PNG, WebP, GIF or BMP.";

/** For each kind of fault: `what(subject)`, and `remedy`, a text or a function of the reason. */
const PROBLEMS = {
  picture: {
    what: (name) => `${name} was not classified.`,
    remedy: (why) => (/limit/.test(why) ? "Make the picture smaller, then try again." : OTHER_PICTURE),
  },
  "no-picture": { what: () => "There was no picture in that.", remedy: "Save the picture as a file, then drop or choose the file." },
  "missing-package": {
    what: () => "The network's program is missing.",
    remedy: "Build it with: bash web/build.sh. Then reload this page.",
  },
  package: { what: () => "The network's program could not be loaded.", remedy: "Check the connection, then try again." },
  list: { what: () => "The list of bundles could not be read.", remedy: "Try again, or open a bundle of your own below." },
  download: { what: (name) => `${name} could not be downloaded.`, remedy: "Check the connection, then try again." },
  bundle: { what: (name) => `${name} is not a bundle that can be used.`, remedy: "Take a model.safetensors that kiln train has written." },
  "no-network": { what: (name) => `${name} was not classified.`, remedy: "Open a bundle below, or reload the page." },
  backend: { what: () => "The backend could not be changed.", remedy: "Choose another one." },
  camera: { what: () => "The camera is not running.", remedy: "Allow the camera for this page in the browser's settings, or choose a file." },
  crashed: { what: () => "The network's program stopped and was started again.", remedy: "Try again. If it stops at the same picture, take another one." },
  dead: { what: () => "The network's program keeps stopping.", remedy: "Choose the CPU below and try again, or reload the page." },
};

/** Kinds that a second attempt may mend. */
const RETRIED = new Set(["missing-package", "package", "list", "download", "dead"]);

/**
 * @param {Fault} fault
 * @param {string} subject the file or thing it happened to
 * @returns {{what: string, why: string, remedy: string, retry: boolean}}
 */
export function describe(fault, subject) {
  const problem = PROBLEMS[fault.kind] ?? PROBLEMS.crashed;
  const { remedy } = problem;
  return {
    what: problem.what(subject),
    why: sentence(fault.message),
    remedy: typeof remedy === "function" ? remedy(fault.message) : remedy,
    retry: RETRIED.has(fault.kind),
  };
}
