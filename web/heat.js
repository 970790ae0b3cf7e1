// The class activation map as smooth heat. Computed in the worker, drawn by the page.

/** Side of the map that is interpolated here; the canvas' own smoothing does the rest. */
export const HEAT_SIDE = 96;
/** From nothing through the colours of a kiln as it heats up: [share of the maximum, r, g, b, alpha]. */
const COLOURS = [
  [0, 60, 8, 4, 0],
  [0.25, 96, 14, 8, 0.15],
  [0.5, 190, 44, 14, 0.6],
  [0.75, 246, 130, 32, 0.85],
  [1, 255, 232, 150, 1],
];
const SHADES = Array.from({ length: 256 }, (_, i) => shade(i / 255));

/**
 * The part of a map that speaks for its class, relative to its own maximum.
 *
 * @param {{values: Float32Array, height: number, width: number}} map raw activations [height, width]
 * @returns {Uint8ClampedArray | undefined} RGBA, `HEAT_SIDE` pixels a side; `undefined` if nothing in the
 *   picture speaks for the class
 */
export function heatOf(map) {
  const heat = upscale(map, HEAT_SIDE);
  const maximum = heat.reduce((a, b) => Math.max(a, b), 0);
  if (maximum <= 0) return undefined;
  const pixels = new Uint8ClampedArray(4 * heat.length);
  heat.forEach((value, i) => pixels.set(SHADES[Math.round((255 * Math.max(value, 0)) / maximum)], 4 * i));
  return pixels;
}

/** [height, width] to [side, side] by cubic B-splines along both axes: smooth, and without overshoot. */
export function upscale({ values, height, width }, side) {
  const alongRows = new Float32Array(height * side);
  const columns = weights(width, side);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < side; x += 1) alongRows[y * side + x] = blend(columns[x], (i) => values[y * width + i]);
  }
  const out = new Float32Array(side * side);
  const rows = weights(height, side);
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) out[y * side + x] = blend(rows[y], (i) => alongRows[i * side + x]);
  }
  return out;
}

function blend(taps, valueAt) {
  let sum = 0;
  for (const [i, weight] of taps) sum += weight * valueAt(i);
  return sum;
}

/** For each of `side` positions the four nearest of `cells` with their weights, the border repeated. */
function weights(cells, side) {
  return Array.from({ length: side }, (_, position) => {
    const centre = ((position + 0.5) * cells) / side - 0.5;
    const first = Math.floor(centre);
    const t = centre - first;
    const spline = [(1 - t) ** 3, 3 * t ** 3 - 6 * t ** 2 + 4, -3 * t ** 3 + 3 * t ** 2 + 3 * t + 1, t ** 3];
    return spline.map((weight, k) => [Math.min(Math.max(first - 1 + k, 0), cells - 1), weight / 6]);
  });
}

function shade(share) {
  const upper = Math.max(1, COLOURS.findIndex(([at]) => share <= at));
  const [from, ...low] = COLOURS[upper - 1];
  const [to, ...high] = COLOURS[upper];
  const t = (share - from) / (to - from);
  const [r, g, b, alpha] = low.map((value, i) => value + t * (high[i] - value));
  return [r, g, b, 255 * alpha];
}
