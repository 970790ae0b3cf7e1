// Picture files and frames inside the worker: reading, the browser's own decoder where Rust has
// none, and the square to show.

import { Fault } from "./fault.js";

/** As in crates/data/src/decode.rs, asked before the file is read into memory. */
const MAX_FILE_BYTES = 256 << 20;
const MAX_PREVIEW_SIDE = 720;
/** Larger squares are shrunk before their pixels are copied: the network sees 32 x 32 of them. */
const MAX_PIXELS_SIDE = 1024;

/** Leading bytes of the formats that are decoded in Rust, `.` for any byte. */
const SIGNATURES = ["\xff\xd8\xff", "\x89PNG", "GIF8", "BM", "RIFF....WEBP"];

/** @throws {Fault} "picture" */
export async function readPicture(file) {
  if (file.size === 0) throw new Fault("picture", "the file is empty");
  if (file.size > MAX_FILE_BYTES) throw new Fault("picture", "the file is over the limit of 256 MiB");
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Fault("picture", "the file cannot be read: it may be a folder, or moved since");
  }
}

/** Whether Rust decodes this format; if it then refuses the file, its reason stands. */
export function isDecodedInRust(bytes) {
  return SIGNATURES.some((signature) =>
    [...signature].every((char, i) => char === "." || bytes[i] === char.charCodeAt(0)));
}

/** The browser's decoder, for formats such as AVIF; `undefined` if it cannot either. */
export async function decodeInBrowser(file) {
  return createImageBitmap(file).catch(() => undefined);
}

/** The middle square, which is what the network looks at, no larger than `maxSide`. */
async function middleSquare(bitmap, maxSide) {
  const side = Math.min(bitmap.width, bitmap.height);
  const size = Math.min(side, maxSide);
  const left = (bitmap.width - side) >> 1;
  const top = (bitmap.height - side) >> 1;
  return createImageBitmap(bitmap, left, top, side, side, { resizeWidth: size, resizeHeight: size, resizeQuality: "high" });
}

/** RGBA of the middle square. @returns {Promise<{rgba: Uint8Array, size: number}>} */
export async function squarePixels(bitmap) {
  const square = await middleSquare(bitmap, MAX_PIXELS_SIDE);
  const size = square.width;
  const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  context.drawImage(square, 0, 0);
  square.close();
  const { data } = context.getImageData(0, 0, size, size);
  return { rgba: new Uint8Array(data.buffer), size };
}

/** What the page shows of a file: the middle square, and the size of all of it. */
export async function previewOf(file) {
  const bitmap = await decodeInBrowser(file);
  if (!bitmap) return undefined;
  const { width, height } = bitmap;
  const square = await middleSquare(bitmap, MAX_PREVIEW_SIDE);
  bitmap.close();
  return { square, width, height };
}
