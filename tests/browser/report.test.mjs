// The report of a small run, as `kiln train` leaves it: for every screen, and with nothing outside of it.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { launch, openPage } from "./browser.mjs";
import { ROOT } from "./site.mjs";

const KILN = join(ROOT, "target/release/kiln");
const skip = existsSync(KILN) ? false : "target/release/kiln is missing: build it with `cargo build --release`";
const TRAIN = "train --dataset synthetic --limit 400 --device cpu --epochs 3 --set model.width=2 --set training.batch_size=16 --out run";
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true };
const inStates = { light: {}, dark: { colorScheme: "dark" }, phone: PHONE, "dark phone": { ...PHONE, colorScheme: "dark" } };

let browser, folder;
before(async () => {
  if (skip) return;
  folder = mkdtempSync(join(tmpdir(), "kiln-report-"));
  const { status, stderr } = spawnSync(KILN, TRAIN.split(" "), { cwd: folder, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  if (folder) rmSync(folder, { recursive: true });
});

for (const [name, options] of Object.entries(inStates)) {
  test(`nothing is wrong with the report (${name})`, { skip }, async () => {
    const { context, page, watch } = await openPage(browser, pathToFileURL(join(folder, "run/report.html")).href, options);
    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
    assert.deepEqual(await page.evaluate(textsInEachOthersWay), []);
    const [content, width] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert.ok(content <= width, `${content} pixels wide on a screen of ${width}`);
    // Through the debugger, which the page's policy does not bind.
    await page.evaluate(AXE);
    const violations = await page.evaluate(async () => (await window.axe.run()).violations.map(({ id }) => id));
    assert.deepEqual(violations, []);
    assert.deepEqual(watch, { violations: [], foreign: [], errors: [] });
    await context.close();
  });
}

/** Texts of a picture that lie on each other or leave it. */
function textsInEachOthersWay() {
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent);
    const boxes = texts.map((text) => text.getBoundingClientRect());
    texts.forEach((text, index) => {
      const box = boxes[index];
      const inside = box.left > frame.left - 1 && box.right < frame.right + 1 && box.top > frame.top - 1 && box.bottom < frame.bottom + 1;
      if (!inside) found.push(`${svg.ariaLabel}: ${text.textContent} leaves the picture`);
      for (let other = index + 1; other < texts.length; other++) {
        const across = Math.min(box.right, boxes[other].right) - Math.max(box.left, boxes[other].left);
        const down = Math.min(box.bottom, boxes[other].bottom) - Math.max(box.top, boxes[other].top);
        // A box is as high as a line, its letters are not.
        if (across > 1 && down > box.height / 3) found.push(`${svg.ariaLabel}: ${text.textContent} on ${texts[other].textContent}`);
      }
    });
  }
  return found;
}
