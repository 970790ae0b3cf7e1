//! One picture's answer, wherever it is asked for: the command, the report, the tests and the page.

use kiln_data::{DecodeError, crop_rgb, crop_rgba, decode_image, normalize};
use kiln_infer::gpu::Adapter;
use kiln_infer::{CpuExecutor, Executor, GpuError, PlanError, Timings};
use kiln_infer::{GpuExecutor, Precision};

use crate::{Bundle, BundleError, InferenceError, InferenceNetwork, Metadata};

/// A trained network, ready to classify pictures.
///
/// It runs the network as a plan of fused convolutions ([`InferenceNetwork`]), on a CPU or on a GPU, natively and in a
/// browser. A picture takes this way: decode, cut out the middle square, resize to the network's size (triangle filter;
/// or as [`Metadata::preprocessing`] says), normalize as the bundle says, run.
pub struct Predictor {
    metadata: Metadata,
    network: InferenceNetwork,
    executor: Executor,
}

/// Pixels of a picture, row by row from the top, 8 bits a channel.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// `[H, W, 3]`, with width and height.
    Rgb(&'a [u8], [u32; 2]),
    /// `[H, W, 4]`, with width and height, not premultiplied. They are composed over white.
    Rgba(&'a [u8], [u32; 2]),
}

/// What a network says about one picture.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Class scores before softmax, `[classes]`.
    pub logits: Vec<f32>,
    /// Softmax of the logits, `[classes]`.
    pub probabilities: Vec<f32>,
    /// What the head sees, `[C]`: the mean of each map of `feature_map`.
    pub features: Vec<f32>,
    /// The last feature map, `[C, H', W']`.
    pub feature_map: Vec<f32>,
    /// Where the time went.
    pub timings: Timings,
}

/// Why a network cannot be loaded, or a picture not be classified.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl Predictor {
    /// The bundle's network on the CPU.
    ///
    /// # Errors
    /// If the network needs too much memory for an image, or its parts do not fit.
    pub fn new(bundle: Bundle) -> Result<Self, PredictError> {
        let network = bundle.inference()?;
        let executor = Executor::Cpu(Box::new(CpuExecutor::new(network.plan.clone())?));
        Ok(Self { metadata: bundle.metadata, network, executor })
    }

    /// The bundle's network on a GPU, numbers stored as suits the adapter.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the device cannot hold or compile it.
    pub async fn on_gpu(bundle: Bundle, adapter: &Adapter) -> Result<Self, PredictError> {
        let network = bundle.inference()?;
        let precision: Precision = adapter.variants().precision;
        let executor = Executor::Gpu(Box::new(GpuExecutor::new(adapter, &network.plan, precision).await?));
        Ok(Self { metadata: bundle.metadata, network, executor })
    }

    /// A network with the executor that was made for its plan.
    pub fn with(metadata: Metadata, network: InferenceNetwork, executor: Executor) -> Self {
        Self { metadata, network, executor }
    }

    /// Everything of the bundle but its weights.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The network's plan and head.
    pub fn network(&self) -> &InferenceNetwork {
        &self.network
    }

    /// What runs the plan.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Switches to another executor of [`network`](Self::network)'s plan.
    pub fn set_executor(&mut self, executor: Executor) {
        self.executor = executor;
    }

    /// Decodes an image file and brings it to the network's size: planar RGB `[3, image_size, image_size]`.
    ///
    /// # Errors
    /// As [`decode_image`].
    pub fn decode(&self, file: &[u8]) -> Result<Vec<u8>, DecodeError> {
        decode_image(file, self.metadata.input())
    }

    /// Brings decoded pixels to the network's size, as [`decode`](Self::decode) does with a file's.
    ///
    /// # Errors
    /// If there are no pixels, too many, or fewer than width and height say.
    pub fn crop(&self, pixels: Pixels) -> Result<Vec<u8>, DecodeError> {
        match pixels {
            Pixels::Rgb(pixels, size) => crop_rgb(pixels, size, self.metadata.input()),
            Pixels::Rgba(pixels, size) => crop_rgba(pixels, size, self.metadata.input()),
        }
    }

    /// Classifies planar RGB `[3, image_size, image_size]`, such as [`decode`](Self::decode) and [`crop`](Self::crop)
    /// make. Calls must not overlap.
    ///
    /// # Errors
    /// If a GPU is lost or refuses the work; another executor ([`set_executor`](Self::set_executor)) may do better.
    ///
    /// # Panics
    /// If there are more or fewer pixels.
    pub async fn predict(&mut self, pixels: &[u8]) -> Result<Prediction, GpuError> {
        let image = normalize(pixels, self.metadata.mean, self.metadata.std);
        let (feature_map, timings) = self.executor.run(&image).await?;
        Ok(Prediction { timings, ..self.network.predict(feature_map) })
    }

    /// Classifies many pictures, each as [`predict`](Self::predict) does: on a CPU together, so that all cores have work.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    ///
    /// # Panics
    /// As [`predict`](Self::predict).
    pub async fn predict_batch(&mut self, pictures: &[Vec<u8>]) -> Result<Vec<Prediction>, GpuError> {
        let Metadata { mean, std, .. } = self.metadata;
        if let Executor::Cpu(executor) = &mut self.executor {
            let images: Vec<f32> = pictures.iter().flat_map(|pixels| normalize(pixels, mean, std)).collect();
            let maps = executor.run(&images);
            let len: usize = self.network.feature_map().iter().product();
            return Ok(maps.chunks_exact(len).map(|map| self.network.predict(map.to_vec())).collect());
        }
        let mut predictions = Vec::with_capacity(pictures.len());
        for pixels in pictures {
            predictions.push(self.predict(pixels).await?);
        }
        Ok(predictions)
    }

    /// Where the evidence for a class lies in a picture (class activation map, Zhou et al.,
    /// <https://arxiv.org/abs/1512.04150>): `[H', W']`, [`activation_size`](Self::activation_size).
    ///
    /// # Panics
    /// If there is no such class.
    pub fn activation(&self, prediction: &Prediction, class: usize) -> Vec<f32> {
        self.network.class_activation(&prediction.feature_map, class)
    }

    /// Height and width of an activation.
    pub fn activation_size(&self) -> [usize; 2] {
        let [_, height, width] = self.network.feature_map();
        [height, width]
    }
}

/// Natively, where a thread may wait.
#[cfg(not(target_family = "wasm"))]
impl Predictor {
    /// Opens a bundle's file on the CPU.
    ///
    /// # Errors
    /// If the file cannot be read, is larger than 2 GiB, or is not a whole bundle.
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, PredictError> {
        Self::new(Bundle::open(path)?)
    }

    /// Decodes and classifies a picture's file.
    ///
    /// # Errors
    /// If the file cannot be read or decoded, or a GPU fails.
    pub fn classify_file(&mut self, path: impl AsRef<std::path::Path>) -> Result<Prediction, PredictError> {
        let pixels = kiln_data::decode_image_file(path.as_ref(), self.metadata.input())?;
        Ok(pollster::block_on(self.predict(&pixels))?)
    }

    /// Classifies decoded pixels.
    ///
    /// # Errors
    /// If the pixels do not fit their size, or a GPU fails.
    pub fn classify(&mut self, pixels: Pixels) -> Result<Prediction, PredictError> {
        let pixels = self.crop(pixels)?;
        Ok(pollster::block_on(self.predict(&pixels))?)
    }
}

impl Prediction {
    /// The class that scored highest, the first of equals.
    pub fn class(&self) -> usize {
        (0..self.logits.len()).rev().max_by(|a, b| self.logits[*a].total_cmp(&self.logits[*b])).unwrap_or(0)
    }

    /// Classes and probabilities of the `k` likeliest, likeliest first.
    pub fn top(&self, k: usize) -> Vec<(usize, f32)> {
        let mut ranked: Vec<_> = self.probabilities.iter().copied().enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(k);
        ranked
    }
}

#[cfg(all(test, feature = "burn"))]
mod tests {
    use kiln_data::{Interpolation, Preprocessing};

    use super::*;
    use crate::{Architecture, ResNetConfig};

    /// A network of random weights for pictures of 8 pixels a side.
    fn predictor() -> Predictor {
        let architecture = Architecture::ResNet(ResNetConfig { width: 2, ..ResNetConfig::new(18, 3) });
        let state = architecture.init(1, &burn::tensor::Device::flex()).unwrap().state_dict();
        let metadata = Metadata {
            architecture,
            classes: ["a", "b", "c"].map(String::from).to_vec(),
            image_size: 8,
            mean: [0.5; 3],
            std: [0.25; 3],
            dataset: "synthetic".into(),
            dataset_digest: "0".into(),
            accuracy: None,
            accuracy_split: None,
            accuracy_samples: None,
            recipe: "quick".into(),
            seed: 0,
            kiln_version: "0".into(),
            preprocessing: None,
            quantisation: None,
        };
        Predictor::new(Bundle { metadata, state }).unwrap()
    }

    #[test]
    fn rgb_and_rgba_pixels_give_the_same_answer() {
        let mut predictor = predictor();
        let rgb: Vec<u8> = (0..20 * 12 * 3).map(|at| (at * 37 % 251) as u8).collect();
        let rgba: Vec<u8> = rgb.chunks(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect();
        let found = predictor.classify(Pixels::Rgb(&rgb, [20, 12])).unwrap();
        let same = predictor.classify(Pixels::Rgba(&rgba, [20, 12])).unwrap();
        assert_eq!(found.logits, same.logits);
        assert_eq!(found.top(2)[0].0, found.class());
        let pictures = [&rgb[..192], &rgb[200..392]].map(<[u8]>::to_vec);
        let together = pollster::block_on(predictor.predict_batch(&pictures)).unwrap();
        for (picture, together) in pictures.iter().zip(together) {
            assert_eq!(pollster::block_on(predictor.predict(picture)).unwrap().logits, together.logits);
        }
        assert_eq!(predictor.activation(&found, 1).len(), predictor.activation_size().iter().product::<usize>());
        assert!(predictor.classify(Pixels::Rgb(&rgb, [20, 13])).is_err(), "too few pixels");
    }

    #[test]
    fn a_picture_is_brought_to_size_as_the_bundle_says() {
        let mut predictor = predictor();
        let rgb: Vec<u8> = (0..20 * 12 * 3).map(|at| (at * 37 % 251) as u8).collect();
        let square = predictor.classify(Pixels::Rgb(&rgb, [20, 12])).unwrap();
        predictor.metadata.preprocessing = Some(Preprocessing { resize: 10, interpolation: Interpolation::Bilinear });
        let cut = predictor.classify(Pixels::Rgb(&rgb, [20, 12])).unwrap();
        assert_ne!(square.logits, cut.logits);
        let pixels = crop_rgb(&rgb, [20, 12], predictor.metadata.input()).unwrap();
        assert_eq!(pollster::block_on(predictor.predict(&pixels)).unwrap().logits, cut.logits);
    }
}
