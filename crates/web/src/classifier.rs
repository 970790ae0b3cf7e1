//! The classifier that JavaScript sees: the network of one bundle, ready to run.

use js_sys::Function;
use kiln_data::{ImageSet, crop_rgba, decode_image, dimensions, fill_batch};
use kiln_kernels::inference::gpu;
use kiln_model::{Bundle, InferenceNetwork, Metadata};
use wasm_bindgen::prelude::*;
use web_time::{Duration, Instant};

use crate::answer::{Answer, Fields, Timings};
use crate::engine::{Backend, Engine};

/// Classifies images with the network of one bundle. Calls must not overlap.
#[wasm_bindgen]
pub struct Classifier {
    metadata: Metadata,
    network: InferenceNetwork,
    engine: Engine,
    /// Feature map of the last image, `[C, H, W]`.
    last: Option<Vec<f32>>,
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
        let engine = Engine::new(&network.plan, wish).await?;
        report("prepare", 1.0);
        Ok(Self { metadata: bundle.metadata, network, engine, last: None })
    }

    /// The backend in use: `webgpu` or `cpu`.
    #[wasm_bindgen(getter, unchecked_return_type = "\"webgpu\" | \"cpu\"")]
    pub fn backend(&self) -> String {
        self.engine.backend().into()
    }

    /// Why that backend runs, in a sentence without a capital letter or a period.
    #[wasm_bindgen(getter)]
    pub fn reason(&self) -> String {
        self.engine.reason.clone()
    }

    /// The adapter's name or, on the CPU, the instruction set and the number of threads.
    #[wasm_bindgen(getter)]
    pub fn device(&self) -> String {
        self.engine.device()
    }

    /// Class names, in the order of the logits.
    #[wasm_bindgen(getter)]
    pub fn classes(&self) -> Vec<String> {
        self.metadata.classes.clone()
    }

    /// The bundle's metadata as an object: architecture, normalization, data and accuracy.
    #[wasm_bindgen(getter, unchecked_return_type = "Record<string, unknown>")]
    pub fn metadata(&self) -> Result<JsValue, JsError> {
        let json = serde_json::to_string(&self.metadata)?;
        js_sys::JSON::parse(&json).map_err(|_| JsError::new("the metadata is not JSON"))
    }

    /// Switches to another backend.
    #[wasm_bindgen(js_name = setBackend)]
    pub async fn set_backend(&mut self, backend: BackendName) -> Result<(), JsError> {
        self.engine = Engine::new(&self.network.plan, parse(&backend)?).await?;
        Ok(())
    }

    /// Classifies a gray image, so that one-time work does not delay the first real picture.
    #[wasm_bindgen(js_name = warmUp)]
    pub async fn warm_up(&mut self) -> Result<Timings, JsError> {
        let start = Instant::now();
        let image = vec![0.0; self.network.plan.input.iter().product()];
        let (_, timings) = self.engine.run(&self.network.plan, &image).await?;
        Ok(fields(Duration::ZERO, timings, start).finish())
    }

    /// Classifies a JPEG, PNG, WebP, GIF or BMP file, decoded by the same code as in the native tool.
    pub async fn classify(&mut self, file: &[u8]) -> Result<Answer, JsError> {
        let start = Instant::now();
        let pixels = decode_image(file, self.metadata.image_size)?;
        self.answer(pixels, dimensions(file)?, start).await
    }

    /// Classifies RGBA pixels `[H, W, 4]`, such as a camera frame or a picture that only the browser decodes.
    #[wasm_bindgen(js_name = classifyPixels)]
    pub async fn classify_pixels(&mut self, rgba: &[u8], width: u32, height: u32) -> Result<Answer, JsError> {
        let start = Instant::now();
        let pixels = crop_rgba(rgba, [width, height], self.metadata.image_size)?;
        self.answer(pixels, [width, height], start).await
    }

    /// The class activation map of the last image for any class, row-major.
    #[wasm_bindgen(js_name = classActivation)]
    pub fn class_activation(&self, class: usize) -> Result<Vec<f32>, JsError> {
        let map = self.last.as_ref().ok_or_else(|| JsError::new("no image has been classified yet"))?;
        if class >= self.metadata.classes.len() {
            let count = self.metadata.classes.len();
            return Err(JsError::new(&format!("class {class} does not exist: the network has {count} classes")));
        }
        Ok(self.network.class_activation(map, class))
    }

    /// Loses the GPU device, as a driver reset would; the next image creates a new one. For tests.
    #[wasm_bindgen(js_name = destroyDevice)]
    pub fn destroy_device(&self) {
        self.engine.destroy_device();
    }
}

impl Classifier {
    /// Classifies planar RGB pixels `[3, size, size]` of the network's input size. `picture` is the `[width, height]` of
    /// the picture they came from, and `start` is when its decoding began.
    async fn answer(&mut self, pixels: Vec<u8>, picture: [u32; 2], start: Instant) -> Result<Answer, JsError> {
        let size = self.metadata.image_size;
        let preview = rgba(&pixels);
        let set = ImageSet { height: size, width: size, images: pixels, labels: vec![0] };
        let mut image = vec![];
        fill_batch(&set, &[0], None, self.metadata.mean, self.metadata.std, &mut image);
        let decode = start.elapsed();
        let (map, timings) = self.engine.run(&self.network.plan, &image).await?;
        let prediction = self.network.predict(&map);
        let likeliest = (0..prediction.logits.len())
            .max_by(|a, b| prediction.logits[*a].total_cmp(&prediction.logits[*b]))
            .unwrap_or(0);
        let activation = self.network.class_activation(&map, likeliest);
        let [_, height, width] = self.network.feature_map();
        self.last = Some(map);
        Ok(Fields::default()
            .floats("logits", &prediction.logits)
            .floats("probabilities", &prediction.probabilities)
            .floats("features", &prediction.features)
            .floats("activation", &activation)
            .set("activationHeight", height as u32)
            .set("activationWidth", width as u32)
            .bytes("input", &preview)
            .set("inputSize", size as u32)
            .set("pictureWidth", picture[0])
            .set("pictureHeight", picture[1])
            .set("timings", fields(decode, timings, start).finish::<JsValue>())
            .finish())
    }
}

fn fields(decode: Duration, timings: gpu::Timings, start: Instant) -> Fields {
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
