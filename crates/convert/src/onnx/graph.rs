//! A graph to walk along: who reads a value, which nodes are left, and what is constant.

use std::collections::BTreeMap;

use half::{bf16, f16};
use kiln_model::StateTensor;
use rten_onnx::onnx::{AttributeProto, DataLocation, DataType, GraphProto, NodeProto, TensorProto};

use crate::ConvertError;

/// A graph of which every node must be walked over once.
pub struct Graph<'a> {
    nodes: &'a [NodeProto],
    /// Indices of the nodes that read a value.
    readers: BTreeMap<&'a str, Vec<usize>>,
    constants: BTreeMap<&'a str, &'a TensorProto>,
    used: Vec<bool>,
    /// Names of the values that the graph gives.
    outputs: Vec<&'a str>,
}

impl<'a> Graph<'a> {
    pub fn new(graph: &'a GraphProto) -> Self {
        let nodes = &graph.node[..];
        let mut constants: BTreeMap<&str, &TensorProto> =
            graph.initializer.iter().filter_map(|tensor| Some((tensor.name.as_deref()?, tensor))).collect();
        let mut used = vec![false; nodes.len()];
        // In the order of the graph, so that a constant's copies come after it.
        for (index, node) in nodes.iter().enumerate() {
            let Some(output) = node.output.first() else { continue };
            let value = match node.op_type.as_deref() {
                Some("Constant") => node.attribute.iter().find_map(|attribute| attribute.t.as_ref()),
                // PyTorch stores equal weights once.
                Some("Identity") => node.input.first().and_then(|input| constants.get(input.as_str()).copied()),
                _ => None,
            };
            if let Some(value) = value {
                constants.insert(output, value);
                used[index] = true;
            }
        }
        let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, node) in nodes.iter().enumerate().filter(|(index, _)| !used[*index]) {
            for input in node.input.iter().filter(|input| !constants.contains_key(input.as_str())) {
                readers.entry(input).or_default().push(index);
            }
        }
        let outputs = graph.output.iter().filter_map(|output| output.name.as_deref()).collect();
        Self { nodes, readers, constants, used, outputs }
    }

    /// The node of an index from [`readers`](Self::readers).
    pub fn node(&self, index: usize) -> &'a NodeProto {
        &self.nodes[index]
    }

    /// Nodes that read a value.
    pub fn readers(&self, value: &str) -> &[usize] {
        self.readers.get(value).map_or(&[], Vec::as_slice)
    }

    /// The one node that reads a value.
    ///
    /// # Errors
    /// If there is none, or there are several.
    pub fn reader(&self, value: &str) -> Result<usize, ConvertError> {
        match self.readers(value) {
            [index] => Ok(*index),
            [] => Err(ConvertError::Onnx("it ends before the head of a residual network")),
            [_, second, ..] => Err(self.fault(*second, "a value that one node should read has another reader")),
        }
    }

    pub fn operator(&self, index: usize) -> &'a str {
        self.nodes[index].op_type.as_deref().unwrap_or_default()
    }

    /// The operator of the one node that reads a value; empty if there is none.
    pub fn next_operator(&self, value: &str) -> &'a str {
        self.reader(value).map_or("", |index| self.operator(index))
    }

    /// Walks over a node of that operator; its output.
    ///
    /// # Errors
    /// If it is of another operator or domain, or was walked over before.
    pub fn take(&mut self, index: usize, operator: &str) -> Result<&'a str, ConvertError> {
        let node = self.node(index);
        if self.operator(index) != operator || !matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) {
            return Err(self.fault(index, format!("{operator} is expected here")));
        }
        if std::mem::replace(&mut self.used[index], true) {
            return Err(self.fault(index, "the graph runs in a circle"));
        }
        match &node.output[..] {
            [output, ..] => Ok(output),
            [] => Err(self.fault(index, "it has no output")),
        }
    }

    /// That a value is what the graph gives, and that no node is left.
    pub fn finish(&self, value: &str) -> Result<(), ConvertError> {
        if self.outputs != [value] {
            return Err(ConvertError::Onnx("its output is not that of the head"));
        }
        match self.used.iter().position(|used| !used) {
            Some(index) => Err(self.fault(index, "it does not belong to the network")),
            None => Ok(()),
        }
    }

    /// A constant that a node reads, as f32; `None` if it has no such input.
    pub fn constant(&self, index: usize, input: usize) -> Result<Option<StateTensor>, ConvertError> {
        let Some(name) = self.node(index).input.get(input).filter(|name| !name.is_empty()) else { return Ok(None) };
        let Some(tensor) = self.constants.get(name.as_str()) else {
            return Err(self.fault(index, format!("'{name}' is not constant")));
        };
        numbers(tensor).map(Some).map_err(|fault| self.fault(index, format!("'{name}' {fault}")))
    }

    /// Whole numbers that a node reads.
    pub fn integers(&self, index: usize, input: usize) -> Result<Vec<i64>, ConvertError> {
        let tensor = self.node(index).input.get(input).and_then(|name| self.constants.get(name.as_str()));
        let Some(tensor) = tensor else { return Err(self.fault(index, "its shape is not constant")) };
        if !tensor.int64_data.is_empty() {
            return Ok(tensor.int64_data.clone());
        }
        let bytes = tensor.raw_data.as_ref().map(|bytes| bytes.borrow().clone()).unwrap_or_default();
        Ok(bytes.as_chunks().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect())
    }

    pub fn attribute(&self, index: usize, name: &str) -> Option<&'a AttributeProto> {
        self.node(index).attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    /// Whole numbers of an attribute; `None` where the node has none of that name.
    pub fn ints(&self, index: usize, name: &str) -> Option<&'a [i64]> {
        self.attribute(index, name).map(|attribute| &attribute.ints[..])
    }

    pub fn int(&self, index: usize, name: &str, default: i64) -> i64 {
        self.attribute(index, name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    pub fn float(&self, index: usize, name: &str, default: f32) -> f32 {
        self.attribute(index, name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    /// An error about a node.
    pub fn fault(&self, index: usize, fault: impl Into<String>) -> ConvertError {
        let node = self.node(index);
        let name = node.name.clone().filter(|name| !name.is_empty());
        let node = name.or_else(|| node.output.first().cloned()).unwrap_or_else(|| format!("number {index}"));
        ConvertError::Node { node, operator: self.operator(index).to_owned(), fault: fault.into() }
    }
}

/// A tensor's numbers as f32, or what is wrong with it.
fn numbers(tensor: &TensorProto) -> Result<StateTensor, String> {
    if tensor.data_location == Some(DataLocation::EXTERNAL) || !tensor.external_data.is_empty() {
        return Err("is in another file: save the model with its weights inside".to_owned());
    }
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|side| usize::try_from(*side).ok()).collect();
    let shape = shape.ok_or("has a negative dimension")?;
    let count = shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
    let raw = tensor.raw_data.as_ref().map(|bytes| bytes.borrow());
    let raw = raw.as_ref().map_or(&[][..], |bytes| bytes.as_slice());
    let values: Vec<f32> = match tensor.data_type {
        Some(DataType::FLOAT) if !tensor.float_data.is_empty() => tensor.float_data.clone(),
        Some(DataType::FLOAT) => raw.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
        Some(DataType::DOUBLE) if !tensor.double_data.is_empty() => {
            tensor.double_data.iter().map(|value| *value as f32).collect()
        }
        Some(DataType::DOUBLE) => raw.as_chunks().0.iter().map(|chunk| f64::from_le_bytes(*chunk) as f32).collect(),
        // Halves that are not raw bytes are in the low bits of 32.
        Some(DataType::FLOAT16) if !tensor.int32_data.is_empty() => {
            tensor.int32_data.iter().map(|bits| f16::from_bits(*bits as u16).to_f32()).collect()
        }
        Some(DataType::FLOAT16) => raw.as_chunks().0.iter().map(|chunk| f16::from_le_bytes(*chunk).to_f32()).collect(),
        Some(DataType::BFLOAT16) => {
            raw.as_chunks().0.iter().map(|chunk| bf16::from_le_bytes(*chunk).to_f32()).collect()
        }
        other => return Err(format!("holds {}", other.map_or("nothing".to_owned(), |kind| kind.to_string()))),
    };
    if count != Some(values.len()) {
        return Err(format!("has {} numbers for shape {shape:?}", values.len()));
    }
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(StateTensor { shape, values }),
        false => Err("holds a value that is not finite".to_owned()),
    }
}
