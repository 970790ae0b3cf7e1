// Picture files and frames inside the worker: reading, the browser's own decoder where Rust has
// none, and the square to show.

import { Fault } from "./fault.js";

/** As in crates/data/src/decode.rs, asked before the file is read into memory. */
const MAX_FILE_BYTES = 64 << 20;
/** Most pixels of a picture that the browser decodes, at four bytes each, beside what Rust took for it. */
const MAX_BROWSER_PIXELS = 20_000_000;
const MAX_PREVIEW_SIDE = 720;
/** Larger squares are shrunk before their pixels are copied: the network sees 32 x 32 of them. */
const MAX_PIXELS_SIDE = 1024;

/** Leading bytes of the formats that are decoded in Rust, `.` for any byte. */
const SIGNATURES = ["\xff\xd8\xff", "\x89PNG", "GIF8", "BM", "RIFF....WEBP"];

/** @throws {Fault} "picture" */
export async function readPicture(file) {
  if (file.size === 0) throw new Fault("picture", "the file is empty");
  if (file.size > MAX_FILE_BYTES) throw new Fault("picture", "the file is over the limit of 64 MiB");
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

/**
 * The browser's decoder, for formats such as AVIF; `undefined` if it cannot either.
 * @throws {Fault} "picture" for one that says it is larger than the browser should decode
 */
export async function decodeOther(file, bytes) {
  const pixels = claimedPixels(bytes);
  if (pixels > MAX_BROWSER_PIXELS) {
    throw new Fault("picture", `it has ${Math.round(pixels / 1e6)} megapixels, over the limit of 20 for its format: save it as JPEG`);
  }
  return createImageBitmap(file).catch(() => undefined);
}

/** Of AVIF and HEIC: the largest of their `ispe` boxes, which hold the widths and heights of all that they consist of. */
function claimedPixels(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let most = 0;
  for (let at = bytes.indexOf(0x69); at >= 0 && at + 16 <= bytes.length; at = bytes.indexOf(0x69, at + 1)) {
    if (view.getUint32(at) === 0x69737065) most = Math.max(most, view.getUint32(at + 8) * view.getUint32(at + 12));
  }
  return most;
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

/**
 * What the page shows of a file: the middle square, and the size of all of it. Of a picture that is too large for the
 * browser beside Rust, or of a kind that it does not know, the square is what the network saw.
 * @param {{input: Uint8Array, inputSize: number, pictureWidth?: number, pictureHeight?: number}} answer
 */
export async function previewOf(file, { input, inputSize, pictureWidth: width, pictureHeight: height }) {
  const bitmap = width * height > MAX_BROWSER_PIXELS ? undefined : await createImageBitmap(file).catch(() => undefined);
  if (!bitmap) {
    const square = await createImageBitmap(new ImageData(new Uint8ClampedArray(input), inputSize));
    return { square, width: width ?? inputSize, height: height ?? inputSize };
  }
  const shown = { width: bitmap.width, height: bitmap.height };
  const square = await middleSquare(bitmap, MAX_PREVIEW_SIDE);
  bitmap.close();
  return { square, ...shown };
}
