// The picture, the heat map over it, and the network's input.

import { HEAT_SIDE } from "./heat.js";

export class Stage {
  #elements;
  #renderer;

  /** @param elements {stage, prompt, picture, video, heat, seen, caption}: the elements with these ids */
  constructor(elements) {
    this.#elements = elements;
    this.#renderer = elements.picture.getContext("bitmaprenderer");
  }

  /** @param {{square: ImageBitmap, width: number, height: number}} preview `square` is consumed */
  showPicture({ square, width, height }, name) {
    const { picture, caption } = this.#elements;
    picture.width = square.width;
    picture.height = square.height;
    this.#renderer.transferFromImageBitmap(square);
    picture.setAttribute("aria-label", `Your picture: ${name}`);
    const crop = width === height ? "" : "; the network sees the center square";
    caption.textContent = `${name}, ${width} × ${height} pixels${crop}`;
    this.#showOnly(picture);
  }

  showVideo() {
    this.#elements.caption.textContent = "Live from the camera; nothing is uploaded or stored";
    this.#showOnly(this.#elements.video);
  }

  #showOnly(shown) {
    const { prompt, picture, video } = this.#elements;
    for (const element of [prompt, picture, video]) element.hidden = element !== shown;
  }

  /** @param {Uint8ClampedArray} [pixels] RGBA; without it, the heat map is empty */
  showHeat(pixels = new Uint8ClampedArray(4 * HEAT_SIDE ** 2)) {
    putPixels(this.#elements.heat, pixels, HEAT_SIDE);
  }

  setHeat(visible, strength) {
    const { heat } = this.#elements;
    heat.hidden = !visible;
    heat.style.setProperty("opacity", strength);
  }

  /** @param {Uint8Array} rgba the network's input, `size` x `size` pixels */
  showInput(rgba, size) {
    const { seen } = this.#elements;
    putPixels(seen, new Uint8ClampedArray(rgba), size);
    seen.setAttribute("aria-label", `The network's input: the picture at ${size} by ${size} pixels`);
  }

  setBusy(busy) {
    this.#elements.stage.setAttribute("aria-busy", String(busy));
  }
}

function putPixels(canvas, pixels, size) {
  canvas.width = canvas.height = size;
  // `willReadFrequently` keeps the canvas off the GPU, which is faster for a few thousand pixels.
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(pixels, size, size), 0, 0);
}
