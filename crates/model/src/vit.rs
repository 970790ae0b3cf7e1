//! The vision transformer, read from top to bottom; parameters bear timm's names.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};

use crate::init::Initializer;
use crate::layers::Linear;
use crate::network::is_finite;
use crate::{ConfigError, Init, VitConfig};

/// Added to the variance before its root, as in timm.
const EPSILON: f64 = 1e-6;
/// Standard deviation of all weights at the start, as in timm.
const DEVIATION: f32 = 0.02;

/// A vision transformer for classification; made by [`VitConfig::init`].
///
/// Tensors of tokens are `[N, T, C]`, the tokens row by row of the image.
#[derive(Module, Debug)]
pub struct Vit {
    patch_embed: PatchEmbed,
    /// `[1, T, C]`
    pos_embed: Param<Tensor<3>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    #[module(skip)]
    config: VitConfig,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: Projection,
}

/// A convolution of patches side by side.
#[derive(Module, Debug)]
struct Projection {
    /// `[C, 3, P, P]`
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

/// Attention between tokens, then a perceptron for each, both added to what they were given.
#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    /// `[3 C, C]`: queries, keys and values.
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

/// Normalization over the channels of each token.
#[derive(Module, Debug)]
struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl VitConfig {
    /// Makes the network with weights drawn from `seed`, the same on every device.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Vit, ConfigError> {
        self.validate()?;
        let init = &mut Initializer::new(Init::KaimingFanOut, seed, device);
        let Self { patch, width, heads, .. } = *self;
        let weight = init.normal([width, 3, patch, patch], DEVIATION);
        let proj = Projection { weight: Param::from_tensor(weight), bias: Param::from_tensor(init.zeros(width)) };
        let pos_embed = Param::from_tensor(init.normal([1, self.side() * self.side(), width], DEVIATION));
        let blocks = (0..self.depth)
            .map(|_| Block {
                norm1: LayerNorm::new(init, width),
                attn: Attention { qkv: linear(init, width, 3 * width), proj: linear(init, width, width), heads },
                norm2: LayerNorm::new(init, width),
                mlp: Mlp {
                    fc1: linear(init, width, Self::EXPANSION * width),
                    fc2: linear(init, Self::EXPANSION * width, width),
                },
            })
            .collect();
        let (norm, head) = (LayerNorm::new(init, width), linear(init, width, self.classes));
        Ok(Vit { patch_embed: PatchEmbed { proj }, pos_embed, blocks, norm, head, config: self.clone() })
    }
}

fn linear(init: &mut Initializer, input: usize, output: usize) -> Linear {
    let weight = init.normal([output, input], DEVIATION);
    Linear { weight: Param::from_tensor(weight), bias: Param::from_tensor(init.zeros(output)) }
}

impl PatchEmbed {
    /// `[N, 3, H, W]` -> `[N, T, C]`
    fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let weight = self.proj.weight.val();
        let [channels, _, patch, _] = weight.dims();
        let [n, _, height, width] = images.dims();
        let (rows, columns) = (height / patch, width / patch);
        let numbers = 3 * patch * patch;
        let patches = images.reshape([n, 3, rows, patch, columns, patch]).permute([0, 2, 4, 1, 3, 5]);
        let tokens =
            patches.reshape([n * rows * columns, numbers]).matmul(weight.reshape([channels, numbers]).transpose());
        (tokens + self.proj.bias.val().unsqueeze()).reshape([n, rows * columns, channels])
    }
}

impl Block {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x));
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [n, tokens, channels] = x.dims();
        let size = channels / self.heads;
        let parts = each(&self.qkv, x).reshape([n, tokens, 3, self.heads, size]).permute([2, 0, 3, 1, 4]);
        let [queries, keys, values] = [0, 1, 2].map(|part| parts.clone().narrow(0, part, 1).squeeze_dim::<4>(0)); // [N, heads, T, size]
        let scores = queries.matmul(keys.swap_dims(2, 3)) * (size as f64).powf(-0.5);
        let mixed = softmax(scores, 3).matmul(values);
        each(&self.proj, mixed.swap_dims(1, 2).reshape([n, tokens, channels]))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        each(&self.fc2, gelu(each(&self.fc1, x)))
    }
}

/// `x` times the share of a standard normal distribution below it. burn's own has, but on the CPU, the gradient of the
/// approximation by tanh.
fn gelu(x: Tensor<3>) -> Tensor<3> {
    let share = ((x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    x * share
}

/// A layer on every token.
fn each(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    let [n, tokens, channels] = x.dims();
    layer.forward(x.reshape([n * tokens, channels])).reshape([n as i32, tokens as i32, -1])
}

impl LayerNorm {
    fn new(init: &Initializer, channels: usize) -> Self {
        Self { weight: Param::from_tensor(init.ones(channels)), bias: Param::from_tensor(init.zeros(channels)) }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let centered = x.clone() - x.mean_dim(2);
        let variance = (centered.clone() * centered.clone()).mean_dim(2);
        centered / (variance + EPSILON).sqrt() * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}

impl Vit {
    /// The first part of the network, by its name in a state dict, whose output for these images
    /// `[N, 3, H, W]` is not finite; `None` if all are. Waits for the device after each part.
    pub(crate) async fn first_non_finite(&self, images: Tensor<4>) -> Option<String> {
        let mut x = self.patch_embed.forward(images) + self.pos_embed.val();
        if !is_finite(x.clone()).await {
            return Some("patch_embed".to_owned());
        }
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            if !is_finite(x.clone()).await {
                return Some(format!("blocks.{index}"));
            }
        }
        let logits = self.classify(self.norm.forward(x).mean_dim(1).squeeze_dim(1));
        (!is_finite(logits).await).then(|| "head".to_owned())
    }

    /// The head alone: features `[N, C]` -> `[N, classes]`.
    pub(crate) fn classify(&self, features: Tensor<2>) -> Tensor<2> {
        self.head.forward(features)
    }

    /// What the head sees: `[N, 3, H, W]` -> `[N, C]`, the mean of the tokens.
    pub(crate) fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.tokens(images).mean_dim(1).squeeze_dim(1)
    }

    /// As a residual network's: `[N, H', W']`, a number a token.
    pub(crate) fn class_activation(&self, images: Tensor<4>, classes: Tensor<1, Int>) -> Tensor<3> {
        let tokens = self.tokens(images); // [N, T, C]
        let weight = self.head.weight.val().select(0, classes); // [N, C]
        let [n, _, channels] = tokens.dims();
        let side = self.config.side();
        tokens.matmul(weight.reshape([n, channels, 1])).reshape([n, side, side])
    }

    /// `[N, 3, H, W]` -> `[N, T, C]`, normalized.
    fn tokens(&self, images: Tensor<4>) -> Tensor<3> {
        let embedded = self.patch_embed.forward(images) + self.pos_embed.val();
        self.norm.forward(self.blocks.iter().fold(embedded, |x, block| block.forward(x)))
    }
}
