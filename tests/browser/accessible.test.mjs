// Accessibility: axe's rules in every state and color scheme, and use by keyboard only.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { problemAfter, untilReady } from "./browser.mjs";
import { chooseFile, clickSample, withBrowser } from "./harness.mjs";
import { mockPackage } from "./site.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true };
const page = withBrowser();
const inStates = { light: {}, dark: { colorScheme: "dark" }, phone: PHONE, "dark phone": { ...PHONE, colorScheme: "dark" } };

/** Injected through the debugger, which the page's content security policy does not restrict. */
async function violations(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run({ rules: { "color-contrast-enhanced": { enabled: false } } }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}

for (const [name, options] of Object.entries(inStates)) {
  test(`axe finds no violations (${name}): empty page, prediction, error`, page(async (page) => {
    await untilReady(page);
    assert.deepEqual(await violations(page), []);
    await clickSample(page, "cat");
    assert.deepEqual(await violations(page), []);
    await problemAfter(page, () => chooseFile(page, "empty.png", Buffer.alloc(0)));
    assert.deepEqual(await violations(page), []);
  }, { replaced: mockPackage(), page: options }));
}

test("a phone scrolls in one direction only", page(async (page) => {
  await clickSample(page, "cat");
  const [content, width] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.equal(content, width);
  assert.equal(width, 360);
}, { replaced: mockPackage(), page: PHONE }));

test("the keyboard reaches every control, and each shows its focus", page(async (page) => {
  await clickSample(page, "cat");
  const reached = new Set();
  await page.evaluate(() => document.activeElement.blur());
  for (let i = 0; i < 60; i += 1) {
    await page.keyboard.press("Tab");
    const [name, outline] = await page.evaluate(() => {
      const element = document.activeElement;
      const marked = element.matches(".switch input") ? element.nextElementSibling : element;
      return [element.id || element.dataset.sample || element.dataset.classIndex || element.value || element.className, getComputedStyle(marked).outlineStyle];
    });
    if (name) {
      assert.notEqual(outline, "none", `${name} does not show its focus`);
      reached.add(name);
    }
  }
  for (const name of ["choose", "camera", "airplane", "truck", "heat-on", "heat-strength", "auto", "bundle", "choose-bundle", "benchmark-runs", "benchmark"]) {
    assert.ok(reached.has(name), `${name} was not reached: ${[...reached]}`);
  }
}, { replaced: mockPackage() }));

test("predictions are announced", page(async (page) => {
  await clickSample(page, "cat");
  assert.equal(await page.locator("#announcement").getAttribute("role"), "status");
  assert.match(await page.locator("#announcement").textContent(), /^\w+, \d+\.\d %\./);
}, { replaced: mockPackage() }));

test("reduced motion is respected", page(async (page) => {
  await untilReady(page);
  const durations = await page.evaluate(() => document.getAnimations().length);
  assert.equal(durations, 0);
}, { replaced: mockPackage(), page: { reducedMotion: "reduce" } }));
