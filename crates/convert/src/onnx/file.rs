//! A model's file: its messages, looked at before they are decoded, and what it says beside the network.

use std::io;
use std::path::Path;

use kiln_data::bounded_read;
use rten_onnx::onnx::{ModelProto, TypeProto};

use crate::ConvertError;
use crate::import::{Known, MAX_FILE_BYTES};
use crate::preprocess::Normalization;

/// Fields of `onnx.proto`, from a model down to what could nest.
mod field {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_NODE: u64 = 1;
    pub const GRAPH_VALUES: [u64; 3] = [11, 12, 13];
    pub const NODE_ATTRIBUTE: u64 = 5;
    pub const ATTRIBUTE_GRAPHS: [u64; 2] = [6, 11];
    pub const VALUE_TYPE: u64 = 2;
    pub const TYPE_TENSOR: u64 = 1;
}

/// Whether a file starts like a model: with the version of its format, or the name of its producer.
pub fn is_onnx(start: &[u8]) -> bool {
    matches!(start, [0x08, 0x00..=0x7F, 0x12 | 0x1A | 0x22 | 0x28 | 0x32 | 0x3A | 0x42 | 0x72, ..] | [0x12 | 0x3A, ..])
}

/// Reads a model's file.
pub fn read(path: &Path) -> Result<ModelProto, ConvertError> {
    let unreadable = |source: io::Error| ConvertError::Io { path: path.to_owned(), source };
    parse(&bounded_read::read(path, MAX_FILE_BYTES).map_err(unreadable)?)
}

/// Decodes a model, after a look at how deep its messages nest.
///
/// # Errors
/// If it is damaged, or holds a graph within a node or a type within a type: decoding them takes a stack as deep as they
/// are, and no residual network has them.
pub fn parse(bytes: &[u8]) -> Result<ModelProto, ConvertError> {
    for graph in fields(bytes, &[field::MODEL_GRAPH])? {
        for node in fields(graph, &[field::GRAPH_NODE])? {
            for attribute in fields(node, &[field::NODE_ATTRIBUTE])? {
                if !fields(attribute, &field::ATTRIBUTE_GRAPHS)?.is_empty() {
                    return Err(ConvertError::Onnx("a node of it holds a graph"));
                }
            }
        }
        for value in fields(graph, &field::GRAPH_VALUES)? {
            for kind in fields(value, &[field::VALUE_TYPE])? {
                if Fields(kind).any(|field| !matches!(field, Ok((field::TYPE_TENSOR, _)))) {
                    return Err(ConvertError::Onnx("a value of it is not a tensor"));
                }
            }
        }
    }
    Ok(ModelProto::parse_buf(bytes)?)
}

/// Contents of the fields with these numbers.
fn fields<'a>(message: &'a [u8], numbers: &[u64]) -> Result<Vec<&'a [u8]>, ConvertError> {
    let mut found = vec![];
    for field in Fields(message) {
        let (number, contents) = field?;
        if numbers.contains(&number) {
            found.push(contents.unwrap_or_default());
        }
    }
    Ok(found)
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
        // A length beyond the file, and a number without an end.
        assert!(parse(&[0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]).is_err());
        assert!(parse(&[0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]).is_err());
    }
}
