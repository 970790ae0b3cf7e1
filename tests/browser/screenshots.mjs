// Takes screenshots of the page in each of its states, to look at: node screenshots.mjs FOLDER

import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { answerAfter, launch, openPage, problemAfter, untilReady, WEBGPU } from "./browser.mjs";
import { BUNDLE } from "./files.mjs";
import { hasPackage, mockPackage, serveSite } from "./site.mjs";

const folder = resolve(process.argv[2] ?? "screenshots");
await mkdir(folder, { recursive: true });
const real = hasPackage ? {} : await mockPackage();
const browser = await launch();
const PHONE = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

const sample = (page, name) => answerAfter(page, () => page.locator(`[data-sample=${name}]`).click());

await shot("empty", {}, async () => {});
await shot("loading", { replaced: await slowBundle(), ready: false }, (page) => page.locator("#load-text", { hasText: "network" }).waitFor());
await shot("answer", {}, (page) => sample(page, "cat"));
await shot("answer-dark", { options: { colorScheme: "dark" } }, (page) => sample(page, "horse"));
await shot("empty-dark", { options: { colorScheme: "dark" } }, async () => {});
await shot("phone", { options: PHONE, fullPage: true }, (page) => sample(page, "ship"));
await shot("phone-dark", { options: { ...PHONE, colorScheme: "dark" }, fullPage: true }, (page) => sample(page, "dog"));
await shot("unsure", { replaced: await mockPackage({ certainty: 0.5 }) }, (page) => sample(page, "frog"));
await shot("other-class", {}, async (page) => {
  await sample(page, "deer");
  await page.locator("#bars button").nth(1).click();
  await page.locator("#bars button[aria-pressed=true]").nth(0).waitFor();
});
await shot("error", {}, async (page) => {
  await sample(page, "truck");
  await problemAfter(page, () => page.setInputFiles("#file", { name: "holiday.png", mimeType: "image/png", buffer: Buffer.from("<b>not a picture</b>") }));
});
await shot("error-phone", { options: PHONE }, (page) =>
  problemAfter(page, () => page.setInputFiles("#file", { name: "empty.png", mimeType: "image/png", buffer: Buffer.alloc(0) })));
await shot("no-webgpu", { fullPage: true }, async (page) => {
  await page.locator("input[value=webgpu]").check();
  await untilReady(page);
});
await shot("missing-package", { replaced: { "web/pkg/kiln_web.js": { status: 404 } }, ready: false }, (page) => page.locator("#problem").waitFor());
await shot("drop", {}, async (page) => {
  await sample(page, "bird");
  await page.evaluate(() => document.body.dispatchEvent(new DragEvent("dragenter", { bubbles: true, cancelable: true })));
});
await shot("camera", {}, (page) => answerAfter(page, () => page.locator("#camera").click()));
await shot("benchmark", { fullPage: true }, async (page) => {
  await sample(page, "automobile");
  await page.locator("#benchmark-runs").selectOption("10");
  await page.locator("#benchmark").click();
  await page.locator("#benchmark-copy:enabled").waitFor();
  await page.locator("summary").click();
});
await browser.close();
await withWebGpu();

async function withWebGpu() {
  const gpu = await launch(WEBGPU);
  await shot("webgpu", { browser: gpu, fullPage: true }, async (page) => {
    await page.locator("input[value=webgpu]").check();
    await untilReady(page);
    await sample(page, "airplane");
  });
  await gpu.close();
}

async function slowBundle() {
  return { ...real, [BUNDLE]: { cut: 0.4 } };
}

/** Opens the page, runs `act` to reach a state, and takes a screenshot. */
async function shot(name, { browser: inBrowser = browser, replaced = real, options = {}, ready = true, fullPage = false }, act) {
  const site = await serveSite(replaced);
  const { context, page } = await openPage(inBrowser, site.url, options);
  if (ready) await untilReady(page);
  await act(page);
  await page.waitForTimeout(400);
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage });
  await context.close();
  await site.close();
}
