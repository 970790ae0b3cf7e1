//! A bundle's network as an ONNX model, of operators that every runtime has (opset 17).

use std::cell::RefCell;

use kiln_infer::{Conv2d, Norm, Operator, Plan};
use kiln_model::container::f32_bytes;
use kiln_model::{Architecture, Bundle, Metadata, NormKind, ResNetConfig, Shortcut, StateDict, StateTensor};
use rten_onnx::onnx::{
    AttributeProto, AttributeType, DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, TypeProtoTensor, ValueInfoProto,
};
use rten_onnx::protobuf::{EncodeMessage, MessageWriter, ProtobufError, ValueWriter, WriteValue};

use crate::ConvertError;

/// Version of the operators: the first with a layer normalization.
const OPSET: i64 = 17;
/// Version of the file format that came with it.
const IR_VERSION: i64 = 8;
/// PyTorch's default.
const EPSILON: f32 = 1e-5;

/// How a model is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnnxOptions {
    /// Keep batch norms as operators instead of folding them into the convolutions before them.
    pub unfolded: bool,
    /// Give probabilities instead of logits.
    pub softmax: bool,
}

/// A bundle as an ONNX model in f32: `input` `[batch, 3, S, S]`, normalized, to `logits` `[batch, classes]` (or
/// `probabilities`). Its metadata has `classes`, `mean`, `std`, `image_size` and `preprocessing`, as JSON.
///
/// # Errors
/// If the network does not fit the weights, or if batch norms are to be kept of a network that has none.
pub fn to_onnx(bundle: &Bundle, options: OnnxOptions) -> Result<Vec<u8>, ConvertError> {
    let Bundle { metadata, state } = bundle;
    let plan = bundle.inference()?.plan;
    let norms = match (options.unfolded, &metadata.architecture) {
        (false, _) => vec![],
        (true, Architecture::ResNet(config)) if config.norm == NormKind::Batch => layers(config),
        (true, other) => return Err(ConvertError::Unfolded(other.to_string())),
    };
    let mut writer = Writer::default();
    let map = writer.plan(&plan, state, &norms)?;
    let head = metadata.architecture.head().map(|name| &state[name]);
    let mut output = writer.head(&map, head);
    if options.softmax {
        output = writer.node("Softmax", "probabilities", &[&output], vec![int("axis", -1)]);
    }
    let Writer { nodes, initializers, .. } = writer;
    let [channels, height, width] = plan.input;
    let graph = GraphProto {
        node: nodes,
        initializer: initializers,
        input: vec![value("input", &[channels, height, width])],
        output: vec![value(&output, &[metadata.architecture.classes()])],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("kiln".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: None,
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: entries(metadata),
    };
    let mut bytes = vec![];
    Named { model, graph: NamedGraph(graph) }.encode(ValueWriter::new(&mut bytes))?;
    Ok(bytes)
}

/// A model whose graph has a name, which the format demands and rten-onnx leaves out.
struct Named {
    /// Without its graph.
    model: ModelProto,
    graph: NamedGraph,
}

struct NamedGraph(GraphProto);

impl EncodeMessage for Named {
    fn encode_fields<W: WriteValue>(&self, fields: &mut MessageWriter<W>) -> Result<(), ProtobufError> {
        const GRAPH: u64 = 7;
        self.model.encode_fields(fields)?;
        fields.write_message(GRAPH, &self.graph)
    }
}

impl EncodeMessage for NamedGraph {
    fn encode_fields<W: WriteValue>(&self, fields: &mut MessageWriter<W>) -> Result<(), ProtobufError> {
        const NAME: u64 = 2;
        fields.write_string(NAME, "kiln")?;
        self.0.encode_fields(fields)
    }
}

/// What a model's user needs beside its weights.
fn entries(metadata: &Metadata) -> Vec<StringStringEntryProto> {
    let json = |value: serde_json::Value| Some(value.to_string());
    let entries = [
        ("classes", json(metadata.classes.clone().into())),
        ("mean", json(numbers(metadata.mean))),
        ("std", json(numbers(metadata.std))),
        ("image_size", json(metadata.image_size.into())),
        // `null` for the center square.
        ("preprocessing", serde_json::to_string(&metadata.preprocessing).ok()),
    ];
    let entry = |(key, value): (&str, Option<String>)| StringStringEntryProto { key: Some(key.to_owned()), value };
    entries.into_iter().map(entry).collect()
}

/// Through text, so that 0.485 in f32 does not become 0.48500001430511475.
fn numbers(values: [f32; 3]) -> serde_json::Value {
    values.iter().map(|value| value.to_string().parse::<f64>().unwrap_or(f64::from(*value))).collect()
}

/// A convolution's and its norm's names in a state dict, in the order of a plan's convolutions.
fn layers(config: &ResNetConfig) -> Vec<(String, Option<String>)> {
    let mut layers = vec![("conv1".to_owned(), Some("bn1".to_owned()))];
    let mut channels = config.stem_channels();
    for (stage, blocks) in config.blocks().into_iter().enumerate() {
        let (mid, first_stride) = config.stage(stage);
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            let output = mid * config.expansion();
            if (block == 0 && first_stride != 1) || channels != output {
                let norm = config.shortcut == Shortcut::ProjectionNorm;
                layers.push((format!("{name}.downsample.0"), norm.then(|| format!("{name}.downsample.1"))));
            }
            let convs = if config.is_bottleneck() { 1..=3 } else { 1..=2 };
            layers.extend(convs.map(|part| (format!("{name}.conv{part}"), Some(format!("{name}.bn{part}")))));
            channels = output;
        }
    }
    layers
}

/// Nodes and weights on their way into a graph.
#[derive(Default)]
struct Writer {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
}

impl Writer {
    /// A plan's steps; the name of the last value. `layers` are the names of its convolutions and norms if these are not
    /// to be folded.
    fn plan(
        &mut self,
        plan: &Plan,
        state: &StateDict,
        layers: &[(String, Option<String>)],
    ) -> Result<String, ConvertError> {
        let shapes = plan.shapes()?;
        let mut layers = layers.iter();
        let mut values = vec!["input".to_owned()];
        for (index, step) in plan.steps.iter().enumerate() {
            let (name, input) = (format!("step{}", index + 1), values[step.input].clone());
            let shape = shapes[index + 1];
            let mut made = match &step.operator {
                Operator::Conv2d(conv) => match layers.next() {
                    Some((conv_name, norm)) => {
                        self.layer(&name, &input, conv, [conv_name, norm.as_deref().unwrap_or_default()], state)
                    }
                    None => self.conv(&name, &input, conv, ["weight", "bias"].map(|part| format!("{name}.{part}"))),
                },
                Operator::Norm(norm) if norm.per_pixel => self.layer_norm(&name, &input, norm),
                Operator::Norm(norm) => self.group_norm(&name, &input, norm, shape),
                Operator::Attention { heads } => self.attention(&name, &input, *heads, shape),
                Operator::Position { embedding } => {
                    let embedding = self.floats(format!("{name}.embedding"), &[&[1], &shape[..]].concat(), embedding);
                    self.node("Add", &name, &[&input, &embedding], vec![])
                }
                Operator::Gelu => self.gelu(&name, &input),
                Operator::MaxPool { kernel, stride, padding } => {
                    self.node("MaxPool", &name, &[&input], window(*kernel, *stride, *padding))
                }
            };
            if let Some(residual) = step.residual {
                made = self.node("Add", &format!("{name}.sum"), &[&made, &values[residual]], vec![]);
            }
            if step.relu {
                made = self.node("Relu", &format!("{name}.relu"), &[&made], vec![]);
            }
            values.push(made);
        }
        Ok(values.pop().unwrap_or_default())
    }

    /// Mean over the pixels, and the linear layer.
    fn head(&mut self, map: &str, [weight, bias]: [&StateTensor; 2]) -> String {
        let pooled = self.node("GlobalAveragePool", "head.pool", &[map], vec![]);
        let features = self.node("Flatten", "features", &[&pooled], vec![int("axis", 1)]);
        let weight = self.floats("head.weight".to_owned(), &weight.shape, &weight.values);
        let bias = self.floats("head.bias".to_owned(), &bias.shape, &bias.values);
        self.node("Gemm", "logits", &[&features, &weight, &bias], vec![int("transB", 1)])
    }

    fn conv(&mut self, name: &str, input: &str, conv: &Conv2d, names: [String; 2]) -> String {
        let Conv2d { channels, kernel, stride, padding, .. } = *conv;
        let [weight, bias] = names;
        let weight = self.floats(weight, &[conv.bias.len(), channels, kernel, kernel], &conv.weight);
        let bias = self.floats(bias, &[conv.bias.len()], &conv.bias);
        self.node("Conv", name, &[input, &weight, &bias], window(kernel, stride, padding))
    }

    /// A convolution and its batch norm with the weights that a state dict has.
    fn layer(&mut self, name: &str, input: &str, conv: &Conv2d, [layer, norm]: [&str; 2], state: &StateDict) -> String {
        let Conv2d { kernel, stride, padding, .. } = *conv;
        let parts = [format!("{layer}.weight"), format!("{layer}.bias")];
        let mut inputs = vec![input.to_owned()];
        let present = parts.into_iter().filter_map(|part| state.get(&part).map(|tensor| (part, tensor)));
        inputs.extend(present.map(|(part, tensor)| self.floats(part, &tensor.shape, &tensor.values)));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let made = self.node("Conv", name, &inputs, window(kernel, stride, padding));
        if norm.is_empty() {
            return made;
        }
        let parts = ["weight", "bias", "running_mean", "running_var"].map(|part| {
            let tensor = &state[&format!("{norm}.{part}")];
            self.floats(format!("{norm}.{part}"), &tensor.shape, &tensor.values)
        });
        let [weight, bias, mean, variance] = parts.each_ref().map(String::as_str);
        let inputs = [&made, weight, bias, mean, variance];
        self.node("BatchNormalization", &format!("{name}.norm"), &inputs, vec![float("epsilon", EPSILON)])
    }

    /// Each group as a channel of an instance norm, then each channel's own scale.
    fn group_norm(&mut self, name: &str, input: &str, norm: &Norm, [channels, height, width]: [usize; 3]) -> String {
        let part = |part: &str| format!("{name}.{part}");
        let groups = self.reshaped(&part("groups"), input, &[0, norm.groups as i64, -1]);
        let ones = self.floats(part("ones"), &[norm.groups], &vec![1.0; norm.groups]);
        let zeros = self.floats(part("zeros"), &[norm.groups], &vec![0.0; norm.groups]);
        let epsilon = vec![float("epsilon", norm.epsilon)];
        let normal = self.node("InstanceNormalization", &part("normal"), &[&groups, &ones, &zeros], epsilon);
        let shape = [0, channels as i64, height as i64, width as i64];
        let map = self.reshaped(&part("map"), &normal, &shape);
        let weight = self.floats(part("weight"), &[channels, 1, 1], &norm.weight);
        let bias = self.floats(part("bias"), &[channels, 1, 1], &norm.bias);
        let scaled = self.node("Mul", &part("scaled"), &[&map, &weight], vec![]);
        self.node("Add", name, &[&scaled, &bias], vec![])
    }

    /// Over the channels of each pixel, which come last meanwhile.
    fn layer_norm(&mut self, name: &str, input: &str, norm: &Norm) -> String {
        let part = |part: &str| format!("{name}.{part}");
        let pixels = self.transposed(&part("pixels"), input, &[0, 2, 3, 1]);
        let weight = self.floats(part("weight"), &[norm.weight.len()], &norm.weight);
        let bias = self.floats(part("bias"), &[norm.bias.len()], &norm.bias);
        let attributes = vec![int("axis", -1), float("epsilon", norm.epsilon)];
        let normal = self.node("LayerNormalization", &part("normal"), &[&pixels, &weight, &bias], attributes);
        self.transposed(name, &normal, &[0, 3, 1, 2])
    }

    /// Softmax attention of every pixel to every pixel, in heads.
    fn attention(&mut self, name: &str, input: &str, heads: usize, [channels, height, width]: [usize; 3]) -> String {
        let part = |part: &str| format!("{name}.{part}");
        let size = channels / heads;
        let shape = [0, 3, heads as i64, size as i64, (height * width) as i64];
        let all = self.reshaped(&part("heads"), input, &shape);
        let [query, key, values] = [("query", 0), ("key", 1), ("value", 2)].map(|(kind, index)| {
            let index = self.integers(part(&format!("{kind}.index")), &[], &[index]);
            self.node("Gather", &part(kind), &[&all, &index], vec![int("axis", 1)])
        });
        // [N, heads, tokens, size] x [N, heads, size, tokens]
        let query = self.transposed(&part("queries"), &query, &[0, 1, 3, 2]);
        let scores = self.node("MatMul", &part("scores"), &[&query, &key], vec![]);
        let scale = self.floats(part("scale"), &[], &[1.0 / (size as f32).sqrt()]);
        let scores = self.node("Mul", &part("scaled"), &[&scores, &scale], vec![]);
        let weights = self.node("Softmax", &part("weights"), &[&scores], vec![int("axis", -1)]);
        let weights = self.transposed(&part("keys"), &weights, &[0, 1, 3, 2]);
        let sums = self.node("MatMul", &part("sums"), &[&values, &weights], vec![]);
        self.reshaped(name, &sums, &[0, channels as i64, height as i64, width as i64])
    }

    fn gelu(&mut self, name: &str, input: &str) -> String {
        let part = |part: &str| format!("{name}.{part}");
        let root = self.floats(part("root"), &[], &[std::f32::consts::SQRT_2]);
        let one = self.floats(part("one"), &[], &[1.0]);
        let half = self.floats(part("half"), &[], &[0.5]);
        let ratio = self.node("Div", &part("ratio"), &[input, &root], vec![]);
        let erf = self.node("Erf", &part("erf"), &[&ratio], vec![]);
        let share = self.node("Add", &part("share"), &[&erf, &one], vec![]);
        let product = self.node("Mul", &part("product"), &[input, &share], vec![]);
        self.node("Mul", name, &[&product, &half], vec![])
    }

    fn reshaped(&mut self, name: &str, input: &str, shape: &[i64]) -> String {
        let shape = self.integers(format!("{name}.shape"), &[shape.len()], shape);
        self.node("Reshape", name, &[input, &shape], vec![])
    }

    fn transposed(&mut self, name: &str, input: &str, order: &[i64]) -> String {
        self.node("Transpose", name, &[input], vec![ints("perm", order)])
    }

    /// Adds a node whose output has its name; the name.
    fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.nodes.push(NodeProto {
            name: Some(name.to_owned()),
            op_type: Some(operator.to_owned()),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![name.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
        name.to_owned()
    }

    /// Adds weights; their name.
    fn floats(&mut self, name: String, shape: &[usize], values: &[f32]) -> String {
        self.tensor(name, DataType::FLOAT, shape, f32_bytes(values).into_owned())
    }

    fn integers(&mut self, name: String, shape: &[usize], values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, DataType::INT64, shape, bytes)
    }

    fn tensor(&mut self, name: String, kind: DataType, shape: &[usize], bytes: Vec<u8>) -> String {
        self.initializers.push(TensorProto {
            name: Some(name.clone()),
            dims: shape.iter().map(|side| *side as i64).collect(),
            data_type: Some(kind),
            raw_data: Some(RefCell::new(bytes)),
            ..TensorProto::default()
        });
        name
    }
}

/// A tensor of f32 `[batch, ..]` that goes into a graph or comes out.
fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let batch = Dimension { dim_param: Some("batch".to_owned()), ..Dimension::default() };
    let sides = shape.iter().map(|side| Dimension { dim_value: Some(*side as i64), ..Dimension::default() });
    let tensor = TypeProtoTensor {
        elem_type: Some(DataType::FLOAT),
        shape: Some(TensorShapeProto { dim: std::iter::once(batch).chain(sides).collect() }),
    };
    let kind = TypeProto { tensor_type: Some(tensor), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind) }
}

fn window(kernel: usize, stride: usize, padding: usize) -> Vec<AttributeProto> {
    let [kernel, stride, padding] = [kernel, stride, padding].map(|value| value as i64);
    vec![ints("kernel_shape", &[kernel; 2]), ints("strides", &[stride; 2]), ints("pads", &[padding; 4])]
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::INT) }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::INTS) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::FLOAT) }
}
