//! A model's file: its messages, looked at before they are decoded, and what it says beside the network.

use std::io;
use std::path::Path;

use kiln_data::bounded_read;
use rten_onnx::onnx::{ModelProto, TypeProto};

use crate::ConvertError;
use crate::import::{Known, MAX_FILE_BYTES};
use crate::preprocess::Normalization;

/// A message of `onnx.proto`: which of its fields hold messages, by their numbers, and why it may not have others.
struct Message {
    inner: &'static [(u64, &'static Message)],
    refusal: fn(u64) -> Option<&'static str>,
}

const fn message(inner: &'static [(u64, &'static Message)]) -> Message {
    Message { inner, refusal: |_| None }
}

// Every message that is decoded, from the innermost up.
static ENTRY: Message = message(&[]);
static DIMENSION: Message = message(&[]);
static OPERATOR_SET: Message = message(&[]);
static SHAPE: Message = message(&[(1, &DIMENSION)]);
static TENSOR_TYPE: Message = message(&[(2, &SHAPE)]);
static TYPE: Message = Message {
    inner: &[(1, &TENSOR_TYPE)],
    // A sequence holds a type again.
    refusal: |field| (field != 1).then_some("a value of it is not a tensor"),
};
static VALUE: Message = message(&[(2, &TYPE)]);
static TENSOR: Message = message(&[(13, &ENTRY)]);
static ATTRIBUTE: Message = Message {
    inner: &[(5, &TENSOR)],
    refusal: |field| matches!(field, 6 | 11).then_some("a node of it holds a graph"),
};
static NODE: Message = message(&[(5, &ATTRIBUTE)]);
static GRAPH: Message = message(&[(1, &NODE), (5, &TENSOR), (11, &VALUE), (12, &VALUE), (13, &VALUE)]);
static MODEL: Message = message(&[(7, &GRAPH), (8, &OPERATOR_SET), (14, &ENTRY)]);

/// Whether a file starts like a model: with the version of its format, or the name of its producer.
pub fn is_onnx(start: &[u8]) -> bool {
    matches!(start, [0x08, 0x00..=0x7F, 0x12 | 0x1A | 0x22 | 0x28 | 0x32 | 0x3A | 0x42 | 0x72, ..] | [0x12 | 0x3A, ..])
}

/// Reads a model's file.
pub fn read(path: &Path) -> Result<ModelProto, ConvertError> {
    let unreadable = |source: io::Error| ConvertError::Io { path: path.to_owned(), source };
    parse(&bounded_read::read(path, MAX_FILE_BYTES).map_err(unreadable)?)
}

/// Decodes a model, after a look at what its messages claim. The decoder behind this follows messages as deep as they nest,
/// and makes room for as many bytes as a field says that it has.
///
/// # Errors
/// If it is damaged, a field is longer than the message around it, or it holds a graph within a node or a type within a type,
/// which no residual network has.
pub fn parse(bytes: &[u8]) -> Result<ModelProto, ConvertError> {
    check(bytes, &MODEL)?;
    Ok(ModelProto::parse_buf(bytes)?)
}

/// Walks through a message and those in it.
fn check(bytes: &[u8], message: &Message) -> Result<(), ConvertError> {
    for field in Fields(bytes) {
        let (number, contents) = field?;
        if let Some(reason) = (message.refusal)(number) {
            return Err(ConvertError::Onnx(reason));
        }
        let inner = message.inner.iter().find(|(field, _)| *field == number);
        if let (Some(contents), Some((_, inner))) = (contents, inner) {
            check(contents, inner)?;
        }
    }
    Ok(())
}

/// Walks through a message: the number of each field, and its contents if they have a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Option<&'a [u8]>), ConvertError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(ConvertError::Onnx("a message ends early or has an unknown kind of field")))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Option<&'a [u8]>)> {
        let tag = self.varint()?;
        let contents = match tag & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => self.take(8).map(|_| None)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Some(self.take(len)?)
            }
            5 => self.take(4).map(|_| None)?,
            _ => return None,
        };
        Some((tag >> 3, contents))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F).checked_shl(7 * place)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Metadata entries of an exported model ([`to_onnx`](super::to_onnx) writes them), and the size of its images.
pub fn known(model: &ModelProto) -> Known {
    let entry = |key: &str| {
        let found = model.metadata_props.iter().find(|entry| entry.key.as_deref() == Some(key));
        found.and_then(|entry| entry.value.as_deref())
    };
    // What another program wrote under such a name may mean something else.
    fn json<T: serde::de::DeserializeOwned>(text: Option<&str>) -> Option<T> {
        serde_json::from_str(text?).ok()
    }
    let (mean, std) = (json(entry("mean")), json(entry("std")));
    Known {
        classes: json(entry("classes")),
        normalization: mean.zip(std).map(|(mean, std)| Normalization { mean, std }),
        preprocessing: json(entry("preprocessing")),
        image_size: image_size(model),
    }
}

/// Height of the input, if it is fixed and the width is the same.
fn image_size(model: &ModelProto) -> Option<usize> {
    let input = model.graph.as_ref()?.input.first()?;
    let Some(TypeProto { tensor_type: Some(tensor), .. }) = &input.r#type else { return None };
    let sides: Vec<Option<i64>> = tensor.shape.as_ref()?.dim.iter().map(|dim| dim.dim_value).collect();
    match sides[..] {
        [_, _, Some(height), Some(width)] if height == width => usize::try_from(height).ok().filter(|size| *size > 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field with contents.
    fn within(number: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut len = contents.len();
        while len >= 0x80 {
            bytes.push(len as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        bytes.extend(contents);
        bytes
    }

    #[test]
    fn graphs_within_nodes_are_refused_before_they_take_the_stack() {
        let mut graph = vec![];
        loop {
            // A graph in an attribute of a node.
            graph = within(1, &within(5, &within(6, &graph)));
            if graph.len() > 1 << 17 {
                break;
            }
        }
        let error = parse(&within(7, &graph)).err().unwrap().to_string();
        assert!(error.contains("holds a graph"), "{error}");
    }

    #[test]
    fn types_within_types_are_refused_too() {
        let mut kind = vec![];
        for _ in 0..5000 {
            kind = within(4, &within(1, &kind));
        }
        let error = parse(&within(7, &within(11, &within(2, &kind)))).err().unwrap().to_string();
        assert!(error.contains("not a tensor"), "{error}");
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_or_read() {
        let model = within(7, &[within(1, &within(4, b"Relu")), within(11, b"\x0a\x01x")].concat());
        for len in 0..model.len() {
            assert!(len == 0 || parse(&model[..len]).is_err(), "{len} bytes");
        }
        assert!(parse(&model).is_ok());
        // A length beyond the message around it: of an entry's key, an operator set's domain, a tensor's name.
        let too_long = [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
        let name_too_long = [&[0x42][..], &too_long[1..]].concat();
        for model in [within(14, &too_long), within(8, &too_long), within(7, &within(5, &name_too_long))] {
            assert!(parse(&model).is_err(), "{model:?}");
        }
        // A length beyond the file, and a number without an end.
        assert!(parse(&[0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]).is_err());
        assert!(parse(&[0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]).is_err());
    }
}
