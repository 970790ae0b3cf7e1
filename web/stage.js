// The picture, the heat over it, and the small square that the network sees.

import { HEAT_SIDE } from "./heat.js";

export class Stage {
  #elements;
  #renderer;

  /** @param elements {stage, prompt, picture, video, heat, seen, caption}: the elements of these ids */
  constructor(elements) {
    this.#elements = elements;
    this.#renderer = elements.picture.getContext("bitmaprenderer");
  }

  /** @param {{square: ImageBitmap, width: number, height: number}} preview the square is used up */
  showPicture({ square, width, height }, name) {
    const { picture, caption } = this.#elements;
    picture.width = square.width;
    picture.height = square.height;
    this.#renderer.transferFromImageBitmap(square);
    picture.setAttribute("aria-label", `Your picture: ${name}`);
    const cut = width === height ? "" : "; the network looks at its middle square";
    caption.textContent = `${name}, ${width} × ${height} pixels${cut}`;
    this.#showOnly(picture);
  }

  showVideo() {
    this.#elements.caption.textContent = "Live from the camera; nothing is sent or stored";
    this.#showOnly(this.#elements.video);
  }

  #showOnly(shown) {
    const { prompt, picture, video } = this.#elements;
    for (const element of [prompt, picture, video]) element.hidden = element !== shown;
  }

  /** @param {Uint8ClampedArray} [pixels] RGBA, or none: then nothing speaks for the class */
  showHeat(pixels = new Uint8ClampedArray(4 * HEAT_SIDE ** 2)) {
    putPixels(this.#elements.heat, pixels, HEAT_SIDE);
  }

  setHeat(visible, strength) {
    const { heat } = this.#elements;
    heat.hidden = !visible;
    heat.style.setProperty("opacity", strength);
  }

  /** @param {Uint8Array} rgba the pixels given to the network, `size` x `size` */
  showInput(rgba, size) {
    const { seen } = this.#elements;
    putPixels(seen, new Uint8ClampedArray(rgba), size);
    seen.setAttribute("aria-label", `The picture at ${size} by ${size} pixels, as the network sees it`);
  }

  setBusy(busy) {
    this.#elements.stage.setAttribute("aria-busy", String(busy));
  }
}

function putPixels(canvas, pixels, size) {
  canvas.width = canvas.height = size;
  // A few thousand pixels: a canvas on the GPU would cost more to make than it saves.
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(pixels, size, size), 0, 0);
}
