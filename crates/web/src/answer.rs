//! Answers as plain JavaScript objects, which a worker can post to the page.

use std::time::Duration;

use js_sys::{Float32Array, Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** What runs the network. `auto`: WebGPU on a hardware GPU, otherwise the CPU. */
export type Backend = "auto" | "webgpu" | "cpu";

/** Milliseconds spent in each stage of one classification. `upload` and `readBack` are 0 on the CPU. */
export interface Timings {
    decode: number;
    upload: number;
    compute: number;
    readBack: number;
    total: number;
}

export interface Answer {
    /** Scores before softmax, in the order of `classes`. */
    logits: Float32Array;
    /** Softmax of `logits`. */
    probabilities: Float32Array;
    /** The classification head's input: the last feature map, averaged over its positions. */
    features: Float32Array;
    /** Class activation map of the most likely class, row-major [activationHeight, activationWidth]. */
    activation: Float32Array;
    activationHeight: number;
    activationWidth: number;
    /** The network's input as RGBA, `inputSize` pixels per side. */
    input: Uint8Array;
    inputSize: number;
    /** Size in pixels of the whole picture, after its orientation was applied. */
    pictureWidth: number;
    pictureHeight: number;
    timings: Timings;
}
"#;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(typescript_type = "Answer")]
    pub type Answer;
    #[wasm_bindgen(typescript_type = "Timings")]
    pub type Timings;
}

/// Builds a JavaScript object field by field.
#[derive(Default)]
pub struct Fields(Object);

impl Fields {
    pub fn set(self, name: &str, value: impl Into<JsValue>) -> Self {
        Reflect::set(&self.0, &name.into(), &value.into()).expect("a plain object accepts any field");
        self
    }

    pub fn floats(self, name: &str, values: &[f32]) -> Self {
        self.set(name, Float32Array::from(values))
    }

    pub fn bytes(self, name: &str, values: &[u8]) -> Self {
        self.set(name, Uint8Array::from(values))
    }

    pub fn milliseconds(self, name: &str, duration: Duration) -> Self {
        self.set(name, 1000.0 * duration.as_secs_f64())
    }

    pub fn finish<T: JsCast>(self) -> T {
        self.0.unchecked_into()
    }
}
