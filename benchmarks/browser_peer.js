// One side of browser_vs_onnxruntime.html, in a worker, as a page should have it.
//
// In:  {kind: 'kiln' | 'onnxruntime', backend: 'cpu' | 'webgpu', threads}, then any number of {}.
// Out: {cold: {load, first}, logits} for the first, {milliseconds} of one run for each of the others, or {error}.

const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
const pixels = Uint8Array.from({ length: 4096 }, (_, at) => (at * 7919) % 251);

/** The weights are there before the clock starts; then each loads its WebAssembly and makes what runs one image. */
const peers = {
    async kiln({ backend, threads }) {
        const script = new URL(threads > 1 ? '/web/pkg-threads/kiln_web.js' : '/web/pkg/kiln_web.js', location).href;
        const { startThreads } = await import('/web/threads.js');
        const bundle = await bytes('/bundle');
        return async () => {
            const wasm = await import(script);
            await wasm.default();
            if (threads > 1) await startThreads(wasm, script, threads);
            const classifier = await wasm.Classifier.load(bundle, backend);
            if (classifier.backend !== backend) {
                throw new Error(`Kiln runs on ${classifier.backend}: ${classifier.reason}`);
            }
            return async () => (await classifier.classifyPixels(pixels, 32, 32)).logits;
        };
    },
    async onnxruntime({ backend, threads }) {
        const ort = await import('/ort/ort.all.min.mjs');
        ort.env.wasm.numThreads = threads;
        ort.env.wasm.wasmPaths = '/ort/';
        const model = await bytes('/onnx');
        const { mean, std } = await (await fetch('/normalisation')).json();
        return async () => {
            const provider = backend === 'cpu' ? 'wasm' : 'webgpu';
            const session = await ort.InferenceSession.create(model, { executionProviders: [provider] });
            const image = new Float32Array(3 * 1024);
            for (let at = 0; at < image.length; at++) {
                const channel = Math.floor(at / 1024);
                image[at] = (pixels[4 * (at % 1024) + channel] / 255 - mean[channel]) / std[channel];
            }
            return async () => {
                const images = new ort.Tensor('float32', image, [1, 3, 32, 32]);
                return (await session.run({ images })).logits.getData();
            };
        };
    },
};

let run;

async function load(settings) {
    const make = await peers[settings.kind](settings);
    const start = performance.now();
    run = await make();
    const loaded = performance.now();
    const logits = await run();
    return { cold: { load: loaded - start, first: performance.now() - loaded }, logits };
}

async function timed() {
    const start = performance.now();
    await run();
    return { milliseconds: performance.now() - start };
}

addEventListener('message', async ({ data }) => {
    try {
        postMessage(await (data.kind ? load(data) : timed()));
    } catch (error) {
        postMessage({ error: error.message });
    }
});
