//! Threads, in the package built for them (`web/build.sh`): browser workers that share one memory.
//!
//! rayon cannot start threads in a browser. Workers that the page starts (`web/threads.js`) join rayon's pool instead;
//! the pool's first thread is the worker that owns the classifier.

#[cfg(target_feature = "atomics")]
mod pool {
    use std::sync::{Condvar, Mutex};

    use rayon::{ThreadBuilder, ThreadPoolBuilder};
    use wasm_bindgen::prelude::*;

    use crate::answer::Fields;

    const UNPOISONED: &str = "a panic stops the worker before it can unlock the mutex";

    /// Threads of the pool that no worker has taken yet.
    static WAITING: Mutex<Vec<ThreadBuilder>> = Mutex::new(vec![]);
    static ARRIVED: Condvar = Condvar::new();

    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(typescript_type = "{ module: WebAssembly.Module, memory: WebAssembly.Memory }")]
        pub type Shared;
    }

    /// What a worker passes to this package's `initSync` before it calls `runThread`.
    #[wasm_bindgen]
    pub fn shared() -> Shared {
        Fields::default().set("module", wasm_bindgen::module()).set("memory", wasm_bindgen::memory()).finish()
    }

    /// Builds one pool from the calling worker and `others` more, and waits until that many have called `runThread`.
    ///
    /// Throws an `Error` if a pool already exists.
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

    /// Runs one of the pool's threads until the worker ends.
    #[wasm_bindgen(js_name = runThread)]
    pub fn run_thread() {
        let waiting = WAITING.lock().expect(UNPOISONED);
        let thread = ARRIVED.wait_while(waiting, |waiting| waiting.is_empty()).expect(UNPOISONED).pop();
        thread.expect("the wait ends only when a thread is in the queue").run();
    }
}

/// The number of threads that share the work of the CPU path.
pub fn count() -> usize {
    #[cfg(target_feature = "atomics")]
    return rayon::current_num_threads();
    #[cfg(not(target_feature = "atomics"))]
    1
}
