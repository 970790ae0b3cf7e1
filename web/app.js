// The page: sends pictures and settings to the worker, and shows the results.

import { Bars, doubtOf, ranked } from "./answer.js";
import { measure, report } from "./benchmark.js";
import { Camera } from "./camera.js";
import { ClassList } from "./classes.js";
import { Engine } from "./engine.js";
import { Fault } from "./fault.js";
import { megabytes, milliseconds, percent, sentence } from "./format.js";
import { acceptChoice, acceptDrops, acceptPastes } from "./intake.js";
import { Latency } from "./latency.js";
import { accuracyOf, architectureOf, classesOf, seenShare } from "./network.js";
import { Stage } from "./stage.js";
import { Status } from "./status.js";

const $ = (id) => document.getElementById(id);
const LIST = new URL("models/index.json", import.meta.url);
const BACKENDS = { webgpu: "WebGPU", cpu: "CPU" };
/** Screen readers hear live predictions at most this often, in milliseconds. */
const ANNOUNCE_EVERY = 2000;

const status = new Status({
  load: $("load"), text: $("load-text"), progress: $("load-progress"), announcement: $("announcement"),
  problem: $("problem"), what: $("problem-what"), why: $("problem-why"), remedy: $("problem-remedy"),
  retry: $("problem-retry"), close: $("problem-close"),
});
const stage = new Stage({
  stage: $("stage"), prompt: $("prompt"), picture: $("picture"), video: $("video"),
  heat: $("heat"), seen: $("seen"), caption: $("caption"),
});
const latency = new Latency($("split"), $("latency"));
const bars = new Bars($("bars"), chooseClass);
const classList = new ClassList({
  details: $("class-list"), summary: $("class-list-summary"), search: $("class-search"), found: $("class-found"),
  note: $("class-note"),
}, (classIndex) => answer && chooseClass(classIndex));
const camera = new Camera($("video"));
const engine = new Engine((progress) => status.showProgress(progress), onCrash);

/** The entries of web/models/index.json, each with its URL. */
let entries = [];
/** The bundle that is loaded or loading: {entry} or {file}. */
let source;
/** Resolves when loading ends, to whether a network is loaded. */
let ready = Promise.resolve(false);
/** {network, cold, source} from the worker's last load or backend change. */
let loaded;
/** The worker's last answer. */
let answer;
/** The class whose heat map is shown. */
let chosen;
/** The class that the user chose while the camera runs; its heat map is shown for all later frames. */
let pinned;
/** The file of the picture shown. */
let picture;
/** Number of pictures received so far, so that a late answer never replaces a newer one. */
let asked = 0;

// Loading

function start() {
  ready = startNow();
}

async function startNow() {
  try {
    await readList();
  } catch (error) {
    status.finish("failed", "No network loaded");
    status.showProblem(new Fault("list", error.message), "", start);
    return false;
  }
  return loadNow({ entry: entries.find(({ name }) => name === $("bundle").value) });
}

async function readList() {
  const response = await fetch(LIST, { cache: "no-cache" });
  if (!response.ok) throw new Error(`the server returned status ${response.status} for web/models/index.json`);
  const list = await response.json();
  entries = list.bundles.map((entry) => ({ ...entry, url: new URL(entry.file, LIST).href }));
  $("bundle").replaceChildren(...entries.map(({ name, bytes, description }) => {
    const isDefault = name === list.default;
    return new Option(`${name}: ${description}, ${megabytes(bytes)} MB`, name, isDefault, isDefault);
  }));
}

function load(next) {
  engine.start();
  ready = loadNow(next);
  return ready;
}

/** @returns {Promise<boolean>} whether a network is loaded now; on failure, the previous one stays */
async function loadNow(next) {
  const before = source;
  source = next;
  try {
    const result = await engine.request("load", { ...next, backend: chosenBackend() });
    // What was wrong with the bundle before this one no longer matters.
    status.clearProblem("bundle");
    showLoaded(result);
    if (picture) classify(picture);
    return true;
  } catch (fault) {
    if (isCrash(fault)) return false;
    status.showProblem(fault, nameOf(next), () => load(next));
    if (loaded) {
      source = before;
      showSource();
      status.finish("ready", readyText());
    } else {
      status.finish("failed", "No network loaded");
    }
    return loaded !== undefined;
  }
}

function nameOf({ entry, file }) {
  return entry?.file ?? file.name;
}

function showLoaded(result) {
  loaded = result.source ? result : { ...result, source: loaded.source };
  const { network, cold } = loaded;
  $("device").textContent = network.device;
  $("reason").textContent = sentence(network.reason);
  $("architecture").textContent = architectureOf(network.metadata);
  $("accuracy").textContent = accuracyOf(network.metadata);
  $("classes").textContent = classesOf(network.classes);
  classList.show(network.classes);
  showSource();
  latency.clear();
  latency.show("cold", cold);
  status.finish("ready", readyText());
  status.announce(`Ready. Runs on ${network.device}. ${sentence(network.reason)}`);
}

function readyText() {
  const origin = { cache: "cached from an earlier visit", download: "downloaded", file: "from your disk" }[loaded.source];
  return `Ready on ${BACKENDS[loaded.network.backend]}; network ${origin}`;
}

/** Selects the loaded bundle in the list; a bundle from the user's disk gets an entry of its own. */
function showSource() {
  const list = $("bundle");
  list.querySelector("[data-own]")?.remove();
  if (source.file) {
    const own = new Option(`${source.file.name} (yours)`, "");
    own.dataset.own = "";
    list.append(own);
    own.selected = true;
  } else {
    list.value = source.entry.name;
  }
}

function chosenBackend() {
  return document.querySelector("input[name=backend]:checked").value;
}

function setBackend() {
  ready = ready.then(async (isLoaded) => {
    if (!isLoaded) return load(source);
    try {
      showLoaded(await engine.request("setBackend", { backend: chosenBackend() }));
      if (picture) classify(picture);
    } catch (fault) {
      if (!isCrash(fault)) status.showProblem(fault, "");
    }
    return loaded !== undefined;
  });
}

function onCrash(fault) {
  stopCamera();
  loaded = undefined;
  status.finish("failed", "Stopped");
  if (fault.kind === "crashed") load(source);
  status.showProblem(fault, "", () => load(source));
}

/** onCrash reports a crash once. The calls that the crash interrupted do not report it again. */
function isCrash({ kind }) {
  return kind === "crashed" || kind === "dead";
}

// Classifying

async function classify(file) {
  asked += 1;
  const turn = asked;
  stage.setBusy(true);
  try {
    await assertReady();
    const result = await engine.request("classify", { file });
    if (turn !== asked) return;
    picture = file;
    if (result.preview) stage.showPicture(result.preview, file.name, result.share);
    showAnswer(result);
    // On a phone the prediction is below the fold.
    $("top-class").scrollIntoView({ block: "nearest" });
    status.announce(inWords(result));
  } catch (fault) {
    if (turn === asked && !isCrash(fault)) status.showProblem(fault, file.name);
  } finally {
    if (turn === asked) stage.setBusy(false);
  }
}

async function assertReady() {
  if (!(await ready)) throw new Fault("no-network", "no network is loaded");
}

function showAnswer(result) {
  answer = result;
  const { classes } = loaded.network;
  const [top] = ranked(result.probabilities);
  chosen = pinned ?? top;
  $("top-class").textContent = classes[top];
  $("top-share").textContent = percent(result.probabilities[top]);
  $("doubt").textContent = doubtOf(result.probabilities, classes) || "\u00a0";
  bars.show(result.probabilities, classes, chosen);
  classList.mark(result.probabilities, chosen);
  stage.showInput(result.input, result.inputSize);
  latency.show("warm", result.timings);
  showHeat(result.heat);
}

function inWords({ probabilities }) {
  const { classes } = loaded.network;
  const [top] = ranked(probabilities);
  return `${classes[top]}, ${percent(probabilities[top])}. ${doubtOf(probabilities, classes)}`;
}

function showHeat(heat) {
  stage.showHeat(heat);
  $("heat-class").textContent = `${loaded.network.classes[chosen]}${heat ? "" : " (empty)"}`;
}

async function chooseClass(classIndex) {
  if (camera.running) {
    pinned = classIndex;
    return;
  }
  try {
    const { heat } = await engine.request("activation", { answer: answer.number, classIndex });
    chosen = classIndex;
    bars.show(answer.probabilities, loaded.network.classes, chosen);
    classList.mark(answer.probabilities, chosen);
    showHeat(heat);
  } catch (fault) {
    if (fault.kind !== "stale" && !isCrash(fault)) status.showProblem(fault, "The picture");
  }
}

function showHeatSettings() {
  stage.setHeat($("heat-on").checked, $("heat-strength").value / 100);
}

async function classifySample(name) {
  const response = await fetch(new URL(`samples/${name}.webp`, import.meta.url)).catch(() => undefined);
  if (response?.ok) takePicture(new File([await response.blob()], `${name}.webp`));
  else status.showProblem(new Fault("picture", "the sample could not be downloaded"), name);
}

/** Whether a file holds weights, also of another program: the worker says then what to do with it. */
function isBundle({ name }) {
  return /\.(safetensors|pt|pth|onnx)$/i.test(name);
}

/** Takes a file that the user dropped, pasted or chose: a picture or a bundle. */
function takePicture(file, others = 0) {
  status.clearProblem();
  stopCamera();
  if (others > 0) status.announce(`Using the first of ${others + 1} files.`);
  if (isBundle(file)) load({ file });
  else classify(file);
}

// Camera

function toggleCamera() {
  if (camera.running) freezeCamera();
  else if (!cameraStarting) startCamera();
}

/** True while the browser asks the user for permission. */
let cameraStarting = false;

async function startCamera() {
  status.clearProblem();
  try {
    await assertReady();
    cameraStarting = true;
    await camera.start().finally(() => (cameraStarting = false));
    // Answers still to come are for pictures: drop them.
    asked += 1;
    stage.setBusy(false);
    stage.showVideo(seenShare(loaded.network.metadata));
    showCameraButton();
    await camera.run(classifyFrame);
  } catch (fault) {
    stopCamera();
    if (!isCrash(fault)) status.showProblem(fault, "The camera");
  }
}

let lastSpoken = { text: "", at: 0 };

async function classifyFrame(frame) {
  const result = await engine.request("classifyFrame", { frame, classIndex: pinned }, [frame]);
  if (!camera.running) return;
  showAnswer(result);
  const text = $("top-class").textContent;
  if (text === lastSpoken.text || performance.now() - lastSpoken.at < ANNOUNCE_EVERY) return;
  lastSpoken = { text, at: performance.now() };
  status.announce(inWords(result));
}

/** Keeps the last frame as the picture, to inspect or benchmark. */
async function freezeCamera() {
  takePicture(await camera.still());
}

function stopCamera() {
  camera.stop();
  pinned = undefined;
  showCameraButton();
}

function showCameraButton() {
  $("camera").textContent = camera.running ? "Stop the camera" : "Use the camera";
  $("camera").setAttribute("aria-pressed", String(camera.running));
}

// Benchmark

let measuring = false;

async function toggleBenchmark() {
  if (measuring) {
    measuring = false;
    return;
  }
  const file = picture;
  if (!file) {
    $("benchmark-note").textContent = "Classify a picture first.";
    return;
  }
  const runs = Number($("benchmark-runs").value);
  measuring = true;
  $("benchmark").textContent = "Stop";
  try {
    const result = await measure(runs, () => engine.request("classify", { file, preview: false }), (done) => {
      $("benchmark-note").textContent = `${done} of ${runs}`;
      return measuring;
    });
    showAnswer(result.last);
    showBenchmark(report(result, { network: loaded.network, cold: loaded.cold, bundle: nameOf(source), picture: file.name }));
  } catch (fault) {
    if (!isCrash(fault)) status.showProblem(fault, file.name);
  } finally {
    measuring = false;
    $("benchmark").textContent = "Measure";
  }
}

function showBenchmark(result) {
  const { p50, p90 } = result.milliseconds.total;
  $("benchmark-result").textContent = `Median ${milliseconds(p50)} ms, 90th percentile ${milliseconds(p90)} ms`;
  $("benchmark-note").textContent = `${result.runs} runs on ${BACKENDS[result.backend]}, ${megabytes(result.wasm_memory_bytes)} MB wasm memory`;
  $("benchmark-json").value = JSON.stringify(result, null, 2);
  $("benchmark-copy").disabled = false;
  status.announce($("benchmark-result").textContent);
}

async function copyBenchmark() {
  const json = $("benchmark-json");
  try {
    await navigator.clipboard.writeText(json.value);
    $("benchmark-note").textContent = "Copied.";
  } catch {
    $("benchmark-details").open = true;
    json.select();
    $("benchmark-note").textContent = "The browser blocked copying: press Ctrl+C (⌘C on a Mac).";
  }
}

// Wiring

const onNothing = (fault) => status.showProblem(fault, "");
acceptDrops($("drop"), takePicture, onNothing);
acceptPastes(takePicture, onNothing);
acceptChoice($("choose"), $("file"), takePicture);
acceptChoice($("choose-bundle"), $("bundle-file"), (file) => load({ file }));
$("samples").addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button) classifySample(button.dataset.sample);
});
$("camera").addEventListener("click", toggleCamera);
$("backend").addEventListener("change", setBackend);
$("bundle").addEventListener("change", ({ target }) => {
  const entry = entries.find(({ name }) => name === target.value);
  if (entry) load({ entry });
});
$("heat-on").addEventListener("change", showHeatSettings);
$("heat-strength").addEventListener("input", showHeatSettings);
$("benchmark").addEventListener("click", toggleBenchmark);
$("benchmark-copy").addEventListener("click", copyBenchmark);

showHeatSettings();
start();
// Last, so that the service worker's downloads do not compete with the page's own on a first visit.
ready.finally(() => navigator.serviceWorker?.register("sw.js", { updateViaCache: "none" }).catch(() => {}));
