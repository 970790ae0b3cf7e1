// Offline use: a second visit without a connection, and what is cached for it.

import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { untilKept, untilReady } from "./browser.mjs";
import { DEFAULT } from "./files.mjs";
import { clickSample, NEEDS_PACKAGE, withBrowser } from "./harness.mjs";
import { mockPackage, ROOT } from "./site.mjs";

const page = withBrowser();

test("a second visit works after the server has stopped", { skip: NEEDS_PACKAGE }, page(async (page, { site }) => {
  await untilReady(page);
  await untilKept(page);
  await site.close();
  await page.reload();
  await untilReady(page);
  assert.equal(await clickSample(page, "frog"), "frog");
  assert.match(await page.locator("#load-text").textContent(), /cached from an earlier visit/);
}));

test("a rebuilt package is used at once, and then works offline", async () => {
  const replaced = await mockPackage();
  await page(async (page, { site }) => {
    await untilReady(page);
    await untilKept(page);
    Object.assign(replaced, await mockPackage({ metadata: { classes: Array.from({ length: 10 }, (_, i) => `rebuilt ${i}`) } }));
    await page.reload();
    assert.match(await firstAnswer(page), /^rebuilt/);
    await site.close();
    await page.reload();
    assert.match(await firstAnswer(page), /^rebuilt/);
  }, { replaced })();
});

const firstAnswer = (page) => clickSample(page, "cat");

test("error responses are not cached", async () => {
  const replaced = await mockPackage();
  await page(async (page) => {
    await untilReady(page);
    await untilKept(page);
    replaced["web/models/index.json"] = { status: 503, body: "{}" };
    await page.reload();
    await page.locator("#problem", { hasText: "status 503" }).waitFor();
    const cached = await page.evaluate(async () => (await (await caches.match("web/models/index.json")).json()).default);
    assert.equal(cached, DEFAULT);
  }, { replaced })();
});

test("the service worker caches every file of the page", async () => {
  const listed = readFileSync(join(ROOT, "sw.js"), "utf8").match(/"web\/[^"]+\.\w+"/g).map((name) => JSON.parse(name));
  const shipped = await Promise.all(["web", "web/icons", "web/samples"].map(async (folder) =>
    (await readdir(join(ROOT, folder))).map((name) => `${folder}/${name}`)));
  const isPage = (name) => /\.(js|css|webmanifest|webp|png)$/.test(name) || name === "web/icons/kiln.svg";
  const expected = [...shipped.flat().filter(isPage), "web/models/index.json"].sort();
  assert.deepEqual(listed.sort(), expected);
});

test("the list of bundles has the right sizes and digests", async () => {
  const list = JSON.parse(readFileSync(join(ROOT, "web/models/index.json"), "utf8"));
  const names = (await readdir(join(ROOT, "web/models"))).filter((name) => name.endsWith(".safetensors"));
  assert.deepEqual(list.bundles.map(({ file }) => file).sort(), names.sort());
  assert.ok(list.bundles.some(({ name }) => name === list.default));
  for (const { file, bytes, sha256 } of list.bundles) {
    const bundle = readFileSync(join(ROOT, "web/models", file));
    assert.equal(bytes, bundle.length, file);
    assert.equal(sha256, createHash("sha256").update(bundle).digest("hex"), file);
  }
});
