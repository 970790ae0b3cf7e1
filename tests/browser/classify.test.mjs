// Pictures from every source, and their predictions.

import assert from "node:assert/strict";
import { basename } from "node:path";
import { test } from "node:test";
import { answerAfter, untilReady } from "./browser.mjs";
import { BUNDLE, CLASSES, readFixture, readSample } from "./files.mjs";
import { answerToFile, clickSample, give, NEEDS_PACKAGE, withBrowser } from "./harness.mjs";
import { mockPackage } from "./site.mjs";

const skip = NEEDS_PACKAGE;
const page = withBrowser();
const mock = (settings) => ({ replaced: mockPackage(settings) });

test("a first visit loads the network and classifies a sample", { skip }, page(async (page) => {
  await untilReady(page);
  assert.equal(await clickSample(page, "cat"), "cat");
  assert.match(await page.locator("#top-share").textContent(), /^\d+\.\d %$/);
  assert.match(await page.locator("#accuracy").textContent(), /Accuracy 90\.51 % on 10,000 test images/);
  assert.equal(await page.locator("#bars button:enabled").count(), 5);
}));

test("every sample picture is classified correctly", { skip }, page(async (page) => {
  const answers = [];
  for (const name of CLASSES) answers.push(await clickSample(page, name));
  assert.deepEqual(answers, CLASSES);
}));

test("a picture chosen while the network loads is classified afterward", page(async (page) => {
  await clickSample(page, "truck");
  assert.equal(await page.locator("#load").getAttribute("data-state"), "ready");
}, mock()));

test("the first of several dropped pictures is classified", { skip }, page(async (page) => {
  const files = ["ship", "horse"];
  const buffers = await Promise.all(files.map(async (name) => ({ name: `${name}.webp`, type: "image/webp", buffer: await readSample(name) })));
  assert.equal(await answerAfter(page, () => give(page, "drop", { files: buffers })), "ship");
}));

test("a pasted picture is classified", { skip }, page(async (page) => {
  const file = { name: "image.png", type: "image/webp", buffer: await readSample("bird") };
  assert.equal(await answerAfter(page, () => give(page, "paste", { files: [file] })), "bird");
}));

test("a chosen file is classified, and can be chosen again", { skip }, page(async (page) => {
  const dog = await readSample("dog");
  assert.equal(await answerToFile(page, "dog.webp", dog), "dog");
  assert.equal(await answerToFile(page, "dog.webp", dog), "dog");
}));

test("a format that only the browser decodes is classified", { skip }, page(async (page) => {
  assert.equal(await answerToFile(page, "ship.avif", await readFixture("ship.avif")), "ship");
  assert.match(await page.locator("#caption").textContent(), /128 × 128/);
}));

/** The colors of some points of the picture on the page, 0 to 1 across and down, as [red, green, blue]. */
async function shownColors(page, points) {
  await page.evaluate(() => document.querySelector("#heat").style.setProperty("display", "none"));
  const shot = await page.locator("#picture").screenshot();
  return page.evaluate(async ([shot, points]) => {
    const bitmap = await createImageBitmap(new Blob([new Uint8Array(shot)]));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return points.map(([x, y]) => [...context.getImageData(x * bitmap.width, y * bitmap.height, 1, 1).data.slice(0, 3)]);
  }, [[...shot], points]);
}

/** A picture of 96 x 64 pixels, red on the left and blue on the right or, as PNG, transparent there. */
async function twoHalves(page, type) {
  return Buffer.from(await page.evaluate(async (type) => {
    const canvas = new OffscreenCanvas(96, 64);
    const context = canvas.getContext("2d");
    context.fillStyle = "red";
    context.fillRect(0, 0, 48, 64);
    context.fillStyle = "blue";
    if (type === "image/jpeg") context.fillRect(48, 0, 48, 64);
    return [...new Uint8Array(await (await canvas.convertToBlob({ type })).arrayBuffer())];
  }, type));
}

const isRed = ([red, green, blue]) => red > 200 && green < 60 && blue < 60;
const isBlue = ([red, green, blue]) => red < 60 && green < 60 && blue > 200;

test("a photograph that was taken upright is shown upright", page(async (page) => {
  const jpeg = await twoHalves(page, "image/jpeg");
  // Exif, big endian, one entry: orientation (0x112), a short, 1 value: 6, a quarter turn clockwise.
  const exif = Buffer.from("4578696600004d4d002a0000000800010112000300000001000600000000000000", "hex");
  const header = Buffer.from([0xff, 0xe1, 0, exif.length + 2]);
  await answerToFile(page, "phone.jpg", Buffer.concat([jpeg.subarray(0, 2), header, exif, jpeg.subarray(2)]));
  assert.match(await page.locator("#caption").textContent(), /64 × 96/);
  const [top, bottom] = await shownColors(page, [[0.5, 0.1], [0.5, 0.9]]);
  assert.ok(isRed(top) && isBlue(bottom), `${top} above ${bottom}`);
}, mock()));

test("what is transparent is shown over white", page(async (page) => {
  await answerToFile(page, "half.png", await twoHalves(page, "image/png"));
  const [left, right] = await shownColors(page, [[0.1, 0.5], [0.9, 0.5]]);
  assert.ok(isRed(left), `${left}`);
  assert.deepEqual(right, [255, 255, 255]);
}, mock()));

test("camera frames are classified until the camera stops, and the last frame stays", page(async (page) => {
  await answerAfter(page, () => page.locator("#camera").click());
  assert.ok(await page.locator("#video").isVisible());
  await answerAfter(page, () => page.locator("#camera").click());
  assert.ok(await page.locator("#video").isHidden());
  assert.match(await page.locator("#caption").textContent(), /^camera\.png, 480 × 480/);
  assert.equal(await page.locator("#camera").textContent(), "Use the camera");
}, mock()));

test("a class chosen while the camera runs stays chosen", page(async (page) => {
  await answerAfter(page, () => page.locator("#camera").click());
  await page.locator("#bars button").nth(3).click();
  const name = await page.locator("#bars button").nth(3).locator("span").textContent();
  await page.locator("#bars button[aria-pressed=true]", { hasText: name }).waitFor();
  assert.equal(await page.locator("#heat-class").textContent().then((text) => text.split(" ")[0]), name);
}, mock()));

test("a denied camera permission is explained", page(async (page) => {
  await page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("denied", "NotAllowedError"));
  });
  await page.locator("#camera").click();
  await page.locator("#problem", { hasText: "no permission to use the camera" }).waitFor();
  assert.equal(await page.locator("#camera").getAttribute("aria-pressed"), "false");
}, mock()));

test("a bar shows the heat map for its class", { skip }, page(async (page) => {
  await clickSample(page, "deer");
  const heat = () => page.evaluate(() => document.getElementById("heat").toDataURL());
  const before = await heat();
  const second = page.locator("#bars button").nth(1);
  await second.focus();
  await page.keyboard.press("Enter");
  await page.locator("#bars li:nth-child(2) button[aria-pressed=true]").waitFor();
  assert.notEqual(await heat(), before);
  assert.match(await page.locator("#heat-class").textContent(), new RegExp(await second.locator("span").textContent()));
}));

test("a low-confidence prediction is marked as such", page(async (page) => {
  await clickSample(page, "cat");
  assert.match(await page.locator("#doubt").textContent(), /^Low confidence: no class reaches 50 %/);
}, mock({ certainty: 0.2 })));

test("another bundle in the list classifies the samples the same", { skip }, page(async (page) => {
  await untilReady(page);
  await page.locator("#accuracy", { hasText: "stored as int8: 90.47 % (−0.04 points)" }).waitFor();
  await page.locator("#bundle").selectOption("quick");
  await page.locator("#accuracy", { hasNotText: "int8" }).waitFor();
  const answers = [];
  for (const name of CLASSES) answers.push(await clickSample(page, name));
  assert.deepEqual(answers, CLASSES);
}));

test("class names are shown as text, never as HTML", page(async (page) => {
  await clickSample(page, "cat");
  assert.match(await page.locator("#top-class").textContent(), /<img/);
  assert.equal(await page.locator("#bars img, .verdict img").count(), 0);
}, mock({ metadata: { classes: Array.from({ length: 10 }, (_, i) => `<img src=x${i}>`) } })));

test("a benchmark gives its result as JSON", { skip }, page(async (page) => {
  await clickSample(page, "ship");
  await page.locator("#benchmark-runs").selectOption("10");
  await page.locator("#benchmark").click();
  await page.locator("#benchmark-copy:enabled").waitFor();
  const result = JSON.parse(await page.locator("#benchmark-json").inputValue());
  assert.equal(result.runs, 10);
  assert.equal(result.bundle, basename(BUNDLE));
  assert.equal(result.backend, "cpu");
  assert.ok(result.milliseconds.total.p50 > 0 && result.milliseconds.total.p90 >= result.milliseconds.total.p50);
  assert.ok(result.user_agent.includes("Chrome") && result.device && result.wasm_memory_bytes > 0);
  await page.locator("#bars button").nth(2).click();
  await page.locator("#bars li:nth-child(3) button[aria-pressed=true]").waitFor();
}));
