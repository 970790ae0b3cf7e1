// One browser per test file, and a fresh page per test.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"];
const CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
/** Chromium's own software adapter: slow, but full WebGPU. */
export const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** The browser in KILN_CHROMIUM, or the system's Chromium, or Playwright's. */
function executable() {
  const candidates = [process.env.KILN_CHROMIUM, "/usr/bin/chromium", chromium.executablePath()];
  const found = candidates.find((path) => path && existsSync(path));
  if (!found) throw new Error("no Chromium: install the package chromium, run `npx playwright-core install chromium`, or set KILN_CHROMIUM");
  return found;
}

export function launch(flags = []) {
  const memory = "--enable-precise-memory-info";
  return chromium.launch({ executablePath: executable(), headless: false, args: ["--headless=new", memory, ...QUIET, ...CAMERA, ...flags] });
}

/**
 * Opens a page in its own context and watches it: `watch.violations` (content security policy), `watch.foreign`
 * (requests to other hosts), `watch.errors` (uncaught errors), and in the page `kilnWatch` (long tasks, layout shifts
 * and workers).
 */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const watch = { violations: [], foreign: [], errors: [] };
  context.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol.startsWith("http") && origin !== new URL(url).origin) watch.foreign.push(request.url());
  });
  page.on("pageerror", (error) => watch.errors.push(error.message));
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) watch.violations.push(message.text());
  });
  await page.addInitScript(observe);
  await page.goto(url);
  return { context, page, watch };
}

/** Runs in the page, before the page's scripts. */
function observe() {
  window.kilnWatch = { longTasks: [], shifts: [], workers: [] };
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.kilnWatch.longTasks.push(Math.round(entry.duration));
  }).observe({ type: "longtask", buffered: true });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.kilnWatch.shifts.push(entry.value);
  }).observe({ type: "layout-shift", buffered: true });
  // Tests also send messages to the page's worker; web/worker.js documents them.
  const PageWorker = window.Worker;
  window.Worker = class extends PageWorker {
    constructor(...settings) {
      super(...settings);
      window.kilnWatch.workers.push(this);
    }
  };
}

/** Sends a request to the page's newest worker, as web/engine.js does. */
export function askWorker(page, type, payload = {}) {
  return page.evaluate(([type, payload]) => new Promise((resolve, reject) => {
    const worker = window.kilnWatch.workers.at(-1);
    const id = `test-${Math.random()}`;
    worker.addEventListener("message", function receive({ data }) {
      if (data.id !== id) return;
      worker.removeEventListener("message", receive);
      if (data.fault) reject(new Error(data.fault.message));
      else resolve(data.result);
    });
    worker.postMessage({ id, type, ...payload });
  }), [type, payload]);
}

/** Records the logits that the page receives. @returns {Promise<() => Promise<number[]>>} returns the last ones */
export async function watchLogits(page) {
  await page.evaluate(() => {
    window.kilnWatch.workers.at(-1).addEventListener("message", ({ data }) => {
      if (data.result?.logits) window.kilnWatch.logits = [...data.result.logits];
    });
  });
  return () => page.evaluate(() => window.kilnWatch.logits);
}

/** Waits until the service worker has cached the page and handles its requests. */
export const untilKept = (page) => page.evaluate(async () => {
  await navigator.serviceWorker.ready;
});

export async function untilReady(page) {
  await page.locator("#load[data-state=ready]").waitFor({ timeout: 60_000 });
}

/** Runs `act` and waits for the prediction. @returns {Promise<string>} the most likely class */
export async function answerAfter(page, act) {
  await page.evaluate(() => document.getElementById("announcement").replaceChildren());
  await act();
  await page.waitForFunction(() => / %\./.test(document.getElementById("announcement").textContent), undefined, { timeout: 60_000 });
  return page.locator("#top-class").textContent();
}

/** Runs `act` and waits for the error message. @returns {Promise<string>} its text */
export async function problemAfter(page, act) {
  await act();
  await page.locator("#problem").waitFor({ timeout: 60_000 });
  return page.locator("#problem").innerText();
}
