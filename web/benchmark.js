// Benchmark: times repeated classifications of one picture.

/** The `q` quantile, 0 to 1, by the nearest-rank method. */
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)];
}

/**
 * @param {number} runs
 * @param {() => Promise<{timings: object}>} classify one run
 * @param {(done: number) => boolean} onRun called after each run; false ends the measurement
 * @returns {Promise<{timings: object[], last: object}>} each run's timings, and the last answer
 */
export async function measure(runs, classify, onRun) {
  const timings = [];
  let last;
  do {
    last = await classify();
    timings.push(last.timings);
  } while (onRun(timings.length) && timings.length < runs);
  return { timings, last };
}

/** The result as JSON, with the hardware, browser and network that it depends on. */
export function report({ timings, last }, { network, bundle, cold, picture }) {
  return {
    runs: timings.length,
    milliseconds: Object.fromEntries(
      ["decode", "upload", "compute", "readBack", "total"].map((stage) => {
        const values = timings.map((timing) => timing[stage]);
        return [stage, { p50: round(quantile(values, 0.5)), p90: round(quantile(values, 0.9)) }];
      })),
    first_run: Object.fromEntries(Object.entries(cold).map(([stage, ms]) => [stage, round(ms)])),
    backend: network.backend,
    device: network.device,
    reason: network.reason,
    bundle,
    architecture: network.metadata.architecture,
    quantisation: network.metadata.quantisation ?? null,
    picture,
    wasm_memory_bytes: last.memory,
    user_agent: navigator.userAgent,
    logical_cores: navigator.hardwareConcurrency,
    measured_at: new Date().toISOString(),
  };
}

function round(ms) {
  return Math.round(1000 * ms) / 1000;
}
