// The class activation map as a smooth heat map. The worker computes it; the page draws it.

/** Side in pixels of the map interpolated here; the canvas scales it up smoothly from there. */
export const HEAT_SIDE = 96;
/** The color scale, transparent to bright, like a kiln heating up: [share of the maximum, r, g, b, alpha]. */
const COLORS = [
  [0, 60, 8, 4, 0],
  [0.25, 96, 14, 8, 0.15],
  [0.5, 190, 44, 14, 0.6],
  [0.75, 246, 130, 32, 0.85],
  [1, 255, 232, 150, 1],
];
const SHADES = Array.from({ length: 256 }, (_, i) => shade(i / 255));

/**
 * The positive part of a class activation map, relative to its own maximum.
 *
 * @param {{values: Float32Array, height: number, width: number}} map raw activations [height, width]
 * @returns {Uint8ClampedArray | undefined} RGBA, `HEAT_SIDE` pixels per side; `undefined` if no activation is positive
 */
export function heatOf(map) {
  const heat = upscale(map, HEAT_SIDE);
  const maximum = heat.reduce((a, b) => Math.max(a, b), 0);
  if (maximum <= 0) return undefined;
  const pixels = new Uint8ClampedArray(4 * heat.length);
  heat.forEach((value, i) => pixels.set(SHADES[Math.round((255 * Math.max(value, 0)) / maximum)], 4 * i));
  return pixels;
}

/** Upscales [height, width] to [side, side] with cubic B-splines along both axes: smooth, without overshoot. */
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

/** For each of `side` positions, the four nearest of `cells` and their weights; cells past the border repeat the edge. */
function weights(cells, side) {
  return Array.from({ length: side }, (_, position) => {
    const center = ((position + 0.5) * cells) / side - 0.5;
    const first = Math.floor(center);
    const t = center - first;
    const spline = [(1 - t) ** 3, 3 * t ** 3 - 6 * t ** 2 + 4, -3 * t ** 3 + 3 * t ** 2 + 3 * t + 1, t ** 3];
    return spline.map((weight, k) => [Math.min(Math.max(first - 1 + k, 0), cells - 1), weight / 6]);
  });
}

function shade(share) {
  const upper = Math.max(1, COLORS.findIndex(([at]) => share <= at));
  const [from, ...low] = COLORS[upper - 1];
  const [to, ...high] = COLORS[upper];
  const t = (share - from) / (to - from);
  const [r, g, b, alpha] = low.map((value, i) => value + t * (high[i] - value));
  return [r, g, b, 255 * alpha];
}
