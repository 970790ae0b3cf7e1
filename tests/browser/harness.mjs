// Shared by all browser tests: a browser, and pages that are checked for errors at the end of each test.

import assert from "node:assert/strict";
import { after, before } from "node:test";
import { answerAfter, launch, openPage, problemAfter } from "./browser.mjs";
import { hasPackage, serveSite } from "./site.mjs";

/** A value for a test's `skip`, if it needs the real wasm package. */
export const NEEDS_PACKAGE = hasPackage ? false : "web/pkg is missing: build it with `bash web/build.sh`";

/**
 * Starts a browser before the tests in a file and closes it after them.
 * @returns {(use: (page, more: {watch, context, site}) => Promise<void>, options?: {replaced?: object, page?: object,
 *   isolated?: boolean}) => () => Promise<void>} turns `use` into a test. Every such test also fails on an uncaught
 *   error, a violation of the content security policy, or a request to another host.
 */
export function withBrowser(flags = []) {
  let browser;
  before(async () => {
    browser = await launch(flags);
  });
  after(() => browser.close());
  return (use, { replaced = {}, page: pageOptions = {}, isolated } = {}) => async () => {
    const site = await serveSite(await replaced, { isolated });
    const { context, page, watch } = await openPage(browser, site.url, pageOptions);
    try {
      await use(page, { watch, context, site });
      assert.deepEqual(watch, { violations: [], foreign: [], errors: [] });
    } finally {
      await context.close();
      await site.close();
    }
  };
}

export const clickSample = (page, name) => answerAfter(page, () => page.locator(`[data-sample=${name}]`).click());

export const chooseFile = (page, name, buffer, mimeType = "image/png") => page.setInputFiles("#file", { name, mimeType, buffer });

export const answerToFile = (page, name, buffer) => answerAfter(page, () => chooseFile(page, name, buffer));

export const problemWithFile = (page, name, buffer) => problemAfter(page, () => chooseFile(page, name, buffer));

/** Dispatches `drop` or `paste` on the page with files or text, as a browser would. */
export function give(page, event, { files = [], text = "" }) {
  const plain = files.map(({ name, type, buffer }) => ({ name, type, bytes: [...buffer] }));
  return page.evaluate(([event, files, text]) => {
    const data = new DataTransfer();
    for (const { name, type, bytes } of files) data.items.add(new File([new Uint8Array(bytes)], name, { type }));
    if (text) data.setData("text/uri-list", text);
    const settings = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
    document.body.dispatchEvent(event === "paste" ? new ClipboardEvent(event, settings) : new DragEvent(event, settings));
  }, [event, plain, text]);
}
