//! What a page sees of Kiln: a `Classifier` made of a bundle's bytes.
//!
//! Everything is meant to run in a worker. There is one executor at a time: WebGPU with Kiln's
//! shaders, or the CPU with WebAssembly's SIMD, on several threads in the package that is built for them.
#![cfg(target_family = "wasm")]

mod answer;
mod classifier;
mod engine;
mod threads;

pub use classifier::Classifier;
pub use engine::Backend;

use wasm_bindgen::prelude::wasm_bindgen;

/// Puts a panic's message into the console, where the browser would show `unreachable`.
#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
}
