// One more thread of the wasm package, for the worker that started this one (threads.js).
//
// In:  {script, module, memory}, once.
// Out: {}, or {fault}, the reason why it does not start. What stops it later goes to the page, on the channel of this
//      worker's name: the worker that owns the package waits for this one by then.

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
