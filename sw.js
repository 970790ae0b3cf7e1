// Keeps the page working offline. At the root, since its scope is the whole page.
//
// Network first: online, the page is always the newest, whatever was rebuilt. Only complete, good
// answers are kept. Bundles and the wasm packages are kept by the worker (web/bundle.js,
// web/package.js) once they have proved to work, and bundles are not touched here.

const SHELL = "kiln-shell-1";
const PACKAGE = "kiln-package";
/** A server that does not answer for this long counts as unreachable, in milliseconds. */
const PATIENCE = 5000;

const FILES = [
  "./",
  "web/answer.js",
  "web/app.js",
  "web/app.webmanifest",
  "web/benchmark.js",
  "web/bundle.js",
  "web/camera.js",
  "web/download.js",
  "web/engine.js",
  "web/fault.js",
  "web/format.js",
  "web/heat.js",
  "web/icons/kiln-192.png",
  "web/icons/kiln-512.png",
  "web/icons/kiln.svg",
  "web/intake.js",
  "web/latency.js",
  "web/models/index.json",
  "web/network.js",
  "web/package.js",
  "web/pictures.js",
  "web/problems.js",
  "web/samples/airplane.webp",
  "web/samples/automobile.webp",
  "web/samples/bird.webp",
  "web/samples/cat.webp",
  "web/samples/deer.webp",
  "web/samples/dog.webp",
  "web/samples/frog.webp",
  "web/samples/horse.webp",
  "web/samples/ship.webp",
  "web/samples/truck.webp",
  "web/stage.js",
  "web/status.js",
  "web/style.css",
  "web/thread.js",
  "web/threads.js",
  "web/worker.js",
];

addEventListener("install", (event) => {
  const requests = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(SHELL).then((cache) => cache.addAll(requests)).then(() => skipWaiting()));
});

addEventListener("activate", (event) => {
  event.waitUntil(deleteOldShells().then(() => clients.claim()));
});

async function deleteOldShells() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith("kiln-shell-") && name !== SHELL).map((name) => caches.delete(name)));
}

addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  const isOurs = origin === location.origin && request.method === "GET";
  if (isOurs && !pathname.endsWith(".safetensors")) event.respondWith(networkFirst(request));
});

async function networkFirst(request) {
  const isPackage = /\/web\/pkg(-threads)?\//.test(new URL(request.url).pathname);
  try {
    // The package may be large: however slow, it comes.
    const response = isPackage ? await fetch(request) : await fetchSoon(request);
    const isWhole = response.status === 200 && !response.redirected;
    if (isWhole && !isPackage) await keep(request, response.clone());
    return response;
  } catch (error) {
    const cache = await caches.open(isPackage ? PACKAGE : SHELL);
    const kept = await cache.match(request.mode === "navigate" ? "./" : request);
    if (kept) return kept;
    throw error;
  }
}

/** Where the browser's storage is full, the answer is still good. */
async function keep(request, response) {
  try {
    await (await caches.open(SHELL)).put(request, response);
  } catch (error) {
    console.warn("not kept for offline use:", error);
  }
}

function fetchSoon(request) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new TypeError("the server does not answer")), PATIENCE));
  return Promise.race([fetch(request, { cache: "no-cache" }), late]);
}
