//! Threads, in the package that is built for them (`web/build.sh`): workers of the browser that share one memory.
//!
//! rayon starts no threads in a browser. Workers that the page starts (`web/threads.js`) give themselves to rayon's
//! pool instead; its first thread is the worker that owns the classifier.

#[cfg(target_feature = "atomics")]
mod pool {
    use std::sync::{Condvar, Mutex};

    use rayon::{ThreadBuilder, ThreadPoolBuilder};
    use wasm_bindgen::prelude::*;

    use crate::answer::Fields;

    const UNPOISONED: &str = "a panic ends a worker at once, wherever it is";

    /// Threads of the pool that no worker runs yet.
    static WAITING: Mutex<Vec<ThreadBuilder>> = Mutex::new(vec![]);
    static ARRIVED: Condvar = Condvar::new();

    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(typescript_type = "{ module: WebAssembly.Module, memory: WebAssembly.Memory }")]
        pub type Shared;
    }

    /// What a worker gives to this package's `initSync` before it calls `runThread`.
    #[wasm_bindgen]
    pub fn shared() -> Shared {
        Fields::default().set("module", wasm_bindgen::module()).set("memory", wasm_bindgen::memory()).finish()
    }

    /// Makes one pool of the calling worker and of `others`, and waits until so many have called `runThread`.
    ///
    /// Fails with an `Error` if there is a pool already.
    #[wasm_bindgen(js_name = startPool)]
    pub fn start_pool(others: usize) -> Result<(), JsError> {
        let leave = |thread| {
            WAITING.lock().expect(UNPOISONED).push(thread);
            ARRIVED.notify_one();
            Ok(())
        };
        ThreadPoolBuilder::new().num_threads(1 + others).use_current_thread().spawn_handler(leave).build_global()?;
        Ok(())
    }

    /// Runs one of the pool's threads for as long as the worker lives.
    #[wasm_bindgen(js_name = runThread)]
    pub fn run_thread() {
        let waiting = WAITING.lock().expect(UNPOISONED);
        let thread = ARRIVED.wait_while(waiting, |waiting| waiting.is_empty()).expect(UNPOISONED).pop();
        thread.expect("the wait ends when there is one").run();
    }
}

/// How many threads share the work of the CPU path.
pub fn count() -> usize {
    #[cfg(target_feature = "atomics")]
    return rayon::current_num_threads();
    #[cfg(not(target_feature = "atomics"))]
    1
}
