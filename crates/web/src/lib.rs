//! Kiln's interface for web pages: a `Classifier` built from the bytes of a bundle.
//!
//! Run it in a worker. One executor is active at a time: WebGPU with Kiln's shaders, or the CPU with
//! WebAssembly SIMD, on several threads in the package built for them.
#![cfg(target_family = "wasm")]

mod answer;
mod classifier;
mod engine;
mod threads;

pub use classifier::Classifier;
pub use engine::Backend;

use wasm_bindgen::prelude::wasm_bindgen;

/// Logs a panic's message to the console, where the browser would show only `unreachable`.
#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}
