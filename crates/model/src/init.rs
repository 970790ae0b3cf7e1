//! Initial weights, drawn on the host so that one seed gives the same network on every device.

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::Init;

/// Draws the parameters of one network, in the order in which its layers are made.
pub(crate) struct Initializer<'a> {
    rng: ChaCha8Rng,
    init: Init,
    device: &'a Device,
}

impl<'a> Initializer<'a> {
    pub fn new(init: Init, seed: u64, device: &'a Device) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), init, device }
    }

    /// Convolution weight `[out, in, k, k]`, Kaiming normal for ReLU (He et al. 2015).
    pub fn conv(&mut self, [out, input, kernel, _]: [usize; 4]) -> Tensor<4> {
        let channels = match self.init {
            Init::KaimingFanOut | Init::Whitening => out,
            Init::KaimingFanIn => input,
        };
        let fan = channels * kernel * kernel;
        self.normal([out, input, kernel, kernel], (2.0 / fan as f32).sqrt())
    }

    /// Head weight `[classes, features]`.
    pub fn linear(&mut self, [classes, features]: [usize; 2]) -> Tensor<2> {
        let deviation = match self.init {
            Init::KaimingFanOut | Init::Whitening => 0.01,
            Init::KaimingFanIn => (2.0 / features as f32).sqrt(),
        };
        self.normal([classes, features], deviation)
    }

    pub fn zeros(&self, len: usize) -> Tensor<1> {
        Tensor::zeros([len], self.device)
    }

    pub fn ones(&self, len: usize) -> Tensor<1> {
        Tensor::ones([len], self.device)
    }

    /// A weight from N(0, `deviation`²).
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f32) -> Tensor<D> {
        let normal = Normal::new(0.0, deviation).expect("a positive standard deviation");
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal.sample(&mut self.rng)).collect();
        Tensor::from_data(TensorData::new(values, shape), self.device)
    }
}
