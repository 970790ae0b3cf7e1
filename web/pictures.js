// Picture files and frames: reads files, decodes the formats that Rust does not, and makes the preview. In the worker,
// except for `centerSquare`, which the camera uses in the page.

import { Fault } from "./fault.js";

/** The same limit as in crates/data/src/decode.rs, checked here before the file is read into memory. */
const MAX_FILE_BYTES = 64 << 20;
/** Largest picture, in pixels, that the browser decodes: at 4 bytes each this comes on top of the memory Rust used. */
const MAX_BROWSER_PIXELS = 20_000_000;
const MAX_PREVIEW_SIDE = 720;
/** Larger squares are shrunk before their pixels are copied into wasm; the network's input is far smaller. */
const MAX_PIXELS_SIDE = 1024;

/** The first bytes of the formats that Rust decodes; `.` stands for any byte. */
const SIGNATURES = ["\xff\xd8\xff", "\x89PNG", "GIF8", "BM", "RIFF....WEBP"];

/** @throws {Fault} "picture" */
export async function readPicture(file) {
  if (file.size === 0) throw new Fault("picture", "the file is empty");
  if (file.size > MAX_FILE_BYTES) throw new Fault("picture", "the file is larger than the limit of 64 MiB");
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Fault("picture", "the file cannot be read: it may be a folder, or it may have been moved");
  }
}

/** Whether Rust decodes this format. If Rust then rejects the file, its error is final. */
export function isDecodedInRust(bytes) {
  return SIGNATURES.some((signature) =>
    [...signature].every((char, i) => char === "." || bytes[i] === char.charCodeAt(0)));
}

/**
 * Decodes a file with the browser, for formats such as AVIF; `undefined` if the browser cannot either.
 * @throws {Fault} "picture" if the file's header declares more than `MAX_BROWSER_PIXELS`
 */
export async function decodeOther(file, bytes) {
  const pixels = declaredPixels(bytes);
  if (pixels > MAX_BROWSER_PIXELS) {
    throw new Fault("picture", `it has ${Math.round(pixels / 1e6)} megapixels; the limit for this format is 20: save it as JPEG`);
  }
  return createImageBitmap(file).catch(() => undefined);
}

/** The pixel count that an AVIF or HEIC file declares: the largest of its `ispe` boxes, each with a width and a height. */
function declaredPixels(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let most = 0;
  for (let at = bytes.indexOf(0x69); at >= 0 && at + 16 <= bytes.length; at = bytes.indexOf(0x69, at + 1)) {
    if (view.getUint32(at) === 0x69737065) most = Math.max(most, view.getUint32(at + 8) * view.getUint32(at + 12));
  }
  return most;
}

/**
 * The center square of a picture that the browser decoded, at most `maxSide` pixels per side. Rust crops the pictures
 * that it decodes itself in the same way (crates/data/src/decode.rs). This crop serves camera frames and formats such as
 * AVIF: without it, all their pixels would be copied into wasm.
 * @param {CanvasImageSource} source
 * @param {[number, number]} size of the source: width, height
 * @param {"medium" | "high"} resizeQuality
 * @param {number} [share] of the square's sides that is kept around its middle
 * @returns {Promise<ImageBitmap>}
 */
export async function centerSquare(source, [width, height], maxSide, resizeQuality, share = 1) {
  const side = Math.max(1, Math.round(share * Math.min(width, height)));
  const size = Math.min(side, maxSide);
  const left = (width - side) >> 1;
  const top = (height - side) >> 1;
  return createImageBitmap(source, left, top, side, side, { resizeWidth: size, resizeHeight: size, resizeQuality });
}

/** RGBA pixels of the center square. @returns {Promise<{rgba: Uint8Array, size: number}>} */
export async function squarePixels(bitmap) {
  const square = await centerSquare(bitmap, [bitmap.width, bitmap.height], MAX_PIXELS_SIDE, "high");
  const size = square.width;
  const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  context.drawImage(square, 0, 0);
  square.close();
  const { data } = context.getImageData(0, 0, size, size);
  return { rgba: new Uint8Array(data.buffer), size };
}

/**
 * What the page shows of a file: the part of the center square that the network sees, so that the heat map lies where it
 * belongs, and the size of the whole picture.
 *
 * The browser decodes the file a second time here. Rust decodes it for the network, with the same result in every
 * browser, and returns only the network's small input, which is too coarse to show. If the picture is too large to
 * decode again, or the browser does not know its format, the preview is that input.
 * @param {{input: Uint8Array, inputSize: number, pictureWidth?: number, pictureHeight?: number}} answer
 * @param {number} share of the center square's sides that the network sees
 */
export async function previewOf(file, { input, inputSize, pictureWidth: width, pictureHeight: height }, share) {
  const bitmap = width * height > MAX_BROWSER_PIXELS ? undefined : await createImageBitmap(file).catch(() => undefined);
  if (!bitmap) {
    const square = await createImageBitmap(new ImageData(new Uint8ClampedArray(input), inputSize));
    return { square, width: width ?? inputSize, height: height ?? inputSize };
  }
  const size = [bitmap.width, bitmap.height];
  const square = drawnSquare(bitmap, size, share);
  bitmap.close();
  return { square, width: size[0], height: size[1] };
}

/**
 * The part of the center square that the network sees, as it sees it: upright, and over white. A bitmap of a photograph may carry an orientation, which
 * drawing applies, and which is lost where a canvas takes over the bitmap itself (`transferFromImageBitmap`).
 */
function drawnSquare(bitmap, [width, height], share) {
  const side = Math.max(1, Math.round(share * Math.min(width, height)));
  const size = Math.min(side, MAX_PREVIEW_SIDE);
  const canvas = new OffscreenCanvas(size, size);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, size, size);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (width - side) >> 1, (height - side) >> 1, side, side, 0, 0, size, size);
  return canvas.transferToImageBitmap();
}
