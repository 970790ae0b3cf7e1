// The parts of the page's modules that need no browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { doubtOf, ranked } from "../../web/answer.js";
import { quantile } from "../../web/benchmark.js";
import { assertSafetensors } from "../../web/bundle.js";
import { upscale } from "../../web/heat.js";
import { accuracyOf } from "../../web/network.js";
import { isDecodedInRust } from "../../web/pictures.js";
import { readBundle, readFixture, readSample } from "./files.mjs";

test("classes are ranked by probability", () => {
  assert.deepEqual(ranked(Float32Array.of(0.1, 0.6, 0.3)), [1, 2, 0]);
});

test("low confidence is told apart from high confidence", () => {
  const classes = ["cat", "dog", "frog"];
  assert.equal(doubtOf([0.9, 0.06, 0.04], classes), "");
  assert.match(doubtOf([0.55, 0.4, 0.05], classes), /could also be dog/);
  assert.match(doubtOf([0.4, 0.35, 0.25], classes), /no class reaches 50 %/);
  assert.equal(doubtOf([1], ["cat"]), "");
});

test("quantiles use the nearest rank", () => {
  const values = [5, 1, 4, 2, 3, 10, 9, 8, 7, 6];
  assert.equal(quantile(values, 0.5), 5);
  assert.equal(quantile(values, 0.9), 9);
  assert.equal(quantile([7], 0.9), 7);
});

test("upscaling keeps a constant map, the position of a peak, and the range", () => {
  const flat = upscale({ values: Float32Array.of(2, 2, 2, 2), height: 2, width: 2 }, 8);
  assert.ok(flat.every((value) => Math.abs(value - 2) < 1e-6));
  const corner = upscale({ values: Float32Array.of(0, 1, 0, 0, 0, 0), height: 2, width: 3 }, 12);
  const peak = corner.indexOf(Math.max(...corner));
  assert.equal(Math.floor(peak / 12), 0, "in the first row");
  assert.ok([5, 6].includes(peak % 12), "in the middle column");
  assert.ok(corner.every((value) => value >= 0 && value <= 1));
});

test("accuracy is shown with its sample count and the loss from quantization", () => {
  const metadata = { accuracy: 0.8433, accuracy_split: "test", accuracy_samples: 10000, dataset: "cifar" };
  assert.equal(accuracyOf(metadata), "Accuracy 84.33 % on 10,000 test images of “cifar”.");
  assert.match(accuracyOf({ ...metadata, quantisation: { storage: "f16", accuracy_before: 0.8433, accuracy_after: 0.8434 } }), /f16: 84\.34 % \(\+0\.01 points\)/);
  assert.match(accuracyOf({}), /not known/);
  assert.match(accuracyOf({ accuracy: null }), /not known/);
});

test("formats that Rust decodes are recognized by their first bytes", async () => {
  assert.ok(isDecodedInRust(await readSample("cat")));
  assert.ok(!isDecodedInRust(await readFixture("ship.avif")));
  assert.ok(!isDecodedInRust(new Uint8Array()));
});

test("a bundle is told apart from a web page", async () => {
  assertSafetensors(new Uint8Array(await readBundle()));
  for (const bytes of [new Uint8Array(), new TextEncoder().encode("<!doctype html><p>404</p>"), new Uint8Array(64)]) {
    assert.throws(() => assertSafetensors(bytes), /not a safetensors file/);
  }
});
