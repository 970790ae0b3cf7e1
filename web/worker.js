// Owns the wasm module and its one classifier. All slow work happens here, never in the page.
//
// In:  {id, type, ...}; the types are the keys of `handlers`. Requests are handled one after another.
// Out: {id, result} or {id, fault: {kind, message}} for each request, and at any time
//      {event: "progress", stage: "runtime" | "bundle" | "read" | "prepare" | "warm", done, total} or
//      {event: "crashed", message}.
// `destroyDevice` and `memory` exist for tests; `destroyDevice` loses the GPU device, as a driver reset would.

import { assertSafetensors, withBundle } from "./bundle.js";
import { Fault, toFault } from "./fault.js";
import { heatOf } from "./heat.js";
import { seenShare } from "./network.js";
import { loadPackage } from "./package.js";
import { decodeOther, isDecodedInRust, previewOf, readPicture, squarePixels } from "./pictures.js";

/**
 * The largest bundle that the page opens from the user's disk. The command-line tool reads up to 2 GiB, but 2 GiB is
 * also all the memory that the multithreaded wasm package can have (web/build.sh), and while a bundle loads, that memory
 * holds the file and more than one copy of its weights in f32. ResNet-152 of width 64 takes 233 MB in f32.
 */
const MAX_BUNDLE_MIB = 512;

let wasm;
let classifier;
/** {height, width} of the last answer's class activation map. */
let mapSize;
/** The share of a picture's center square that the network sees, along each side. */
let share = 1;
/** Number of answers so far, so that a heat map is never requested from another picture's answer. */
let answered = 0;

const handlers = {
  load: { run: load, fault: "bundle" },
  setBackend: { run: setBackend, fault: "backend" },
  classify: { run: classify, fault: "picture" },
  classifyFrame: { run: classifyFrame, fault: "camera" },
  activation: { run: activation, fault: "picture" },
  destroyDevice: { run: () => classifier.destroyDevice(), fault: "backend" },
  memory: { run: () => ({ bytes: wasm.memory.buffer.byteLength }), fault: "backend" },
};

let queue = Promise.resolve();
addEventListener("message", ({ data }) => {
  queue = queue.then(() => handle(data));
});
// A trap inside a Rust future surfaces here; the call that caused it never returns.
addEventListener("unhandledrejection", ({ reason }) => {
  postMessage({ event: "crashed", message: reason?.message ?? String(reason) });
});

async function handle({ id, type, ...request }) {
  const { run, fault } = handlers[type];
  try {
    const { transfer = [], ...result } = Object(await run(request));
    postMessage({ id, result }, transfer);
  } catch (error) {
    const { kind, message } = toFault(error, fault);
    postMessage({ id, fault: { kind, message } });
  }
}

function progress(stage) {
  return (done, total) => postMessage({ event: "progress", stage, done, total });
}

/** Loads `entry` from the list of bundles, or the user's own `file`. The old classifier stays until the new one is ready. */
async function load({ entry, file, backend }) {
  wasm ??= await loadPackage(progress("runtime"));
  const use = (bytes) => wasm.Classifier.load(bytes, backend, (stage, fraction) => progress(stage)(fraction, 1));
  const { used, source } = entry ? await withBundle(entry, use, progress("bundle")) : await ownBundle(file, use);
  classifier?.free();
  classifier = used;
  return { ...(await warmUp()), source };
}

async function ownBundle(file, use) {
  if (file.size > MAX_BUNDLE_MIB << 20) throw new Fault("bundle", `it is larger than the page's limit of ${MAX_BUNDLE_MIB} MiB`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  assertSafetensors(bytes);
  return { used: await use(bytes), source: "file" };
}

async function setBackend({ backend }) {
  await classifier.setBackend(backend);
  return warmUp();
}

async function warmUp() {
  progress("warm")(0, 0);
  const timings = plainTimings(await classifier.warmUp());
  const { backend, device, classes, metadata } = classifier;
  share = seenShare(metadata);
  const hasOneThread = backend === "cpu" && wasm.oneThread;
  const reason = hasOneThread ? `${classifier.reason}; one thread because ${wasm.oneThread}` : classifier.reason;
  return { network: { backend, reason, device, classes, metadata }, cold: timings };
}

async function classify({ file, preview = true }) {
  const bytes = await readPicture(file);
  const answer = numbered(await classifyBytes(file, bytes));
  if (!preview) return answer;
  const shown = await previewOf(file, answer, share);
  return { ...answer, preview: shown, share, transfer: [shown.square] };
}

async function classifyBytes(file, bytes) {
  try {
    return plainFields(await classifier.classify(bytes));
  } catch (error) {
    if (toFault(error, "picture").kind === "crashed" || isDecodedInRust(bytes)) throw error;
    const start = performance.now();
    const bitmap = await decodeOther(file, bytes);
    if (!bitmap) throw error;
    return classifyBitmap(bitmap, start);
  }
}

/** `classIndex`: the class for the heat map, by default the most likely one. */
async function classifyFrame({ frame, classIndex }) {
  const answer = numbered(await classifyBitmap(frame, performance.now()));
  return classIndex === undefined ? answer : { ...answer, heat: heatOfClass(classIndex) };
}

/** @param {number} start when decoding began, from `performance.now()` */
async function classifyBitmap(bitmap, start) {
  const { rgba, size } = await squarePixels(bitmap);
  bitmap.close();
  const decode = performance.now() - start;
  const answer = plainFields(await classifier.classifyPixels(rgba, size, size));
  answer.timings.decode += decode;
  answer.timings.total += decode;
  return answer;
}

async function activation({ answer, classIndex }) {
  if (answer !== answered) throw new Fault("stale", "another picture has been classified since");
  return { heat: heatOfClass(classIndex) };
}

function heatOfClass(classIndex) {
  return heatOf({ values: classifier.classActivation(classIndex), ...mapSize });
}

function numbered(fields) {
  answered += 1;
  return { ...fields, number: answered, memory: wasm.memory.buffer.byteLength };
}

/** The fields of an answer that the page shows, copied: wasm's objects may have getters, which messages do not carry. */
function plainFields(answer) {
  const { logits, probabilities, input, inputSize, pictureWidth, pictureHeight, timings } = answer;
  mapSize = { height: answer.activationHeight, width: answer.activationWidth };
  const heat = heatOf({ values: answer.activation, ...mapSize });
  return { logits, probabilities, heat, input, inputSize, pictureWidth, pictureHeight, timings: plainTimings(timings) };
}

function plainTimings({ decode, upload, compute, readBack, total }) {
  return { decode, upload, compute, readBack, total };
}
