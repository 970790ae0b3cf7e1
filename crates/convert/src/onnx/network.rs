//! Matches a graph with a residual network: stem, blocks and head, in the order in which data runs.

use kiln_model::{Architecture, NormKind, ResNetConfig, Shortcut, StateDict, StateTensor, Stem};
use rten_onnx::onnx::GraphProto;

use super::graph::Graph;
use crate::{ConvertError, architecture};

/// Added to the variance by Kiln's batch norm, as by PyTorch's.
const EPSILON: f32 = 1e-5;
/// What with [`EPSILON`] makes one: a norm with this variance and no mean leaves its input alone.
const UNIT_VARIANCE: f32 = 1.0 - EPSILON;

/// A convolution and what follows it, with the node that the errors about it name.
struct Unit {
    node: usize,
    weight: StateTensor,
    bias: Option<StateTensor>,
    norm: Option<Norm>,
    /// Kernel, stride, padding.
    window: [i64; 3],
}

/// Batch norm's parameters in PyTorch's terms, with [`EPSILON`].
struct Norm {
    weight: StateTensor,
    bias: StateTensor,
    mean: StateTensor,
    variance: StateTensor,
}

struct Block {
    convs: Vec<Unit>,
    shortcut: Option<Unit>,
}

/// The residual network that a graph runs, its weights under torchvision's names, and notes.
///
/// # Errors
/// If it runs something else, with the name of the first node that shows it.
pub fn of(graph: &GraphProto) -> Result<(ResNetConfig, StateDict, Vec<String>), ConvertError> {
    let mut walk = Walk { graph: Graph::new(graph) };
    let constants: Vec<_> = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
    let mut inputs = graph.input.iter().filter_map(|input| input.name.as_deref());
    let mut inputs = inputs.by_ref().filter(|name| !constants.contains(name));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        return Err(ConvertError::Onnx("it has not exactly one input"));
    };
    let (stem, is_pooled, mut value) = walk.stem(input)?;
    let mut blocks = vec![];
    while !matches!(walk.graph.next_operator(value), "GlobalAveragePool" | "ReduceMean" | "AveragePool") {
        let (block, output) = walk.block(value)?;
        blocks.push(block);
        value = output;
    }
    let (head, has_softmax) = walk.head(value)?;

    let stages = stages(blocks);
    let config = config(&walk.graph, &stem, is_pooled, &stages, &head)?;
    check_windows(&walk.graph, &config, &stem, &stages)?;
    let state = state(&config, stem, stages, head);
    Architecture::from(config.clone())
        .check_shapes(&state.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect())?;
    let notes = if has_softmax { vec!["the softmax after the head was left out".to_owned()] } else { vec![] };
    Ok((config, state, notes))
}

struct Walk<'a> {
    graph: Graph<'a>,
}

impl<'a> Walk<'a> {
    /// The first convolution, whether max pooling follows, and the first block's input.
    fn stem(&mut self, input: &str) -> Result<(Unit, bool, &'a str), ConvertError> {
        let (stem, value) = self.unit(self.graph.reader(input)?)?;
        let mut value = self.relu(value)?;
        let is_pooled = self.graph.next_operator(value) == "MaxPool";
        if is_pooled {
            let index = self.graph.reader(value)?;
            value = self.graph.take(index, "MaxPool")?;
            if self.window(index, None)? != [3, 2, 1] || self.graph.int(index, "ceil_mode", 0) != 0 {
                return Err(self.graph.fault(index, "a stem pools 3 x 3 pixels at stride 2 with a border of 1"));
            }
        }
        Ok((stem, is_pooled, value))
    }

    /// The block that reads a value, and its output.
    fn block(&mut self, value: &str) -> Result<(Block, &'a str), ConvertError> {
        let readers = self.graph.readers(value).to_vec();
        let [first, second] = readers[..] else {
            return Err(match readers.first() {
                Some(index) => self.graph.fault(*index, "a block has two ways from its input to its sum"),
                None => ConvertError::Onnx("it ends before the head of a residual network"),
            });
        };
        let (mut convs, mut shortcut, mut sums, mut ends) = (vec![], None, vec![], vec![]);
        for index in [first, second] {
            if self.graph.operator(index) == "Add" {
                sums.push(index);
                ends.push(value.to_owned());
                continue;
            }
            let (unit, mut output) = self.unit(index)?;
            if self.graph.next_operator(output) == "Add" {
                shortcut = Some(unit);
            } else {
                convs.push(unit);
                while self.graph.next_operator(output) == "Relu" && convs.len() < 3 {
                    output = self.relu(output)?;
                    let (unit, next) = self.unit(self.graph.reader(output)?)?;
                    convs.push(unit);
                    output = next;
                }
            }
            let sum = self.graph.reader(output)?;
            if self.graph.operator(sum) != "Add" {
                return Err(self.graph.fault(sum, "a block has two or three convolutions, then a sum"));
            }
            sums.push(sum);
            ends.push(output.to_owned());
        }
        let sum = sums[0];
        if sums[1] != sum || convs.len() < 2 {
            return Err(self.graph.fault(first, "it does not start a block of two or three convolutions and a sum"));
        }
        let output = self.graph.take(sum, "Add")?;
        let summed = &self.graph.node(sum).input;
        if summed.len() != 2 || !ends.iter().all(|end| summed.contains(end)) {
            return Err(self.graph.fault(sum, "it does not add a block's two ways"));
        }
        Ok((Block { convs, shortcut }, self.relu(output)?))
    }

    /// A convolution with its batch norm, if there is one, and what comes out.
    fn unit(&mut self, index: usize) -> Result<(Unit, &'a str), ConvertError> {
        let mut output = self.graph.take(index, "Conv")?;
        let weight = self.required(index, 1)?;
        let [_, _, height, width] = weight.shape[..] else {
            return Err(self.graph.fault(index, "its weights have not four dimensions"));
        };
        // Sizes without numbers could claim any number of channels.
        if weight.values.is_empty() {
            return Err(self.graph.fault(index, "its weights are empty"));
        }
        if height != width || self.graph.int(index, "group", 1) != 1 {
            return Err(self.graph.fault(index, "its kernel is not square, or its channels are in groups"));
        }
        let window = self.window(index, Some(height as i64))?;
        let bias = self.graph.constant(index, 2)?;
        let mut norm = None;
        if self.graph.next_operator(output) == "BatchNormalization" {
            let index = self.graph.reader(output)?;
            output = self.graph.take(index, "BatchNormalization")?;
            norm = Some(self.norm(index)?);
        }
        Ok((Unit { node: index, weight, bias, norm, window }, output))
    }

    fn norm(&self, index: usize) -> Result<Norm, ConvertError> {
        let graph = &self.graph;
        if graph.int(index, "training_mode", 0) != 0 {
            return Err(graph.fault(index, "it is in training mode: export the model in evaluation mode"));
        }
        let mut variance = self.required(index, 4)?;
        let epsilon = graph.float(index, "epsilon", EPSILON);
        if epsilon != EPSILON {
            variance.values.iter_mut().for_each(|value| *value += epsilon - EPSILON);
        }
        let [weight, bias, mean] = [1, 2, 3].map(|input| self.required(index, input));
        Ok(Norm { weight: weight?, bias: bias?, mean: mean?, variance })
    }

    /// Mean over the pixels, then a linear layer: its weight `[classes, C]` and bias, and whether a softmax follows.
    fn head(&mut self, value: &str) -> Result<([StateTensor; 2], bool), ConvertError> {
        let mut value = self.pool(value)?;
        while let operator @ ("Flatten" | "Reshape" | "Squeeze") = self.graph.next_operator(value) {
            let index = self.graph.reader(value)?;
            value = self.graph.take(index, operator)?;
            if operator == "Reshape" && !matches!(self.graph.integers(index, 1)?[..], [_, _]) {
                return Err(self.graph.fault(index, "it does not make one row an image"));
            }
        }
        let index = self.graph.reader(value)?;
        let (mut value, weight, bias) = match self.graph.operator(index) {
            "MatMul" => {
                let weight = transposed(self.required(index, 1)?);
                let value = self.graph.take(index, "MatMul")?;
                let sum = self.graph.reader(value)?;
                let input = usize::from(self.graph.node(sum).input.first().is_some_and(|name| name == value));
                (self.graph.take(sum, "Add")?, weight, self.required(sum, input)?)
            }
            _ => {
                let value = self.graph.take(index, "Gemm")?;
                let is_plain = ["alpha", "beta"].iter().all(|name| self.graph.float(index, name, 1.0) == 1.0);
                if !is_plain || self.graph.int(index, "transA", 0) != 0 {
                    return Err(self.graph.fault(index, "it is not a linear layer"));
                }
                let weight = self.required(index, 1)?;
                let is_transposed = self.graph.int(index, "transB", 0) == 1;
                (value, if is_transposed { weight } else { transposed(weight) }, self.required(index, 2)?)
            }
        };
        if weight.shape.len() != 2 {
            return Err(self.graph.fault(index, "its weights have not two dimensions"));
        }
        let has_softmax = self.graph.next_operator(value) == "Softmax";
        if has_softmax {
            value = self.graph.take(self.graph.reader(value)?, "Softmax")?;
        }
        self.graph.finish(value)?;
        Ok(([weight, bias], has_softmax))
    }

    /// The mean over all pixels, in the forms that exporters have for it.
    fn pool(&mut self, value: &str) -> Result<&'a str, ConvertError> {
        let index = self.graph.reader(value)?;
        let operator = self.graph.operator(index);
        let output = self.graph.take(index, operator)?;
        let axes = match self.graph.ints(index, "axes") {
            Some(axes) => axes.to_vec(),
            None if operator == "ReduceMean" => self.graph.integers(index, 1)?,
            None => vec![2, 3],
        };
        let is_global = match operator {
            "GlobalAveragePool" => true,
            "ReduceMean" => matches!(axes[..], [2, 3] | [3, 2] | [-2, -1] | [-1, -2] | [2, -1] | [-2, 3]),
            _ => false,
        };
        match is_global {
            true => Ok(output),
            false => Err(self.graph.fault(index, "the head has to average over all pixels")),
        }
    }

    fn relu(&mut self, value: &str) -> Result<&'a str, ConvertError> {
        let index = self.graph.reader(value)?;
        self.graph.take(index, "Relu")
    }

    fn required(&self, index: usize, input: usize) -> Result<StateTensor, ConvertError> {
        self.graph.constant(index, input)?.ok_or_else(|| self.graph.fault(index, format!("it has no input {input}")))
    }

    /// Kernel, stride and padding, the same along both axes. A convolution may leave its kernel to its weights.
    fn window(&self, index: usize, kernel: Option<i64>) -> Result<[i64; 3], ConvertError> {
        let graph = &self.graph;
        let same = |name: &str, default: Option<i64>| match graph.ints(index, name) {
            None => default.ok_or_else(|| graph.fault(index, format!("it has no {name}"))),
            Some([first, rest @ ..]) if rest.iter().all(|value| value == first) => Ok(*first),
            Some(values) => Err(graph.fault(index, format!("its {name} are {values:?} and must be equal"))),
        };
        let padding = graph.attribute(index, "auto_pad").and_then(|attribute| attribute.s.as_deref());
        if !matches!(padding, None | Some("NOTSET")) || same("dilations", Some(1))? != 1 {
            return Err(graph.fault(index, "it has dilations or automatic padding"));
        }
        let found = same("kernel_shape", kernel)?;
        match kernel.is_some_and(|kernel| kernel != found) {
            true => Err(graph.fault(index, "its kernel has another size than its weights")),
            false => Ok([found, same("strides", Some(1))?, same("pads", Some(0))?]),
        }
    }
}

/// A new stage starts with the second and every later block whose shortcut has a convolution.
fn stages(blocks: Vec<Block>) -> Vec<Vec<Block>> {
    let mut stages: Vec<Vec<Block>> = vec![];
    for block in blocks {
        match stages.last_mut() {
            Some(stage) if block.shortcut.is_none() => stage.push(block),
            _ => stages.push(vec![block]),
        }
    }
    stages
}

/// What the parts make, before their windows and shapes are compared with it.
fn config(
    graph: &Graph,
    stem: &Unit,
    is_pooled: bool,
    stages: &[Vec<Block>],
    [head, _]: &[StateTensor; 2],
) -> Result<ResNetConfig, ConvertError> {
    let counts: Vec<usize> = stages.iter().map(Vec::len).collect();
    let Ok(counts) = <[usize; 4]>::try_from(counts) else {
        return Err(ConvertError::Onnx("it has not four stages of blocks"));
    };
    let first = &stages[0][0];
    let depth = architecture::depth(counts, first.convs.len() == 3)?;
    let stem = match (stem.window, is_pooled, first.convs[0].window[1]) {
        ([7, 2, 3], true, 1) => Stem::Imagenet,
        ([3, 1, 1], false, 1) => Stem::Cifar,
        ([3, 1, 1], false, 2) => Stem::Compact,
        _ => return Err(graph.fault(stem.node, "it does not start a stem that Kiln has")),
    };
    let width = first.convs[0].weight.shape[0];
    // Some exporters write biases of zeros.
    let has_bias = |bias: &StateTensor| bias.values.iter().any(|value| *value != 0.0);
    let has_norm = |unit: &Unit| unit.norm.is_some() || unit.bias.as_ref().is_some_and(has_bias);
    let mut shortcuts = stages.iter().flatten().filter_map(|block| block.shortcut.as_ref());
    let shortcut = if shortcuts.any(has_norm) { Shortcut::ProjectionNorm } else { Shortcut::Projection };
    let norm = NormKind::Batch;
    let config = ResNetConfig { depth, width, stem, shortcut, norm, ..ResNetConfig::new(depth, head.shape[0]) };
    config.validate()?;
    Ok(config)
}

/// Compares kernels, strides and paddings with the network's.
fn check_windows(graph: &Graph, config: &ResNetConfig, stem: &Unit, stages: &[Vec<Block>]) -> Result<(), ConvertError> {
    let first = if config.stem == Stem::Imagenet { [7, 2, 3] } else { [3, 1, 1] };
    let mut pairs = vec![(stem, first)];
    for (stage, blocks) in stages.iter().enumerate() {
        for (at, block) in blocks.iter().enumerate() {
            let stride = if at == 0 { config.stage(stage).1 as i64 } else { 1 };
            let expected = match config.is_bottleneck() {
                true => vec![[1, 1, 0], [3, stride, 1], [1, 1, 0]],
                false => vec![[3, stride, 1], [3, 1, 1]],
            };
            if block.convs.len() != expected.len() {
                return Err(graph.fault(block.convs[0].node, "its block has another number of convolutions"));
            }
            pairs.extend(block.convs.iter().zip(expected));
            pairs.extend(block.shortcut.iter().map(|unit| (unit, [1, stride, 0])));
        }
    }
    for (Unit { node, window, .. }, expected) in pairs {
        if *window != expected {
            let [kernel, stride, padding] = expected;
            let expected = format!("a kernel of {kernel}, a stride of {stride} and a border of {padding}");
            return Err(graph.fault(*node, format!("{expected} are expected here, not {window:?}")));
        }
    }
    Ok(())
}

/// The weights under torchvision's names. A folded norm becomes one that adds the convolution's bias and no more.
fn state(config: &ResNetConfig, stem: Unit, stages: Vec<Vec<Block>>, head: [StateTensor; 2]) -> StateDict {
    let mut state = StateDict::new();
    let mut add = |conv: String, norm: Option<String>, unit: Unit, has_bias: bool| {
        let channels = unit.weight.shape[0];
        let of = |value: f32| StateTensor { shape: vec![channels], values: vec![value; channels] };
        let mut bias = unit.bias;
        if has_bias {
            let own = if unit.norm.is_some() { bias.take() } else { None };
            state.insert(format!("{conv}.bias"), own.unwrap_or_else(|| of(0.0)));
        }
        if let Some(name) = norm {
            let mut norm = unit.norm.unwrap_or_else(|| Norm {
                weight: of(1.0),
                bias: of(0.0),
                mean: of(0.0),
                variance: of(UNIT_VARIANCE),
            });
            // A bias before a norm moves its mean.
            if let Some(bias) = bias {
                norm.mean.values.iter_mut().zip(&bias.values).for_each(|(mean, bias)| *mean -= bias);
            }
            let Norm { weight, bias, mean, variance } = norm;
            let parts = [("weight", weight), ("bias", bias), ("running_mean", mean), ("running_var", variance)];
            state.extend(parts.map(|(part, tensor)| (format!("{name}.{part}"), tensor)));
        }
        state.insert(format!("{conv}.weight"), unit.weight);
    };
    add("conv1".to_owned(), Some("bn1".to_owned()), stem, config.stem == Stem::Compact);
    for (stage, blocks) in stages.into_iter().enumerate() {
        for (at, block) in blocks.into_iter().enumerate() {
            let name = format!("layer{}.{at}", stage + 1);
            for (unit, part) in block.convs.into_iter().zip(1..) {
                add(format!("{name}.conv{part}"), Some(format!("{name}.bn{part}")), unit, false);
            }
            if let Some(unit) = block.shortcut {
                let norm = (config.shortcut == Shortcut::ProjectionNorm).then(|| format!("{name}.downsample.1"));
                add(format!("{name}.downsample.0"), norm, unit, false);
            }
        }
    }
    let [weight, bias] = head;
    state.extend([("fc.weight".to_owned(), weight), ("fc.bias".to_owned(), bias)]);
    state
}

/// `[A, B]` to `[B, A]`.
fn transposed(tensor: StateTensor) -> StateTensor {
    let [rows, columns] = tensor.shape[..] else { return tensor };
    let values = (0..columns).flat_map(|column| tensor.values.iter().skip(column).step_by(columns.max(1)).copied());
    StateTensor { values: values.collect(), shape: vec![columns, rows] }
}
