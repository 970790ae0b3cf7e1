//! The file format under bundles and checkpoints: safetensors whose metadata is one JSON object
//! under the key `kiln`, so that a file's bytes are a function of its contents, with a digest over
//! every tensor and the object itself.
//!
//! Weights are stored in f32, or smaller as [`Storage`] says; reading gives f32 from all of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use half::f16;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView, View};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{StateDict, StateTensor};

/// Version of the format that this crate writes; it reads this one alone.
const FORMAT: u32 = 1;
/// Where the JSON object lies in the file's `__metadata__`.
const KEY: &str = "kiln";
/// What follows a tensor's name in the name of its scales.
const SCALE: &str = ".scale";

/// What a file holds the weights in.
///
/// Tensors of fewer than two dimensions (norms, biases, running statistics) stay f32 in all of them: they
/// are a hundredth of the bytes, and a network is far more sensitive to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    F32,
    /// IEEE half precision, rounded to nearest.
    F16,
    /// `round(w / scale)` as I8 with one scale for each output channel `[O, ..]`, `max|w| / 127`, in a tensor
    /// `<name>.scale` `[O]` of F32: a weight is off by half a scale at most.
    Int8,
}

impl Storage {
    /// `f32`, `f16` or `int8`, as in metadata and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

/// The object under [`KEY`]. The contents are a JSON text within it, so that the digest is over
/// the very bytes that are read.
#[derive(Serialize, Deserialize)]
struct Envelope {
    format: u32,
    digest: String,
    contents: Box<serde_json::value::RawValue>,
}

/// All of an [`Envelope`] that every version has.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    format: u64,
}

/// A file that was not written by Kiln, or was damaged since.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("not a whole safetensors file: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    #[error("the file's metadata has no '{KEY}' entry: it was not written by Kiln")]
    Foreign,
    #[error("cannot be written: {0}")]
    Io(#[from] io::Error),
    #[error("the metadata cannot be read: {0}")]
    Metadata(#[from] serde_json::Error),
    #[error("format {0} is not the one this Kiln reads ({FORMAT}): use the Kiln that wrote the file, or a newer one")]
    Format(u64),
    #[error("tensor '{name}' holds {dtype}: Kiln reads F32, F16, and I8 with scales")]
    Dtype { name: String, dtype: String },
    #[error("tensor '{name}' cannot be read without its scales, '{name}{SCALE}': {fault}; export the network again")]
    Scales { name: String, fault: String },
    #[error("tensor '{name}' holds {value}, more than F16 can (65504): store it as F32 or int8")]
    Overflow { name: String, value: f32 },
    #[error("two tensors would be called '{0}': rename the one that is not a scale")]
    Name(String),
    #[error("tensor '{0}' holds a value that is not finite")]
    NotFinite(String),
    #[error("the digest does not match: the file was changed after it was written")]
    Digest,
}

/// A tensor as it lies in the file. Weights in f32 are borrowed: a copy would double the memory of writing.
struct Stored<'a> {
    dtype: Dtype,
    shape: Cow<'a, [usize]>,
    bytes: Cow<'a, [u8]>,
}

/// A tensor's place in a file's header, without its bytes.
struct Place<'a>(&'a Stored<'a>);

impl View for Place<'_> {
    fn dtype(&self) -> Dtype {
        self.0.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }

    fn data_len(&self) -> usize {
        self.0.bytes.len()
    }
}

/// The bytes of a file with that header and those tensors.
pub fn write<H: Serialize>(header: &H, state: &StateDict, storage: Storage) -> Result<Vec<u8>, ContainerError> {
    let mut bytes = vec![];
    write_to(header, state, storage, &mut bytes)?;
    Ok(bytes)
}

/// Writes [`write()`]'s bytes, tensor by tensor.
pub fn write_to<H: Serialize>(
    header: &H,
    state: &StateDict,
    storage: Storage,
    file: &mut dyn Write,
) -> Result<(), ContainerError> {
    let (tensors, entries) = contents(header, state, storage)?;
    let places = tensors.iter().map(|(name, tensor)| (name, Place(tensor)));
    let header = safetensors::serialize(places, Some(entries))?;
    file.write_all(&header)?;
    let order: Metadata = serde_json::from_slice(&header[size_of::<u64>()..])?;
    for name in order.offset_keys() {
        file.write_all(&tensors[&name].bytes)?;
    }
    Ok(())
}

/// Tensors by name as the file holds them, and its metadata.
type Contents<'a> = (BTreeMap<String, Stored<'a>>, HashMap<String, String>);

fn contents<'a, H: Serialize>(
    header: &H,
    state: &'a StateDict,
    storage: Storage,
) -> Result<Contents<'a>, ContainerError> {
    let contents = serde_json::value::to_raw_value(header)?;
    let mut stored = BTreeMap::new();
    for (name, tensor) in state {
        for (name, tensor) in store(name, tensor, storage)? {
            if stored.contains_key(&name) {
                return Err(ContainerError::Name(name));
            }
            stored.insert(name, tensor);
        }
    }
    let parts = stored.iter().map(|(name, tensor)| (name.as_str(), &tensor.shape[..], &tensor.bytes[..]));
    let digest = digest(contents.get(), parts);
    let envelope = serde_json::to_string(&Envelope { format: FORMAT, digest, contents })?;
    Ok((stored, HashMap::from([(KEY.to_owned(), envelope)])))
}

/// One tensor as the file holds it: itself, and its scales if it has any.
fn store<'a>(
    name: &str,
    tensor: &'a StateTensor,
    storage: Storage,
) -> Result<Vec<(String, Stored<'a>)>, ContainerError> {
    let StateTensor { shape, values } = tensor;
    if !values.iter().all(|value| value.is_finite()) {
        return Err(ContainerError::NotFinite(name.to_owned()));
    }
    let storage = if shape.len() < 2 { Storage::F32 } else { storage };
    let (dtype, bytes) = match storage {
        Storage::F32 => (Dtype::F32, f32_bytes(values)),
        Storage::F16 => {
            if let Some(&value) = values.iter().find(|value| f16::from_f32(**value).is_infinite()) {
                return Err(ContainerError::Overflow { name: name.to_owned(), value });
            }
            (Dtype::F16, values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect())
        }
        Storage::Int8 => {
            let (quantised, scales) = quantise(values, shape[0]);
            let bytes = f32_bytes(&scales).into_owned().into();
            let scales = Stored { dtype: Dtype::F32, shape: vec![shape[0]].into(), bytes };
            let quantised = Stored { dtype: Dtype::I8, shape: shape.into(), bytes: quantised.into() };
            return Ok(vec![(name.to_owned(), quantised), (format!("{name}{SCALE}"), scales)]);
        }
    };
    Ok(vec![(name.to_owned(), Stored { dtype, shape: shape.into(), bytes })])
}

/// Little-endian bytes, which on most machines are those in memory.
pub fn f32_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(values)),
        false => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// The bytes of the I8 values, and a scale for each of `channels` equal parts.
fn quantise(values: &[f32], channels: usize) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(channels.min(values.len()));
    for channel in values.chunks(channel_len(values.len(), channels)) {
        let scale = channel.iter().fold(0.0, |max: f32, value| max.max(value.abs())) / 127.0;
        // A scale of zero gives NaN here, which the cast takes to zero.
        bytes.extend(channel.iter().map(|value| ((value / scale).round() as i8).max(-127).cast_unsigned()));
        scales.push(scale);
    }
    scales.resize(channels, 0.0);
    (bytes, scales)
}

/// Values of one output channel; not zero, so that slices can be cut by it.
fn channel_len(values: usize, channels: usize) -> usize {
    (values / channels.max(1)).max(1)
}

/// Header and tensors of a file, checked against its digest.
pub fn read<H: DeserializeOwned>(bytes: &[u8]) -> Result<(H, StateDict), ContainerError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let json = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)).ok_or(ContainerError::Foreign)?;
    let Version { format } = serde_json::from_str(json)?;
    if format != u64::from(FORMAT) {
        return Err(ContainerError::Format(format));
    }
    let envelope: Envelope = serde_json::from_str(json)?;
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, _)| *name);
    let parts = tensors.iter().map(|(name, view)| (*name, view.shape(), view.data()));
    if envelope.digest != digest(envelope.contents.get(), parts) {
        return Err(ContainerError::Digest);
    }
    let quantised = |name| file.tensor(name).is_ok_and(|view| view.dtype() == Dtype::I8);
    let mut state = StateDict::new();
    for (name, view) in tensors {
        if name.strip_suffix(SCALE).is_some_and(quantised) {
            continue;
        }
        let values = match view.dtype() {
            Dtype::I8 => dequantise(name, &view, file.tensor(&format!("{name}{SCALE}")).ok())?,
            _ => values(name, &view)?,
        };
        state.insert(name.to_owned(), StateTensor { shape: view.shape().to_vec(), values });
    }
    Ok((serde_json::from_str(envelope.contents.get())?, state))
}

/// SHA-256 over the header and the tensors as stored, which come in the order of their names. The types
/// are within: they differ in the bytes that a shape takes.
fn digest<'a>(header: &str, tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    hash.update(header);
    for (name, shape, bytes) in tensors {
        hash.update(format!("\n{name}{shape:?}{}\n", bytes.len()));
        hash.update(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn values(name: &str, view: &TensorView) -> Result<Vec<f32>, ContainerError> {
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|chunk| f16::from_le_bytes(*chunk).to_f32()).collect(),
        other => return Err(ContainerError::Dtype { name: name.to_owned(), dtype: format!("{other:?}") }),
    };
    finite(name, values)
}

/// The values of an I8 tensor, whose scales are `[O]` for its shape `[O, ..]`.
fn dequantise(name: &str, view: &TensorView, scales: Option<TensorView>) -> Result<Vec<f32>, ContainerError> {
    let wrong = |fault| Err(ContainerError::Scales { name: name.to_owned(), fault });
    let Some(scales) = scales else { return wrong("there are none".to_owned()) };
    let Some(&channels) = view.shape().first() else {
        return wrong("the tensor has no dimension to have them along".to_owned());
    };
    if scales.dtype() != Dtype::F32 || scales.shape() != [channels] {
        return wrong(format!("they are {:?} {:?} and not F32 [{channels}]", scales.dtype(), scales.shape()));
    }
    let scales: Vec<f32> = scales.data().as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    if let Some(channel) = scales.iter().position(|scale| !scale.is_finite() || *scale < 0.0) {
        return wrong(format!("that of channel {channel} is {}", scales[channel]));
    }
    let channels = view.data().chunks(channel_len(view.data().len(), channels)).zip(scales);
    let values =
        channels.flat_map(|(channel, scale)| channel.iter().map(move |byte| f32::from(byte.cast_signed()) * scale));
    finite(name, values.collect())
}

fn finite(name: &str, values: Vec<f32>) -> Result<Vec<f32>, ContainerError> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(ContainerError::NotFinite(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> StateTensor {
        let values = (0..shape.iter().product::<usize>()).map(|index| (index as f32 * 1.7).sin() * 0.3).collect();
        StateTensor { shape: shape.to_vec(), values }
    }

    fn state() -> StateDict {
        let mut silent = tensor(&[4, 3, 3, 3]);
        silent.values[27..54].fill(0.0);
        let named = [("bn1.weight", tensor(&[4])), ("conv1.weight", silent), ("fc.weight", tensor(&[10, 4]))];
        named.map(|(name, tensor)| (name.to_owned(), tensor)).into()
    }

    fn read_back(bytes: &[u8]) -> Result<StateDict, ContainerError> {
        Ok(read::<String>(bytes)?.1)
    }

    fn stored<'a>(bytes: &'a [u8], name: &str) -> TensorView<'a> {
        SafeTensors::deserialize(bytes).unwrap().tensor(name).unwrap()
    }

    /// A file with a right digest over whatever tensors these are.
    fn file_of(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
        let mut tensors = tensors.to_vec();
        tensors.sort_by_key(|tensor| tensor.0);
        let contents = serde_json::value::to_raw_value("header").unwrap();
        let digest = digest(contents.get(), tensors.iter().map(|(name, _, shape, bytes)| (*name, *shape, *bytes)));
        let envelope = serde_json::to_string(&Envelope { format: FORMAT, digest, contents }).unwrap();
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
        safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), envelope)]))).unwrap()
    }

    #[test]
    fn f32_comes_back_as_it_was() {
        let bytes = write(&"header", &state(), Storage::F32).unwrap();
        assert_eq!(read::<String>(&bytes).unwrap(), ("header".to_owned(), state()));
    }

    #[test]
    fn f16_comes_back_rounded_and_norms_as_they_were() {
        let bytes = write(&"header", &state(), Storage::F16).unwrap();
        assert_eq!(stored(&bytes, "conv1.weight").dtype(), Dtype::F16);
        let (read, original) = (read_back(&bytes).unwrap(), state());
        assert_eq!(read["bn1.weight"], original["bn1.weight"]);
        for (read, original) in read["fc.weight"].values.iter().zip(&original["fc.weight"].values) {
            assert_eq!(*read, f16::from_f32(*original).to_f32());
        }
    }

    #[test]
    fn a_weight_too_large_for_f16_is_named() {
        let mut state = state();
        state.get_mut("fc.weight").unwrap().values[7] = -65520.0;
        let error = write(&"header", &state, Storage::F16).unwrap_err();
        assert!(
            matches!(&error, ContainerError::Overflow { name, value } if name == "fc.weight" && *value == -65520.0)
        );
        assert!(write(&"header", &state, Storage::Int8).is_ok());
    }

    #[test]
    fn int8_is_off_by_half_a_scale_at_most() {
        let bytes = write(&"header", &state(), Storage::Int8).unwrap();
        let (read, original) = (read_back(&bytes).unwrap(), state());
        assert_eq!(read.keys().collect::<Vec<_>>(), original.keys().collect::<Vec<_>>(), "no scales among them");
        assert_eq!(read["bn1.weight"], original["bn1.weight"]);
        for name in ["conv1.weight", "fc.weight"] {
            assert_eq!((stored(&bytes, name).dtype(), &read[name].shape), (Dtype::I8, &original[name].shape));
            let channels = original[name].shape[0];
            let scales = values("", &stored(&bytes, &format!("{name}.scale"))).unwrap();
            assert_eq!(scales.len(), channels);
            let channel_len = original[name].values.len() / channels;
            for (index, (read, original)) in read[name].values.iter().zip(&original[name].values).enumerate() {
                let scale = scales[index / channel_len];
                assert!((read - original).abs() <= 0.5001 * scale, "{name} {index}: {read} for {original}, {scale}");
            }
        }
        assert!(read["conv1.weight"].values[27..54].iter().all(|value| *value == 0.0), "a channel of zeros");
    }

    #[test]
    fn the_largest_weight_of_a_channel_keeps_its_value() {
        let state = StateDict::from([(
            "w".to_owned(),
            StateTensor { shape: vec![2, 2], values: vec![-127.0, 1.2, 0.2, 254.0] },
        )]);
        let read = read_back(&write(&"header", &state, Storage::Int8).unwrap()).unwrap();
        assert_eq!(read["w"].values, [-127.0, 1.0, 0.0, 254.0]);
    }

    #[test]
    fn tensors_without_values_are_no_trouble() {
        for shape in [vec![0, 3], vec![3, 0], vec![0, 0, 0], vec![0]] {
            let state = StateDict::from([("w".to_owned(), StateTensor { shape, values: vec![] })]);
            for storage in [Storage::F32, Storage::F16, Storage::Int8] {
                assert_eq!(read_back(&write(&"header", &state, storage).unwrap()).unwrap(), state);
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        for storage in [Storage::F32, Storage::F16, Storage::Int8] {
            let whole = write(&"header", &state(), storage).unwrap();
            for bit in 0..8 * whole.len() {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(read_back(&bytes).is_err(), "bit {bit} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn a_hundred_gigabytes_claimed_are_refused_before_they_are_taken() {
        let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
        let claim = format!(r#"{{"w":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}}}}"#, 25 << 30, 100_u64 << 30);
        for bytes in [
            header(&claim),
            header(r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}"#),
            [&(100_u64 << 30).to_le_bytes()[..], b"{}"].concat(),
            u64::MAX.to_le_bytes().to_vec(),
        ] {
            assert!(matches!(read_back(&bytes), Err(ContainerError::Safetensors(_))));
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = write(&"header", &state(), Storage::Int8).unwrap();
        for len in 0..whole.len() {
            assert!(read_back(&whole[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn scales_that_cannot_be_used_are_explained() {
        let weight = ("w", Dtype::I8, &[2, 2][..], &[1, 2, 3, 4][..]);
        let refused = |scales: Option<(Dtype, &[usize], &[u8])>, words: &str| {
            let mut tensors = vec![weight];
            tensors.extend(scales.map(|(dtype, shape, bytes)| ("w.scale", dtype, shape, bytes)));
            let error = read_back(&file_of(&tensors)).unwrap_err();
            assert!(matches!(&error, ContainerError::Scales { name, .. } if name == "w"), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        };
        let bytes = |scales: [f32; 2]| scales.map(f32::to_le_bytes).concat();
        refused(None, "there are none");
        refused(Some((Dtype::F32, &[1], &[0; 4])), "F32 [1] and not F32 [2]");
        refused(Some((Dtype::F32, &[1, 2], &[0; 8])), "F32 [1, 2] and not F32 [2]");
        refused(Some((Dtype::F16, &[2], &[0; 4])), "F16 [2] and not F32 [2]");
        refused(Some((Dtype::I8, &[2], &[0; 2])), "I8 [2] and not F32 [2]");
        refused(Some((Dtype::F32, &[2], &bytes([1.0, f32::NAN]))), "channel 1 is NaN");
        refused(Some((Dtype::F32, &[2], &bytes([f32::INFINITY, 1.0]))), "channel 0 is inf");
        refused(Some((Dtype::F32, &[2], &bytes([-0.5, 1.0]))), "channel 0 is -0.5");

        let scalar = file_of(&[("w", Dtype::I8, &[], &[1]), ("w.scale", Dtype::F32, &[1], &[0; 4])]);
        assert!(matches!(read_back(&scalar), Err(ContainerError::Scales { .. })));
        let huge = file_of(&[weight, ("w.scale", Dtype::F32, &[2], &bytes([1.0, f32::MAX]))]);
        assert!(matches!(read_back(&huge), Err(ContainerError::NotFinite(name)) if name == "w"));
        let fine = file_of(&[weight, ("w.scale", Dtype::F32, &[2], &bytes([1.0, 0.5]))]);
        assert_eq!(read_back(&fine).unwrap()["w"].values, [1.0, 2.0, 1.5, 2.0]);
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let error = read_back(&file_of(&[("w", Dtype::U8, &[1], &[1])])).unwrap_err();
        assert!(matches!(error, ContainerError::Dtype { name, dtype } if name == "w" && dtype == "U8"));
    }

    #[test]
    fn a_name_that_a_scale_needs_is_refused_and_else_left_alone() {
        let state: StateDict =
            [("w", tensor(&[2, 2])), ("w.scale", tensor(&[2]))].map(|(name, tensor)| (name.to_owned(), tensor)).into();
        assert!(
            matches!(write(&"header", &state, Storage::Int8), Err(ContainerError::Name(name)) if name == "w.scale")
        );
        assert_eq!(read_back(&write(&"header", &state, Storage::F32).unwrap()).unwrap(), state);
    }
}
