// The service worker: makes the page work offline. It lives at the root because its scope must be the whole page.
//
// Network first: while online, the page is always the newest build. Only complete responses with status 200 are cached.
// The worker caches the wasm package (web/package.js) and bundles (web/bundle.js) once they have worked. This file
// reads the package from that cache and never handles bundles.

const SHELL = "kiln-shell-1";
const PACKAGE = "kiln-package";
/** After this many milliseconds without a response, the server counts as unreachable. */
const TIMEOUT = 5000;

const FILES = [
  "./",
  "web/answer.js",
  "web/app.js",
  "web/app.webmanifest",
  "web/benchmark.js",
  "web/bundle.js",
  "web/camera.js",
  "web/classes.js",
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
    // No timeout for the package: it is large, and a slow download is fine.
    const response = isPackage ? await fetch(request) : await fetchSoon(request);
    const isComplete = response.status === 200 && !response.redirected;
    if (isComplete && !isPackage) await keep(request, response.clone());
    return response;
  } catch (error) {
    const cache = await caches.open(isPackage ? PACKAGE : SHELL);
    const cached = await cache.match(request.mode === "navigate" ? "./" : request);
    if (cached) return cached;
    throw error;
  }
}

/** If the browser's storage is full, only caching fails: the page still gets the response. */
async function keep(request, response) {
  try {
    await (await caches.open(SHELL)).put(request, response);
  } catch (error) {
    console.warn("not cached for offline use:", error);
  }
}

function fetchSoon(request) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new TypeError("the server did not respond in time")), TIMEOUT));
  return Promise.race([fetch(request, { cache: "no-cache" }), late]);
}
