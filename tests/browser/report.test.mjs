// The report that `kiln train` writes, for a small run: it fits every screen and loads nothing from elsewhere.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
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
  test(`the report has no layout, accessibility or policy errors (${name})`, { skip }, async () => {
    const { context, page, watch } = await openPage(browser, pathToFileURL(join(folder, "run/report.html")).href, options);
    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
    assert.deepEqual(await page.evaluate(overlappingTexts), []);
    const [content, width] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    // A phone widens its viewport for a page that is too wide.
    const screen = options.viewport?.width ?? width;
    assert.ok(content <= screen, `${content} pixels wide on a screen of ${screen}`);
    // Injected through the debugger, which the page's content security policy does not restrict.
    await page.evaluate(AXE);
    const violations = await page.evaluate(async () => (await window.axe.run()).violations.map(({ id }) => id));
    assert.deepEqual(violations, []);
    assert.deepEqual(watch, { violations: [], foreign: [], errors: [] });
    await context.close();
  });
}

const open = (options, path = "run/report.html") => openPage(browser, pathToFileURL(join(folder, path)).href, options);

async function close({ context, watch }) {
  assert.deepEqual(watch, { violations: [], foreign: [], errors: [] });
  await context.close();
}

/** The texts in one column of the table's body. */
const column = (table, index) => table.locator(`tbody tr > :nth-child(${index + 1})`).allTextContents();

test("the table of classes sorts in both directions, by mouse and by keyboard", { skip }, async () => {
  const opened = await open();
  const table = opened.page.locator("table.sortable").first();
  const before = await column(table, 0);
  const f1 = (await column(table, 3)).map(Number);
  const heads = table.locator("thead th");
  const sorted = () => heads.evaluateAll((all) => all.map((head) => head.getAttribute("aria-sort")));
  await table.getByRole("button", { name: "F1" }).click();
  assert.deepEqual((await column(table, 3)).map(Number), f1.toSorted((a, b) => a - b));
  assert.deepEqual(await sorted(), [null, null, null, "ascending", null]);
  // The button still has the focus.
  await opened.page.keyboard.press("Enter");
  assert.deepEqual((await column(table, 3)).map(Number), f1.toSorted((a, b) => b - a));
  assert.deepEqual(await sorted(), [null, null, null, "descending", null]);
  await table.getByRole("button", { name: "Class" }).click();
  assert.deepEqual(await column(table, 0), before.toSorted());
  assert.deepEqual(await sorted(), ["ascending", null, null, null, null]);
  // The rows of means stay at the bottom.
  assert.equal(await table.locator("tfoot tr").count(), 2);
  await close(opened);
});

/** The explorer of the confusion matrix: its panel, its data, and the position of a cell on the screen. */
async function explorer(page) {
  const panel = page.locator(".cells");
  const { grid, cells } = JSON.parse(await panel.getAttribute("data-matrix"));
  const names = await panel.getByLabel("True class").locator("option").allTextContents();
  const middle = (label, answer) => page.locator(".matrix svg").evaluate((svg, [x, y]) => {
    const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
    return [at.x, at.y];
  }, [grid.left + (answer + 0.5) * grid.cell, grid.top + (label + 0.5) * grid.cell]);
  const isShown = async ([label, answer, count, ...confidences]) => {
    const answered = label === answer ? "predicted correctly" : `predicted as ${names[answer]}`;
    const what = `${names[label]}, ${answered}: ${count} of`;
    const said = await panel.getByRole("status").textContent();
    assert.ok(said.startsWith(what), `'${said}' instead of '${what}'`);
    assert.equal(said.includes("not shown"), confidences.length < count, said);
    assert.deepEqual(await panel.locator("li").allTextContents(), confidences.map((confidence) => `${confidence} %`));
  };
  return { panel, cells, names, middle, isShown };
}

for (const [name, options] of Object.entries({ desktop: {}, phone: PHONE })) {
  test(`a cell of the confusion matrix shows its images (${name})`, { skip }, async () => {
    const opened = await open(options);
    const { page } = opened;
    const { panel, cells, names, middle, isShown } = await explorer(page);
    const errors = cells.filter(([label, answer]) => label !== answer).sort((a, b) => b[2] - a[2]);
    const [, first] = (await panel.getByRole("status").textContent()).match(/: (\d+) of/);
    assert.equal(first, `${errors[0][2]}`, "the most frequent error is shown first");

    const press = options.hasTouch ? page.touchscreen.tap.bind(page.touchscreen) : page.mouse.click.bind(page.mouse);
    await page.locator(".matrix").scrollIntoViewIfNeeded();
    for (const cell of [errors.at(-1), cells.find(([label, answer]) => label === answer)]) {
      await press(...(await middle(...cell)));
      await isShown(cell);
    }
    const shades = await panel.locator("canvas").first().evaluate((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(data).size;
    });
    assert.ok(shades > 10, `${shades} shades: nothing was drawn`);

    // By keyboard: to the other predictions for the class, and to a cell without images.
    await page.locator(".matrix").focus();
    const [label] = cells.find(([label, answer]) => label === answer);
    for (let answer = label + 1; answer < names.length; answer++) {
      await page.keyboard.press("ArrowRight");
      await isShown(cells.find((cell) => cell[0] === label && cell[1] === answer) ?? [label, answer, 0]);
    }
    const [from, to] = errors[0];
    await panel.getByLabel("True class").selectOption(names[from]);
    await panel.getByLabel("Prediction").selectOption(`${to}`);
    await isShown(errors[0]);

    // When zoomed in, the matrix stays in its frame and the selected cell stays in view.
    await panel.getByLabel("Zoom").fill("8");
    const boxOf = (element) => element.getBoundingClientRect().toJSON();
    const [frame, svg] = [await page.locator(".matrix").evaluate(boxOf), await page.locator(".matrix svg").evaluate(boxOf)];
    assert.ok(svg.width > 7 * frame.width, `${svg.width} in ${frame.width}`);
    const [x, y] = await middle(from, to);
    assert.ok(x > frame.left && x < frame.right && y > frame.top && y < frame.bottom, `${x}, ${y} is out of view`);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth));
    await close(opened);
  });
}

test("without scripts, only the images of the cells are missing", { skip }, async () => {
  const opened = await open({ javaScriptEnabled: false });
  const { page } = opened;
  assert.equal(await page.locator(".cells").isVisible(), false);
  assert.equal(await page.locator("button").count(), 0);
  assert.ok(await page.locator(".confusion svg").first().isVisible());
  assert.ok(await page.getByRole("columnheader", { name: "F1" }).isVisible());
  await close(opened);
});

test("a comparison sorts too and has no accessibility violations", { skip }, async () => {
  cpSync(join(folder, "run"), join(folder, "other"), { recursive: true });
  const command = ["compare", "run", "other", "--out", "both"];
  const { status, stderr } = spawnSync(KILN, command, { cwd: folder, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  const opened = await open({}, "both/compare.html");
  const table = opened.page.locator("table.sortable");
  assert.deepEqual(await column(table, 0), ["run", "other"]);
  await table.getByRole("button", { name: "run" }).click();
  assert.deepEqual(await column(table, 0), ["other", "run"]);
  await opened.page.evaluate(AXE);
  const violations = await opened.page.evaluate(async () => (await window.axe.run()).violations.map(({ id }) => id));
  assert.deepEqual(violations, []);
  await close(opened);
});

/** Runs in the page: finds texts in SVG pictures that overlap or leave the picture. */
function overlappingTexts() {
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
        // A box is as tall as the line, but the letters are shorter, so a small vertical overlap is fine.
        if (across > 1 && down > box.height / 3) found.push(`${svg.ariaLabel}: ${text.textContent} on ${texts[other].textContent}`);
      }
    });
  }
  return found;
}
