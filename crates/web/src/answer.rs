//! Answers as plain JavaScript objects, which a worker can post.

use std::time::Duration;

use js_sys::{Float32Array, Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** What runs the network. `auto`: WebGPU on real hardware, otherwise the CPU. */
export type Backend = "auto" | "webgpu" | "cpu";

/** Milliseconds of each part of one classification. On the CPU nothing is uploaded or read back. */
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
    probabilities: Float32Array;
    /** What the head sees: the last feature map's mean. */
    features: Float32Array;
    /** Where the evidence for the likeliest class lies, row by row. */
    activation: Float32Array;
    activationHeight: number;
    activationWidth: number;
    /** The image as the network saw it: RGBA, `inputSize` pixels a side. */
    input: Uint8Array;
    inputSize: number;
    /** Of the whole picture, upright. */
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

/// An object under construction.
#[derive(Default)]
pub struct Fields(Object);

impl Fields {
    pub fn set(self, name: &str, value: impl Into<JsValue>) -> Self {
        Reflect::set(&self.0, &name.into(), &value.into()).expect("a plain object takes any field");
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
