// Files that the tests pass to the page.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { ROOT } from "./site.mjs";

export const CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

export const readSample = (name) => readFile(join(ROOT, `web/samples/${name}.webp`));
export const readFixture = (name) => readFile(new URL(`fixtures/${name}`, import.meta.url));

const list = JSON.parse(readFileSync(join(ROOT, "web/models/index.json"), "utf8"));
/** The bundle that the page loads by default: its name and path. */
export const DEFAULT = list.default;
export const BUNDLE = `web/models/${list.bundles.find(({ name }) => name === DEFAULT).file}`;
export const readBundle = () => readFile(join(ROOT, BUNDLE));

/** A complete black PNG with one bit per pixel: a small file even for many pixels. */
export function makePng(width, height) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([1, 0, 0, 0, 0], 8);
  const rows = Buffer.alloc(height * (1 + Math.ceil(width / 8)));
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

/** A copy of the file with one bit flipped in the byte at `at`; negative positions count from the end. */
export function flipBit(bytes, at) {
  const changed = Buffer.from(bytes);
  changed[at < 0 ? bytes.length + at : at] ^= 1;
  return changed;
}
