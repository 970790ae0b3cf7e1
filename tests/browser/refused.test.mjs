// Files that cannot be classified or loaded: the page says what happened, why and what to do, and keeps working.

import assert from "node:assert/strict";
import { test } from "node:test";
import { problemAfter, untilKept, untilReady } from "./browser.mjs";
import { BUNDLE, flipBit, makePng, readBundle, readSample } from "./files.mjs";
import { answerToFile, clickSample, give, NEEDS_PACKAGE, problemWithFile, withBrowser } from "./harness.mjs";
import { mockPackage } from "./site.mjs";

const skip = NEEDS_PACKAGE;
const page = withBrowser();

const openBundle = (page, name, buffer) =>
  problemAfter(page, () => page.setInputFiles("#bundle-file", { name, mimeType: "application/octet-stream", buffer }));

test("bad picture files are explained, and the previous prediction stays", { skip }, page(async (page) => {
  await clickSample(page, "cat");
  const png = makePng(64, 64);
  const cases = [
    ["text.png", Buffer.from("<b>not a picture</b>"), /not an image/i],
    ["empty.png", Buffer.alloc(0), /empty/],
    ["huge.png", makePng(10_000, 10_000), /10000 x 10000.*limit/],
    ["cut.png", png.subarray(0, png.length - 20), /ends before|damaged/i],
    ["<i>name</i>.png", Buffer.from("GIF8"), /<i>name<\/i>/],
  ];
  for (const [name, buffer, expected] of cases) {
    const text = await problemWithFile(page, name, buffer);
    assert.match(text, expected);
    assert.match(text, new RegExp(`^${name} was not classified`));
    await page.locator("#problem-close").click();
  }
  assert.equal(await page.locator("#top-class").textContent(), "cat");
  assert.equal(await answerToFile(page, "dog.webp", await readSample("dog")), "dog");
  assert.ok(await page.locator("#problem").isHidden());
}));

test("a dropped link and a pasted text are explained", page(async (page) => {
  assert.match(await problemAfter(page, () => give(page, "drop", { text: "https://example.org/cat.jpg" })), /A link was dropped/);
  await page.locator("#problem-close").click();
  assert.match(await problemAfter(page, () => give(page, "paste", {})), /clipboard contains no picture/);
}, { replaced: mockPackage() }));

test("a bundle with one flipped bit is rejected and not cached", { skip }, async () => {
  const bundle = await readBundle();
  const replaced = { [BUNDLE]: { body: flipBit(bundle, -1000) } };
  await page(async (page) => {
    await page.locator("#problem").waitFor();
    assert.match(await page.locator("#problem").innerText(), /\.safetensors is not a usable bundle/);
    assert.match(await page.locator("#problem-why").innerText(), /digest/);
    assert.deepEqual(await keptBundles(page), []);
    replaced[BUNDLE] = { body: bundle };
    await page.reload();
    await untilReady(page);
    assert.equal(await clickSample(page, "ship"), "ship");
  }, { replaced })();
});

test("a changed, truncated or extended bundle is rejected by its digest before it is parsed", async () => {
  const bundle = await readBundle();
  const cases = [flipBit(bundle, -1000), flipBit(bundle, 5000), bundle.subarray(0, bundle.length / 2), Buffer.concat([bundle, bundle])];
  // The mock does not check a bundle's digest: the page must.
  const replaced = await mockPackage();
  await page(async (page) => {
    await untilReady(page);
    for (const body of cases) {
      await page.evaluate(() => caches.delete("kiln-bundles"));
      replaced[BUNDLE] = { body };
      await page.reload();
      await page.locator("#problem").waitFor();
      assert.match(await page.locator("#problem-why").innerText(), /digest does not match the list/);
      assert.deepEqual(await keptBundles(page), []);
    }
  }, { replaced })();
});

test("with the browser's storage full, the page works and caches nothing", page(async (page, { context, site }) => {
  await untilReady(page);
  await untilKept(page);
  const { origin } = new URL(site.url);
  const session = await context.newCDPSession(page);
  await session.send("Storage.clearDataForOrigin", { origin, storageTypes: "cache_storage" });
  await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 1 });
  await page.reload();
  await untilReady(page);
  assert.match(await page.locator("#load-text").textContent(), /downloaded/);
  assert.equal(await clickSample(page, "cat"), "cat");
  assert.deepEqual(await keptBundles(page), []);
}, { replaced: mockPackage() }));

test("a missing bundle is explained, and a retry loads it", async () => {
  const replaced = { ...(await mockPackage()), [BUNDLE]: { status: 404, body: "<h1>404</h1>" } };
  await page(async (page) => {
    await page.locator("#problem", { hasText: "status 404" }).waitFor();
    assert.deepEqual(await keptBundles(page), []);
    delete replaced[BUNDLE];
    await page.locator("#problem-retry").click();
    await untilReady(page);
  }, { replaced })();
});

test("an error page sent with status 200 is not taken for a bundle", async () => {
  const replaced = { ...(await mockPackage()), [BUNDLE]: { body: "<!doctype html><h1>Not found</h1>" } };
  await page(async (page) => {
    await page.locator("#problem", { hasText: "not a safetensors file" }).waitFor();
    assert.deepEqual(await keptBundles(page), []);
  }, { replaced })();
});

test("a missing list of bundles is explained", page(async (page) => {
  await page.locator("#problem", { hasText: "list of bundles" }).waitFor();
  await page.locator("#problem-retry").waitFor();
}, { replaced: { "web/models/index.json": { status: 404 } } }));

test("a damaged bundle in the cache is deleted and downloaded again", { skip }, page(async (page) => {
  await untilReady(page);
  const [key] = await keptBundles(page);
  await page.evaluate(async ([key, size]) => {
    const cache = await caches.open("kiln-bundles");
    await cache.put(key, new Response(new Uint8Array(size)));
  }, [key, (await readBundle()).length]);
  await page.reload();
  await untilReady(page);
  assert.match(await page.locator("#load-text").textContent(), /downloaded/);
  await page.reload();
  await untilReady(page);
  assert.match(await page.locator("#load-text").textContent(), /cached from an earlier visit/);
}));

test("a bundle from disk is used, and an invalid one leaves the loaded one in place", { skip }, page(async (page) => {
  await untilReady(page);
  const bundle = await readBundle();
  assert.match(await openBundle(page, "mine.safetensors", Buffer.from("text")), /mine\.safetensors is not a usable bundle/);
  assert.equal(await clickSample(page, "ship"), "ship");
  assert.match(await openBundle(page, "cut.safetensors", bundle.subarray(0, bundle.length / 2)), /cut\.safetensors is not a usable bundle/);
  await page.locator("#problem-close").click();
  await page.setInputFiles("#bundle-file", { name: "mine.safetensors", mimeType: "", buffer: bundle });
  await page.locator("#load-text", { hasText: "from your disk" }).waitFor();
  assert.equal(await page.locator("#bundle option:checked").textContent(), "mine.safetensors (yours)");
}));

test("a missing wasm package is explained with the command that builds it", page(async (page) => {
  await page.locator("#problem", { hasText: "bash web/build.sh" }).waitFor();
  assert.match(await page.locator("#load-text").textContent(), /No network loaded/);
}, { replaced: { "web/pkg/kiln_web.js": { status: 404, body: "" } } }));

test("a runtime that crashes is restarted, the page says so, and classifies again", page(async (page) => {
  await clickSample(page, "cat");
  assert.match(await problemAfter(page, () => page.locator("[data-sample=dog]").click()), /crashed and was restarted/);
  await untilReady(page);
  assert.match(await page.locator("#caption").textContent(), /^cat/);
  assert.ok(await page.locator("#problem").isVisible());
  assert.equal(await page.evaluate(() => window.kilnWatch.workers.length), 2);
}, { replaced: mockPackage({ trap: "second" }) }));

test("a runtime that crashes at every start is not restarted forever", async () => {
  const replaced = await mockPackage({ trap: "load" });
  await page(async (page) => {
    await page.locator("#problem", { hasText: "keeps crashing" }).waitFor();
    assert.equal(await page.evaluate(() => window.kilnWatch.workers.length), 3);
    Object.assign(replaced, await mockPackage());
    await page.locator("#problem-retry").click();
    await untilReady(page);
  }, { replaced })();
});

function keptBundles(page) {
  return page.evaluate(async () => (await (await caches.open("kiln-bundles")).keys()).map(({ url }) => url));
}
