//! The network itself, read from top to bottom.

use burn::module::{Module, RunningState};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Int, Tensor};
use kiln_kernels::{self as kernels, Precision};

use crate::init::Initializer;
use crate::layers::{Conv2d, Linear, Norm};
use crate::network::is_finite;
use crate::{ConfigError, ResNetConfig, Shortcut, Stem};

/// A residual network for classification; made by [`ResNetConfig::init`].
///
/// On a device with autodiff it trains: batch normalization uses batch statistics and updates the
/// running ones. [`Module::valid`] gives the network for evaluation.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: Norm,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    fc: Linear,
    #[module(skip)]
    config: ResNetConfig,
}

/// One residual block: basic (two 3x3 convolutions) or, with a third convolution, a bottleneck.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    bn1: Norm,
    conv2: Conv2d,
    bn2: Norm,
    conv3: Option<Conv2d>,
    bn3: Option<Norm>,
    downsample: Option<Downsample>,
}

/// The shortcut of a block that changes the shape.
#[derive(Module, Debug)]
struct Downsample {
    conv: Conv2d,
    norm: Option<Norm>,
}

impl ResNetConfig {
    /// Makes the network with weights drawn from `seed`, the same on every device.
    pub fn init(&self, seed: u64, device: &Device) -> Result<ResNet, ConfigError> {
        self.validate()?;
        let init = &mut Initializer::new(self.init, seed, device);
        let stem = self.stem_channels();
        let conv1 = match self.stem {
            Stem::Cifar => Conv2d::new(init, [3, stem], 3, 1),
            Stem::Imagenet => Conv2d::new(init, [3, stem], 7, 2),
            Stem::Compact => Conv2d::new(init, [3, stem], 3, 1).with_bias(init),
        };
        let bn1 = Norm::new(init, self, stem);
        let mut channels = stem;
        let mut stage = |index: usize| -> Vec<Block> {
            let (mid, first_stride) = self.stage(index);
            (0..self.blocks()[index])
                .map(|block| {
                    let stride = if block == 0 { first_stride } else { 1 };
                    let made = Block::new(init, self, channels, mid, stride);
                    channels = mid * self.expansion();
                    made
                })
                .collect()
        };
        let [layer1, layer2, layer3, layer4] = [0, 1, 2, 3].map(&mut stage);
        let fc = Linear::new(init, self.feature_channels(), self.classes);
        Ok(ResNet { conv1, bn1, layer1, layer2, layer3, layer4, fc, config: self.clone() })
    }
}

impl Block {
    fn new(init: &mut Initializer, config: &ResNetConfig, input: usize, mid: usize, stride: usize) -> Self {
        let output = mid * config.expansion();
        // torchvision puts a bottleneck's stride on its 3x3 convolution ("ResNet v1.5").
        let (conv1, conv2, conv3) = if config.is_bottleneck() {
            (
                Conv2d::new(init, [input, mid], 1, 1),
                Conv2d::new(init, [mid, mid], 3, stride),
                Some(Conv2d::new(init, [mid, output], 1, 1)),
            )
        } else {
            (Conv2d::new(init, [input, mid], 3, stride), Conv2d::new(init, [mid, mid], 3, 1), None)
        };
        let downsample = (stride != 1 || input != output).then(|| Downsample {
            conv: Conv2d::new(init, [input, output], 1, stride),
            norm: (config.shortcut == Shortcut::ProjectionNorm).then(|| Norm::new(init, config, output)),
        });
        Self {
            conv1,
            bn1: Norm::new(init, config, mid),
            conv2,
            bn2: Norm::new(init, config, mid),
            bn3: conv3.is_some().then(|| Norm::new(init, config, output)),
            conv3,
            downsample,
        }
    }

    /// `[N, in, H, W]` -> `[N, out, H / stride, W / stride]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (x, shortcut) = kernels::fork(x);
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(shortcut),
            None => shortcut,
        };
        let x = self.bn1.forward(self.conv1.forward(x), true);
        let x = match (&self.conv3, &self.bn3) {
            (Some(conv3), Some(bn3)) => {
                let x = self.bn2.forward(self.conv2.forward(x), true);
                bn3.forward(conv3.forward(x), false)
            }
            _ => self.bn2.forward(self.conv2.forward(x), false),
        };
        kernels::add_relu(x, shortcut)
    }
}

impl Downsample {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv.forward(x);
        match &self.norm {
            Some(norm) => norm.forward(x, false),
            None => x,
        }
    }
}

impl Block {
    fn norms(&self) -> impl Iterator<Item = &Norm> {
        let shortcut = self.downsample.as_ref().and_then(|downsample| downsample.norm.as_ref());
        [&self.bn1, &self.bn2].into_iter().chain(&self.bn3).chain(shortcut)
    }

    fn convolutions(&mut self) -> impl Iterator<Item = &mut Conv2d> {
        let shortcut = self.downsample.as_mut().map(|downsample| &mut downsample.conv);
        [&mut self.conv1, &mut self.conv2].into_iter().chain(self.conv3.as_mut()).chain(shortcut)
    }
}

impl ResNet {
    /// The same network with convolutions of another precision, trained or not.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.conv1.precision = precision;
        let stages = [&mut self.layer1, &mut self.layer2, &mut self.layer3, &mut self.layer4];
        for convolution in stages.into_iter().flatten().flat_map(Block::convolutions) {
            convolution.precision = precision;
        }
        self
    }

    /// The running statistics of every norm, in an order that is always the same: what a forward pass changes where
    /// the network trains.
    pub fn running_statistics(&self) -> Vec<Tensor<1>> {
        self.statistics().map(RunningState::value_sync).collect()
    }

    /// Puts back what [`running_statistics`](Self::running_statistics) gave.
    ///
    /// # Panics
    /// If they are those of another network.
    pub fn restore_running_statistics(&self, statistics: Vec<Tensor<1>>) {
        let own: Vec<_> = self.statistics().collect();
        assert_eq!(own.len(), statistics.len(), "running statistics of another network");
        for (own, value) in own.into_iter().zip(statistics) {
            // What the forward pass left to be taken in is taken in first, and then replaced.
            own.value_sync();
            own.update(value);
        }
    }

    fn statistics(&self) -> impl Iterator<Item = &RunningState<Tensor<1>>> {
        let blocks = self.stages().flat_map(|(_, blocks)| blocks);
        std::iter::once(&self.bn1).chain(blocks.flat_map(Block::norms)).flat_map(Norm::statistics)
    }

    fn stages(&self) -> impl Iterator<Item = (&'static str, &Vec<Block>)> {
        [("layer1", &self.layer1), ("layer2", &self.layer2), ("layer3", &self.layer3), ("layer4", &self.layer4)]
            .into_iter()
    }

    /// The first part of the network, by its name in a state dict, whose output for these images
    /// `[N, 3, H, W]` is not finite; `None` if all are. Waits for the device after each part.
    pub async fn first_non_finite(&self, images: Tensor<4>) -> Option<String> {
        let mut x = self.stem(images);
        if !is_finite(x.clone()).await {
            return Some("conv1".to_owned());
        }
        for (stage, blocks) in self.stages() {
            for (index, block) in blocks.iter().enumerate() {
                x = block.forward(x);
                if !is_finite(x.clone()).await {
                    return Some(format!("{stage}.{index}"));
                }
            }
        }
        let logits = self.classify(kernels::global_average_pool(x));
        (!is_finite(logits).await).then(|| "fc".to_owned())
    }

    /// What this network is made of.
    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// Class scores before softmax: `[N, 3, H, W]` -> `[N, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.classify(self.features(images))
    }

    /// The head alone: features `[N, features]` -> `[N, classes]`.
    pub fn classify(&self, features: Tensor<2>) -> Tensor<2> {
        self.fc.forward(features)
    }

    /// What the head sees: `[N, 3, H, W]` -> `[N, features]`.
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        kernels::global_average_pool(self.feature_map(images))
    }

    /// Where the evidence for one class a sample lies (Zhou et al., <https://arxiv.org/abs/1512.04150>):
    /// images `[N, 3, H, W]` and class indices `[N]` -> `[N, H', W']`. Its mean over the map is the
    /// class's logit less the head's bias.
    pub fn class_activation(&self, images: Tensor<4>, classes: Tensor<1, Int>) -> Tensor<3> {
        let map = self.feature_map(images); // [N, C, H', W']
        let weight = self.fc.weight.val().select(0, classes); // [N, C]
        let [n, channels] = weight.dims();
        (map * weight.reshape([n, channels, 1, 1])).sum_dim(1).squeeze_dim(1)
    }

    /// The last stage's output: `[N, 3, H, W]` -> `[N, features, H', W']`.
    fn feature_map(&self, images: Tensor<4>) -> Tensor<4> {
        self.stages().flat_map(|(_, blocks)| blocks).fold(self.stem(images), |x, block| block.forward(x))
    }

    /// `[N, 3, H, W]` -> `[N, stem, H, W]`, or a quarter of that size with ImageNet's stem.
    fn stem(&self, images: Tensor<4>) -> Tensor<4> {
        let x = self.bn1.forward(self.conv1.forward(images), true);
        match self.config.stem {
            Stem::Imagenet => max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1])),
            Stem::Cifar | Stem::Compact => x,
        }
    }
}
