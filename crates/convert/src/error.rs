//! What can go wrong, as facts.

use std::io;
use std::path::PathBuf;

use kiln_infer::PlanError;
use kiln_model::validate::ClaimError;
use kiln_model::{BundleError, ConfigError, InferenceError, StateError};
use pytorch_reader::PytorchError;
use rten_onnx::protobuf::ProtobufError;
use safetensors::SafeTensorError;

/// Why a file's weights cannot become a bundle, or a bundle another program's weights.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the file ends early, or was changed while it was read: {0}")]
    Data(io::Error),
    #[error("neither a safetensors file, nor a PyTorch checkpoint (.pt, .pth), nor an ONNX model")]
    UnknownFormat,
    #[error("the file is a bundle of Kiln's already")]
    OwnBundle,
    #[error("not a whole safetensors file: {0}")]
    Safetensors(#[from] SafeTensorError),
    #[error("not a whole safetensors file: its header is {0}")]
    SafetensorsHeader(String),
    #[error("not a PyTorch checkpoint that can be read: {0}")]
    Pytorch(#[from] PytorchError),
    #[error("not a PyTorch checkpoint that can be read: entries of its zip archive overlap")]
    Overlap,
    #[error("not a whole ONNX model: {0}")]
    Protobuf(#[from] ProtobufError),
    #[error("not a whole ONNX model: {0}")]
    Onnx(&'static str),
    #[error("node '{node}' ({operator}) is not one of a residual network: {fault}")]
    Node { node: String, operator: String, fault: String },
    #[error("the file claims {claimed} bytes of weights and has {bytes}")]
    Claim { claimed: u64, bytes: u64 },
    #[error(
        "the file has no 'conv1.weight' and no 'patch_embed.proj.weight' as a residual network or a vision transformer \
         has them; its first tensors are {}",
        .0.join(", ")
    )]
    NoNetwork(Vec<String>),
    #[error("the file has two tensors for '{0}'")]
    Twice(String),
    #[error("tensor '{name}' holds {dtype}: Kiln reads F64, F32, F16 and BF16")]
    Dtype { name: String, dtype: String },
    #[error("tensor '{name}' has shape {shape:?}; {expected}")]
    Shape { name: String, shape: Vec<usize>, expected: &'static str },
    #[error("tensor '{0}' holds a value that is not finite")]
    NotFinite(String),
    #[error(
        "the four stages have {0:?} blocks of {1} convolutions; known are ResNet-18 (2, 2, 2, 2 blocks of two), 34 (3, 4, \
         6, 3 of two), 50 (3, 4, 6, 3 of three), 101 (3, 4, 23, 3) and 152 (3, 8, 36, 3)"
    )]
    Depth([usize; 4], usize),
    #[error("the number of groups of a group normalization cannot be seen in the weights")]
    NeedsGroups,
    #[error("the number of a transformer's heads cannot be seen in the weights")]
    NeedsHeads,
    #[error("the file does not say how pictures are normalized: mean and standard deviation of each channel")]
    NeedsNormalization,
    #[error("invalid preprocessing '{text}': {fault}")]
    Preprocess { text: String, fault: String },
    #[error("the list of classes is not an array of names: {0}")]
    Classes(serde_json::Error),
    #[error("ONNX in this form can only hold a network with batch norm: {0}")]
    Unfolded(String),
    #[error(transparent)]
    Claims(#[from] ClaimError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Plan(#[from] PlanError),
}
