// Serves the repository like any static host, with the responses that a test replaces.

import { createServer } from "node:http";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** The address of another site to test, such as the deployed page. */
const SITE = process.env.KILN_SITE?.replace(/\/?$/, "/");
/** A subpath, as on GitHub Pages: a page with absolute URLs would break here. */
const BASE = "/kiln/";

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
  ".webp": "image/webp",
};

/** Whether the site has the wasm package. A site in KILN_SITE is assumed to. */
export const hasPackage = SITE !== undefined || existsSync(join(ROOT, "web/pkg/kiln_web_bg.wasm"));
/** The same for the package with threads. */
export const hasThreads = SITE !== undefined || existsSync(join(ROOT, "web/pkg-threads/kiln_web_bg.wasm"));

/** The headers that a page needs to share memory between threads. `kiln serve` sends them too. */
const ISOLATING = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** Replacements that swap the wasm package for the mock. `trap`: "load", or "second" to trap at the second answer. */
export async function mockPackage(settings = {}) {
  const mock = { certainty: 6, metadata: {}, trap: "", ...settings };
  const script = await readFile(new URL("mock/kiln_web.js", import.meta.url), "utf8");
  return {
    "web/pkg/kiln_web.js": { body: `const MOCK = ${JSON.stringify(mock)};\n${script}` },
    "web/pkg/kiln_web_bg.wasm": { body: "mock" },
  };
}

/**
 * @param {Object<string, {status?: number, body?: string | Buffer, chunked?: boolean, cut?: number}>} replaced
 *   keyed by path in the repository; may be changed while the site runs. `chunked` sends no Content-Length, `cut` sends
 *   this share of the body and then stalls
 * @param {{isolated?: boolean}} options `isolated`: send the headers that multithreading needs
 * @returns {Promise<{url: string, close: () => Promise<void>}>}
 */
export async function serveSite(replaced = {}, { isolated = false } = {}) {
  const server = createServer(async (request, response) => {
    const path = pathOf(request);
    const { status, type, body, chunked, cut } = await answerTo(path, replaced);
    const headers = { "Content-Type": type, "Cache-Control": "no-cache", ...(isolated && ISOLATING) };
    if (!chunked) headers["Content-Length"] = Buffer.byteLength(body);
    response.writeHead(status, headers);
    if (cut === undefined) response.end(body);
    else response.write(body.subarray(0, cut * body.length));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}${BASE}`, close };
}

function pathOf(request) {
  const { pathname } = new URL(request.url, "http://localhost");
  if (!pathname.startsWith(BASE)) return undefined;
  return decodeURIComponent(pathname.slice(BASE.length)) || "index.html";
}

async function answerTo(path, replaced) {
  if (path === undefined) return { status: 404, type: "text/plain", body: "outside the site" };
  const type = TYPES[extname(path)] ?? "application/octet-stream";
  const replacement = replaced[path];
  if (replacement && (replacement.body !== undefined || replacement.status)) return { status: 200, type, body: "", ...replacement };
  const original = SITE ? await fetchUpstream(path) : await readLocal(path, type);
  return { ...original, ...replacement };
}

async function readLocal(path, type) {
  const file = join(ROOT, normalize(`/${path}`));
  try {
    return { status: 200, type, body: await readFile(file) };
  } catch {
    return { status: 404, type: "text/html; charset=utf-8", body: "<h1>404</h1>" };
  }
}

async function fetchUpstream(path) {
  const answer = await fetch(new URL(path, SITE));
  return { status: answer.status, type: answer.headers.get("Content-Type"), body: Buffer.from(await answer.arrayBuffer()) };
}
