// Bundles that `kiln import` made: of large images, of many classes, and of an accuracy that nobody knows.

import assert from "node:assert/strict";
import { test } from "node:test";
import { problemAfter, untilReady } from "./browser.mjs";
import { makePng, readBundle, readSample } from "./files.mjs";
import { answerToFile, clickSample, withBrowser } from "./harness.mjs";
import { mockPackage } from "./site.mjs";

const page = withBrowser();

const CLASSES = Array.from({ length: 1000 }, (_, index) => `kind ${index}`);
const metadata = {
  classes: CLASSES,
  image_size: 224,
  preprocessing: { resize: 256, interpolation: "bilinear" },
  accuracy: null,
  accuracy_split: null,
  accuracy_samples: null,
  quantisation: null,
};

const openBundle = (page, name, buffer) => page.setInputFiles("#bundle-file", { name, mimeType: "", buffer });

test("a good bundle after a bad one clears the error", page(async (page) => {
  await untilReady(page);
  assert.match(await problemAfter(page, () => openBundle(page, "bad.safetensors", Buffer.from("text"))), /bad\.safetensors is not a usable bundle/);
  await openBundle(page, "good.safetensors", await readBundle());
  await page.locator("#load-text", { hasText: "from your disk" }).waitFor();
  assert.ok(await page.locator("#problem").isHidden());
}, { replaced: mockPackage() }));

test("a good bundle leaves the error about a picture", page(async (page) => {
  await untilReady(page);
  await problemAfter(page, () => page.setInputFiles("#file", { name: "text.png", mimeType: "image/png", buffer: Buffer.from("text") }));
  await openBundle(page, "good.safetensors", await readBundle());
  await page.locator("#load-text", { hasText: "from your disk" }).waitFor();
  assert.match(await page.locator("#problem").innerText(), /text\.png was not classified/);
}, { replaced: mockPackage() }));

test("weights of another program are answered with the command that imports them", page(async (page) => {
  await untilReady(page);
  for (const name of ["resnet18.pth", "model.onnx"]) {
    const text = await problemAfter(page, () => openBundle(page, name, Buffer.from("PK\x03\x04 and more than nine bytes")));
    assert.match(text, /kiln import FILE/);
    await page.locator("#problem-close").click();
  }
}, { replaced: mockPackage() }));

test("an accuracy that nobody knows is not a number", page(async (page) => {
  await untilReady(page);
  assert.match(await page.locator("#accuracy").textContent(), /^Accuracy not known/);
}, { replaced: mockPackage({ metadata }) }));

test("a thousand classes can be searched, and each shows its heat map", page(async (page) => {
  await clickSample(page, "cat");
  assert.match(await page.locator("#class-list-summary").textContent(), /All 1,000 classes/);
  await page.locator("#class-list-summary").click();
  assert.equal(await page.locator("#class-found li").count(), 50);
  await page.locator("#class-search").fill("kind 77");
  assert.equal(await page.locator("#class-found li").count(), 11);
  await page.locator("#class-found button", { hasText: "kind 777" }).click();
  await page.locator("#heat-class", { hasText: "kind 777" }).waitFor();
  assert.match(await page.locator("#class-found [aria-pressed=true]").innerText(), /kind 777/);
  await page.locator("#class-search").fill("<b>");
  assert.match(await page.locator("#class-note").textContent(), /0 found/);
  assert.notEqual(await page.locator("[data-stage=compute] td").nth(1).textContent(), "–");
}, { replaced: mockPackage({ metadata }) }));

test("ten classes need no list", page(async (page) => {
  await untilReady(page);
  assert.ok(await page.locator("#class-list").isHidden());
}, { replaced: mockPackage() }));

test("the picture shows what a network that crops sees", page(async (page) => {
  await answerToFile(page, "wide.png", makePng(480, 320));
  assert.match(await page.locator("#caption").textContent(), /480 × 320 pixels; the network sees the middle, 88 % of the shorter side/);
  assert.equal(await page.locator("#picture").evaluate((canvas) => canvas.width), 280);
  await answerToFile(page, "cat.webp", await readSample("cat"));
  assert.match(await page.locator("#caption").textContent(), /the middle, 88 %/);
}, { replaced: mockPackage({ metadata }) }));
