// Threads: under `kiln serve`, offline, and what happens when they are unavailable or one crashes.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { openPage, untilKept, untilReady, watchLogits } from "./browser.mjs";
import { readSample } from "./files.mjs";
import { answerToFile, clickSample, NEEDS_PACKAGE, withBrowser } from "./harness.mjs";
import { hasThreads, ROOT } from "./site.mjs";

const KILN = join(ROOT, "target/release/kiln");

/** A value for a test's `skip`, if it needs several threads. */
const NEEDS_THREADS = !hasThreads ? "web/pkg-threads is missing: see what `bash web/build.sh` says"
  : availableParallelism() < 2 ? "this machine has one core" : false;
const NEEDS_SERVER = NEEDS_THREADS || (existsSync(KILN) ? false : `${KILN} is missing: build it with \`cargo build --release\``);

const page = withBrowser();
const isolated = (use, options = {}) => page(use, { isolated: true, ...options });

const deviceOf = (page) => page.locator("#device").textContent();
const reasonOf = (page) => page.locator("#reason").textContent();

async function assertSeveral(page) {
  const cores = await page.evaluate(() => navigator.hardwareConcurrency);
  assert.equal(await deviceOf(page), `CPU, WebAssembly SIMD, ${Math.min(cores, 8)} threads`);
}

async function assertOne(page, why) {
  assert.equal(await deviceOf(page), "CPU, WebAssembly SIMD, 1 thread");
  assert.match(await reasonOf(page), why);
  assert.equal(await clickSample(page, "ship"), "ship");
}

/** The logits of every given sample, in order, repeated `times` times. */
async function logitsOf(page, names, times = 1) {
  const logits = await watchLogits(page);
  const all = [];
  for (const name of Array(times).fill(names).flat()) {
    await answerToFile(page, `${name}.webp`, await readSample(name));
    all.push(await logits());
  }
  return all;
}

/** @returns {Promise<{url: string, close: () => Promise<void>}>} */
async function kilnServe() {
  const server = spawn(KILN, ["serve", "--port", "0", "--dir", ROOT], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => server.on("exit", resolve));
  for await (const line of createInterface({ input: server.stdout })) {
    const url = line.match(/http:\S+/)?.[0];
    if (url) return { url, close: () => (server.kill("SIGINT"), ended) };
  }
  throw new Error("kiln serve exited without printing an address");
}

test("under kiln serve, several threads give the same logits as one, bit for bit", { skip: NEEDS_SERVER }, page(async (page, { context }) => {
  const samples = ["cat", "frog", "truck"];
  await untilReady(page);
  await assertOne(page, /one thread because this host does not send the headers/);
  const alone = await logitsOf(page, samples);
  const server = await kilnServe();
  const threaded = await openPage(context.browser(), server.url);
  try {
    await untilReady(threaded.page);
    assert.ok(await threaded.page.evaluate(() => crossOriginIsolated));
    await assertSeveral(threaded.page);
    assert.deepEqual(await logitsOf(threaded.page, samples, 10), Array(10).fill(alone).flat());
    assert.deepEqual(threaded.watch, { violations: [], foreign: [], errors: [] });
  } finally {
    await threaded.context.close();
    await server.close();
  }
}));

test("a second visit has its threads after the server has stopped", { skip: NEEDS_THREADS }, isolated(async (page, { site }) => {
  await untilReady(page);
  await untilKept(page);
  await site.close();
  await page.reload();
  await untilReady(page);
  await assertSeveral(page);
  assert.equal(await clickSample(page, "frog"), "frog");
}));

test("without the multithreaded package, one thread answers and the page says why", { skip: NEEDS_PACKAGE }, isolated(async (page) => {
  await untilReady(page);
  await assertOne(page, /one thread because the folder web\/pkg-threads was not found/);
}, { replaced: { "web/pkg-threads/kiln_web.js": { status: 404 } } }));

test("when a thread fails to start, one thread answers and the page says why", { skip: NEEDS_THREADS }, isolated(async (page) => {
  await untilReady(page);
  await assertOne(page, /one thread because a thread failed to start/);
}, { replaced: { "web/thread.js": { status: 404 } } }));

test("a thread that crashes does not leave the page waiting", { skip: NEEDS_THREADS }, isolated(async (page) => {
  await page.locator("#problem", { hasText: "keeps crashing" }).waitFor({ timeout: 60_000 });
  assert.match(await page.locator("#problem-why").innerText(), /stopped by a test/i);
}, { replaced: stoppedThread() }));

/** As after a trap: the thread started, then crashed. */
async function stoppedThread() {
  const script = await readFile(join(ROOT, "web/thread.js"), "utf8");
  const body = script.replace("wasm.runThread()", 'throw new WebAssembly.RuntimeError("stopped by a test")');
  assert.notEqual(body, script);
  return { "web/thread.js": { body } };
}
