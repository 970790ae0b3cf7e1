// Backends: the choice, the reason shown, and the same answer on each.

import assert from "node:assert/strict";
import { test } from "node:test";
import { askWorker, untilReady, watchLogits, WEBGPU } from "./browser.mjs";
import { readSample } from "./files.mjs";
import { answerToFile, clickSample, NEEDS_PACKAGE, withBrowser } from "./harness.mjs";

const skip = NEEDS_PACKAGE;
/** Allows for f32 sums in different orders. */
const TOLERANCE = 1e-3;

const withoutGpu = withBrowser(["--disable-gpu", "--disable-features=WebGPU"]);
const withGpu = withBrowser(WEBGPU);

/** Selects a backend; waits until the change, or the new answer to the current picture, is announced. */
async function choose(page, backend) {
  await page.evaluate(() => document.getElementById("announcement").replaceChildren());
  await page.locator(`input[value=${backend}]`).check();
  await page.locator("#announcement", { hasText: /\S/ }).waitFor({ state: "attached" });
}

test("without WebGPU, the CPU answers and the reason is shown", { skip }, withoutGpu(async (page) => {
  await untilReady(page);
  await choose(page, "webgpu");
  assert.match(await page.locator("#device").textContent(), /^CPU/);
  assert.match(await page.locator("#reason").textContent(), /GPU/);
  assert.equal(await clickSample(page, "horse"), "horse");
  assert.match(await page.locator("#load-text").textContent(), /Ready on CPU/);
}));

test("auto does not choose a software adapter", { skip }, withGpu(async (page) => {
  await untilReady(page);
  assert.match(await page.locator("#load-text").textContent(), /Ready on CPU/);
  assert.match(await page.locator("#reason").textContent(), /software|GPU/i);
}));

test("WebGPU gives the same logits as the CPU, also after losing its device", { skip }, withGpu(async (page) => {
  await untilReady(page);
  const logits = await watchLogits(page);
  const dog = await readSample("dog");
  await answerToFile(page, "dog.webp", dog);
  const onCpu = await logits();

  await choose(page, "webgpu");
  assert.match(await page.locator("#load-text").textContent(), /Ready on WebGPU/);
  await answerToFile(page, "dog.webp", dog);
  const onGpu = await logits();
  assertClose(onGpu, onCpu);

  await askWorker(page, "destroyDevice");
  assert.equal(await answerToFile(page, "dog.webp", dog), "dog");
  assertClose(await logits(), onGpu);
  assert.ok(await page.locator("#problem").isHidden());
}));

test("a GPU process that crashes while a picture is classified loses no answer", { skip }, withGpu(async (page, { context }) => {
  await untilReady(page);
  await choose(page, "webgpu");
  const dog = await readSample("dog");
  assert.equal(await answerToFile(page, "dog.webp", dog), "dog");
  const session = await context.browser().newBrowserCDPSession();
  const cat = answerToFile(page, "cat.webp", await readSample("cat"));
  await session.send("Browser.crashGpuProcess").catch(() => {});
  assert.equal(await cat, "cat");
  assert.equal(await answerToFile(page, "dog.webp", dog), "dog");
  assert.ok(await page.locator("#problem").isHidden());
}));

function assertClose(actual, expected) {
  assert.equal(actual.length, expected.length);
  const difference = Math.max(...actual.map((value, i) => Math.abs(value - expected[i])));
  assert.ok(difference < TOLERANCE, `logits differ by ${difference}`);
}
