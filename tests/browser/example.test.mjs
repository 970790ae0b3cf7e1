// The example page of web/README.md: ten lines that classify a file.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { NEEDS_PACKAGE, withBrowser } from "./harness.mjs";
import { ROOT } from "./site.mjs";

const page = withBrowser();

test("the example page names what is in a picture", { skip: NEEDS_PACKAGE }, page(async (page, { site }) => {
  await page.goto(new URL("web/example.html", site.url).href);
  await page.locator("input:enabled").setInputFiles(join(ROOT, "web/samples/ship.webp"));
  await page.waitForFunction(() => document.querySelector("output").textContent !== "");
  assert.match(await page.locator("output").textContent(), /^ship, \d+\.\d %$/);
}));
