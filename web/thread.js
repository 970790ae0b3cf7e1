// One extra thread of the wasm package, started by the worker that owns the package (threads.js).
//
// In:  {script, module, memory}, once.
// Out: {} once it has started, or {fault}, the reason why it could not. A later crash goes straight to the page, on the
//      BroadcastChannel with this worker's name, because the owner is then blocked waiting for this thread.

addEventListener("message", async ({ data: { script, module, memory } }) => {
  let wasm;
  try {
    wasm = await import(script);
    wasm.initSync({ module, memory });
  } catch (error) {
    postMessage({ fault: error.message });
    return;
  }
  postMessage({});
  try {
    wasm.runThread();
  } catch (error) {
    new BroadcastChannel(self.name).postMessage(error.message);
  }
}, { once: true });
