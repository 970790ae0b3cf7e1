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

  /**
   * @param {{square: ImageBitmap, width: number, height: number}} preview `square` is consumed
   * @param {number} share of the center square's sides that the network sees
   */
  showPicture({ square, width, height }, name, share) {
    const { picture, caption } = this.#elements;
    picture.width = square.width;
    picture.height = square.height;
    this.#renderer.transferFromImageBitmap(square);
    this.#elements.heat.style.setProperty("scale", 1);
    picture.setAttribute("aria-label", `Your picture: ${name}`);
    const crop = seenPart(width === height, share);
    caption.textContent = `${name}, ${width} × ${height} pixels${crop}`;
    this.#showOnly(picture);
  }

  /** @param {number} share as in `showPicture` */
  showVideo(share) {
    // The video shows the whole square, and the heat map is of its middle.
    this.#elements.heat.style.setProperty("scale", share);
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

/** Which part of the picture the network sees, if it is not all of it. */
function seenPart(isSquare, share) {
  if (share < 1) return `; the network sees the middle, ${Math.round(100 * share)} % of the shorter side`;
  return isSquare ? "" : "; the network sees the center square";
}

function putPixels(canvas, pixels, size) {
  canvas.width = canvas.height = size;
  // `willReadFrequently` keeps the canvas off the GPU, which is faster for a few thousand pixels.
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(pixels, size, size), 0, 0);
}
