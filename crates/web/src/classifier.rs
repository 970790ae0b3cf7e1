//! The classifier that JavaScript sees: the network of one bundle, ready to run.

use std::sync::Arc;

use js_sys::Function;
use kiln_data::dimensions;
use kiln_infer::{Executor, Plan, Timings as RunTimings};
use kiln_model::{Bundle, Pixels, Prediction, Predictor};
use wasm_bindgen::prelude::*;
use web_time::{Duration, Instant};

use crate::answer::{Answer, Fields, Timings};
use crate::engine::{self, Backend};

/// Classifies images with the network of one bundle. Calls must not overlap.
#[wasm_bindgen]
pub struct Classifier {
    predictor: Predictor,
    reason: String,
    /// Answer to the last image.
    last: Option<Prediction>,
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(typescript_type = "Backend")]
    pub type BackendName;
    #[wasm_bindgen(typescript_type = "(stage: \"read\" | \"prepare\", fraction: number) => void")]
    pub type OnProgress;
}

#[wasm_bindgen]
impl Classifier {
    /// Reads a bundle (f32, f16 or int8), checks its digest and prepares its network to run.
    ///
    /// Throws an `Error` if the bytes are not a complete bundle. An unavailable backend is not an error:
    /// `backend` and `reason` then say what runs instead.
    pub async fn load(
        bundle: &[u8],
        backend: BackendName,
        progress: Option<OnProgress>,
    ) -> Result<Classifier, JsError> {
        let wish = parse(&backend)?;
        let report = |stage: &str, fraction: f64| {
            if let Some(progress) = &progress {
                // An exception in the page's progress callback must not stop the loading.
                let _ = progress.unchecked_ref::<Function>().call2(&JsValue::NULL, &stage.into(), &fraction.into());
            }
        };
        report("read", 0.0);
        let bundle = Bundle::from_bytes(bundle)?;
        report("read", 1.0);
        report("prepare", 0.0);
        let network = bundle.inference()?;
        report("prepare", 0.5);
        let (executor, reason) = engine::choose(&network.plan, wish).await?;
        report("prepare", 1.0);
        Ok(Self { predictor: Predictor::with(bundle.metadata, network, executor), reason, last: None })
    }

    /// The backend in use: `webgpu` or `cpu`.
    #[wasm_bindgen(getter, unchecked_return_type = "\"webgpu\" | \"cpu\"")]
    pub fn backend(&self) -> String {
        engine::backend(self.predictor.executor()).into()
    }

    /// Why that backend runs, in a sentence without a capital letter or a period.
    #[wasm_bindgen(getter)]
    pub fn reason(&self) -> String {
        self.reason.clone()
    }

    /// The adapter's name or, on the CPU, the instruction set and the number of threads.
    #[wasm_bindgen(getter)]
    pub fn device(&self) -> String {
        engine::device(self.predictor.executor())
    }

    /// Class names, in the order of the logits.
    #[wasm_bindgen(getter)]
    pub fn classes(&self) -> Vec<String> {
        self.predictor.metadata().classes.clone()
    }

    /// The bundle's metadata as an object: architecture, normalization, data and accuracy.
    #[wasm_bindgen(getter, unchecked_return_type = "Record<string, unknown>")]
    pub fn metadata(&self) -> Result<JsValue, JsError> {
        let json = serde_json::to_string(self.predictor.metadata())?;
        js_sys::JSON::parse(&json).map_err(|_| JsError::new("the metadata is not JSON"))
    }

    /// Switches to another backend.
    #[wasm_bindgen(js_name = setBackend)]
    pub async fn set_backend(&mut self, backend: BackendName) -> Result<(), JsError> {
        let (executor, reason) = engine::choose(self.plan(), parse(&backend)?).await?;
        self.predictor.set_executor(executor);
        self.reason = reason;
        Ok(())
    }

    /// Classifies a gray image, so that one-time work does not delay the first real picture.
    #[wasm_bindgen(js_name = warmUp)]
    pub async fn warm_up(&mut self) -> Result<Timings, JsError> {
        let start = Instant::now();
        let gray = vec![128; self.plan().input.iter().product()];
        let prediction = self.predict(&gray).await?;
        Ok(fields(Duration::ZERO, prediction.timings, start).finish())
    }

    /// Classifies a JPEG, PNG, WebP, GIF or BMP file, decoded by the same code as in the native tool.
    pub async fn classify(&mut self, file: &[u8]) -> Result<Answer, JsError> {
        let start = Instant::now();
        let pixels = self.predictor.decode(file)?;
        self.answer(pixels, dimensions(file)?, start).await
    }

    /// Classifies RGBA pixels `[H, W, 4]`, such as a camera frame or a picture that only the browser decodes. They are
    /// composed over white, and not premultiplied.
    #[wasm_bindgen(js_name = classifyPixels)]
    pub async fn classify_pixels(&mut self, rgba: &[u8], width: u32, height: u32) -> Result<Answer, JsError> {
        let start = Instant::now();
        let pixels = self.predictor.crop(Pixels::Rgba(rgba, [width, height]))?;
        self.answer(pixels, [width, height], start).await
    }

    /// The class activation map of the last image for any class, row-major.
    #[wasm_bindgen(js_name = classActivation)]
    pub fn class_activation(&self, class: usize) -> Result<Vec<f32>, JsError> {
        let last = self.last.as_ref().ok_or_else(|| JsError::new("no image has been classified yet"))?;
        let classes = self.predictor.metadata().classes.len();
        if class >= classes {
            return Err(JsError::new(&format!("class {class} does not exist: the network has {classes} classes")));
        }
        Ok(self.predictor.activation(last, class))
    }

    /// Loses the GPU device, as a driver reset would; the next image creates a new one. For tests.
    #[wasm_bindgen(js_name = destroyDevice)]
    pub fn destroy_device(&self) {
        if let Executor::Gpu(executor) = self.predictor.executor() {
            executor.destroy();
        }
    }
}

impl Classifier {
    fn plan(&self) -> &Arc<Plan> {
        &self.predictor.network().plan
    }

    /// After a device was lost, the answer comes from a new one, or from the CPU if there is none.
    async fn predict(&mut self, pixels: &[u8]) -> Result<Prediction, JsError> {
        let error = match self.predictor.predict(pixels).await {
            Ok(prediction) => return Ok(prediction),
            Err(error) => error,
        };
        let (executor, reason) = engine::replace(self.plan(), &error).await?;
        self.predictor.set_executor(executor);
        self.reason = reason;
        let again = match self.predictor.predict(pixels).await {
            Ok(prediction) => return Ok(prediction),
            Err(again) => again,
        };
        let (executor, reason) = engine::cpu(self.plan(), format!("WebGPU failed twice: {error}; {again}"))?;
        self.predictor.set_executor(executor);
        self.reason = reason;
        Ok(self.predictor.predict(pixels).await?)
    }

    /// For planar RGB pixels of the network's size, decoded since `start` from a picture `[width, height]`.
    async fn answer(&mut self, pixels: Vec<u8>, picture: [u32; 2], start: Instant) -> Result<Answer, JsError> {
        let decode = start.elapsed();
        let prediction = self.predict(&pixels).await?;
        let activation = self.predictor.activation(&prediction, prediction.class());
        let [height, width] = self.predictor.activation_size();
        let answer = Fields::default()
            .floats("logits", &prediction.logits)
            .floats("probabilities", &prediction.probabilities)
            .floats("features", &prediction.features)
            .floats("activation", &activation)
            .set("activationHeight", height as u32)
            .set("activationWidth", width as u32)
            .bytes("input", &rgba(&pixels))
            .set("inputSize", self.predictor.metadata().image_size as u32)
            .set("pictureWidth", picture[0])
            .set("pictureHeight", picture[1])
            .set("timings", fields(decode, prediction.timings, start).finish::<JsValue>())
            .finish();
        self.last = Some(prediction);
        Ok(answer)
    }
}

fn fields(decode: Duration, timings: RunTimings, start: Instant) -> Fields {
    Fields::default()
        .milliseconds("decode", decode)
        .milliseconds("upload", timings.upload)
        .milliseconds("compute", timings.compute)
        .milliseconds("readBack", timings.read_back)
        .milliseconds("total", start.elapsed())
}

fn parse(backend: &BackendName) -> Result<Backend, JsError> {
    let name = backend.unchecked_ref::<JsValue>().as_string();
    let wish = name.as_deref().and_then(Backend::parse);
    wish.ok_or_else(|| JsError::new("unknown backend: choose auto, webgpu or cpu"))
}

/// Planar RGB `[3, H, W]` to RGBA `[H, W, 4]`.
fn rgba(planar: &[u8]) -> Vec<u8> {
    let area = planar.len() / 3;
    (0..area).flat_map(|at| [planar[at], planar[area + at], planar[2 * area + at], 255]).collect()
}
