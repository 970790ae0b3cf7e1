// The error messages: what happened, why, and what to do about it.

import { sentence } from "./format.js";

const OTHER_PICTURE = "Try another picture: JPEG, PNG, WebP, GIF or BMP.";

const OWN_BUNDLE = "Choose a model.safetensors written by kiln train or kiln import.";
const IMPORT = "Weights of PyTorch, torchvision, timm or ONNX become a bundle with: kiln import FILE -o bundle.safetensors";

/** Whether a file holds weights of another program, by what was wrong with it or by its name. */
function isForeign(why, name) {
  return /not written by Kiln/.test(why) || /\.(pt|pth|onnx|bin|ckpt)$/i.test(name);
}

/** For each kind of fault: `what(subject)`, and `remedy`, which is a text or a function of the reason and the subject. */
const PROBLEMS = {
  picture: {
    what: (name) => `${name} was not classified.`,
    remedy: (why) => (/limit/.test(why) ? "Make the picture smaller, then try again." : OTHER_PICTURE),
  },
  "no-picture": { what: () => "No picture found.", remedy: "Save the picture as a file, then drop or choose the file." },
  "missing-package": {
    what: () => "The runtime is missing.",
    remedy: "Build it with: bash web/build.sh. Then reload this page.",
  },
  package: { what: () => "The runtime could not be loaded.", remedy: "Check the connection, then try again." },
  list: { what: () => "The list of bundles could not be read.", remedy: "Try again, or open a bundle of your own below." },
  download: { what: (name) => `${name} could not be downloaded.`, remedy: "Check the connection, then try again." },
  bundle: { what: (name) => `${name} is not a usable bundle.`, remedy: (why, name) => (isForeign(why, name) ? IMPORT : OWN_BUNDLE) },
  "no-network": { what: (name) => `${name} was not classified.`, remedy: "Open a bundle below, or reload the page." },
  backend: { what: () => "The backend could not be changed.", remedy: "Choose another one." },
  camera: { what: () => "The camera is not running.", remedy: "Allow the camera for this page in the browser's settings, or choose a file." },
  crashed: { what: () => "The runtime crashed and was restarted.", remedy: "Try again. If the same picture crashes it again, use another picture." },
  dead: { what: () => "The runtime keeps crashing.", remedy: "Choose the CPU below and try again, or reload the page." },
};

/** Kinds for which a retry may help. */
const RETRIED = new Set(["missing-package", "package", "list", "download", "dead"]);

/**
 * @param {Fault} fault
 * @param {string} subject the file or part of the page that the fault is about
 * @returns {{what: string, why: string, remedy: string, retry: boolean}}
 */
export function describe(fault, subject) {
  const problem = PROBLEMS[fault.kind] ?? PROBLEMS.crashed;
  const { remedy } = problem;
  return {
    what: problem.what(subject),
    why: sentence(fault.message),
    remedy: typeof remedy === "function" ? remedy(fault.message, subject) : remedy,
    retry: RETRIED.has(fault.kind),
  };
}
