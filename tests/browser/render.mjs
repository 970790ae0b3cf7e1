// Renders the SVG drawings in web/ to the files that the page uses: samples as WebP, icons as PNG.
//
//     node render.mjs

import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { launch } from "./browser.mjs";
import { ROOT } from "./site.mjs";

const SAMPLES = join(ROOT, "web/samples");
const ICONS = join(ROOT, "web/icons");
const SAMPLE_SIDE = 256;
const WEBP_QUALITY = 0.82;

const browser = await launch();
const page = await browser.newPage();

for (const name of await readdir(SAMPLES)) {
  if (name.endsWith(".svg")) await render(join(SAMPLES, name), name.replace(".svg", ".webp"), SAMPLES, SAMPLE_SIDE, "image/webp");
}
for (const side of [192, 512]) await render(join(ICONS, "kiln.svg"), `kiln-${side}.png`, ICONS, side, "image/png");
await browser.close();

async function render(drawing, name, folder, side, type) {
  const svg = await readFile(drawing, "utf8");
  const url = await page.evaluate(drawOnCanvas, { svg, side, type, quality: WEBP_QUALITY });
  await writeFile(join(folder, name), Buffer.from(url.split(",")[1], "base64"));
}

/** Runs in the page. */
async function drawOnCanvas({ svg, side, type, quality }) {
  const image = new Image(side, side);
  image.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  canvas.getContext("2d").drawImage(image, 0, 0, side, side);
  return canvas.toDataURL(type, quality);
}
