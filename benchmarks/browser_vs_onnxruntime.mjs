// Times Kiln against onnxruntime-web in one Chromium: batch 1, f32, the same weights and image.
//
//     npm install --prefix benchmarks playwright-core onnxruntime-web
//     python3 benchmarks/make_onnx.py MODEL.safetensors model.onnx
//     node benchmarks/browser_vs_onnxruntime.mjs MODEL.safetensors model.onnx [cpu|webgpu|all] [runs]
//
// The page is benchmarks/browser_vs_onnxruntime.html. On the CPU each gets one thread and, where the machine
// has more cores, two. Prints JSON: cold start (from the weights' bytes to the first answer), p50 and p90 of
// each, and how far their logits are apart. KILN_CHROMIUM names another browser, KILN_CHROMIUM_FLAGS adds flags.
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(join(here, 'node_modules', 'anchor.js'));
const [bundle, onnx, what = 'all', runs = '20'] = process.argv.slice(2);
if (!bundle || !onnx) {
    console.error('usage: node browser_vs_onnxruntime.mjs MODEL.safetensors model.onnx [cpu|webgpu|all] [runs]');
    process.exit(2);
}

const files = {
    '/': join(here, 'browser_vs_onnxruntime.html'),
    '/browser_peer.js': join(here, 'browser_peer.js'),
    '/bundle': resolve(bundle),
    '/onnx': resolve(onnx),
};
const folders = {
    '/web/': join(here, '..', 'web'),
    '/ort/': join(dirname(require.resolve('onnxruntime-web')), '..', 'dist'),
};
const threads = cpus().length > 1 ? [1, 2] : [1];
const pairs = {
    cpu: threads.map((threads) => ({ backend: 'cpu', threads })),
    webgpu: [{ backend: 'webgpu', threads: 1 }],
};
const types = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm' };

function normalisation() {
    const bytes = readFileSync(bundle);
    const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())));
    const { mean, std } = JSON.parse(header.__metadata__.kiln).contents;
    return JSON.stringify({ mean, std });
}

const server = createServer((request, response) => {
    const path = new URL(request.url, 'http://localhost').pathname;
    if (path === '/normalisation') return response.end(normalisation());
    const prefix = Object.keys(folders).find((prefix) => path.startsWith(prefix));
    const file = files[path] ?? (prefix && join(folders[prefix], path.slice(prefix.length)));
    try {
        const length = statSync(file).size;
        response.writeHead(200, {
            'content-type': types[extname(file)] ?? 'application/octet-stream',
            'content-length': length,
            // What threads need to share memory.
            'cross-origin-opener-policy': 'same-origin',
            'cross-origin-embedder-policy': 'require-corp',
        });
        createReadStream(file).pipe(response);
    } catch {
        response.writeHead(404).end();
    }
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const { chromium } = require('playwright-core');
const browser = await chromium.launch({
    executablePath: process.env.KILN_CHROMIUM ?? '/usr/bin/chromium',
    args: [
        '--headless=new', '--no-sandbox', '--disable-background-networking', '--disable-component-update',
        '--disable-sync', '--no-first-run', '--enable-unsafe-webgpu',
        ...(process.env.KILN_CHROMIUM_FLAGS ?? '--use-webgpu-adapter=swiftshader').split(' ').filter(Boolean),
    ],
});
const page = await browser.newPage();
page.on('pageerror', (error) => console.error(error));
page.on('console', (message) => console.error(message.text()));
await page.goto(`http://127.0.0.1:${server.address().port}/`);
// One backend after the other: SwiftShader would take the CPU's cores.
const results = [];
for (const backend of what === 'all' ? ['cpu', 'webgpu'] : [what]) {
    results.push(...await page.evaluate(([pairs, runs]) => window.compare(pairs, runs), [pairs[backend], Number(runs)]));
}
console.log(JSON.stringify({
    date: new Date().toISOString().slice(0, 10),
    machine: `${cpus().length} x ${cpus()[0].model}`,
    browser: browser.version(),
    onnxruntime: JSON.parse(readFileSync(join(folders['/ort/'], '..', 'package.json'))).version,
    runs: Number(runs),
    results,
}, null, 2));
await browser.close();
server.close();
