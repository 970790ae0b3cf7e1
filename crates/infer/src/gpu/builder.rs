//! Pipelines and bind groups of a plan's steps.

use std::collections::HashMap;

use wgpu::util::DeviceExt;

use super::{BLOCK, Dispatch, VEC4, compile, encode};
use crate::shader::{ADD_POSITION, ATTENTION, GELU, MAX_POOL, NORM, Shader, Specialized, WORKGROUP};
use crate::variants::Variants;
use crate::{Conv2d, Layout, Norm, Operator, Precision, Step, ValueStorage};

/// What is shared while the steps' dispatches are made.
pub struct Builder<'a> {
    pub device: &'a wgpu::Device,
    pub layout: &'a Layout,
    pub buffers: &'a [wgpu::Buffer],
    pub variants: &'static Variants,
    pub precision: Precision,
    /// Steps of one shape share a pipeline.
    pub pipelines: HashMap<Specialized, wgpu::ComputePipeline>,
}

impl Builder<'_> {
    pub fn dispatch(&mut self, index: usize, step: &Step) -> Dispatch {
        let values = &self.layout.values;
        let (input, output) = (values[step.input], values[index + 1]);
        let residual = step.residual.map(|value| values[value]);
        let pixels = output.shape[1] * output.shape[2];
        let (shader, workgroups, weight, bias) = match &step.operator {
            Operator::Conv2d(conv) => {
                let (weight, bias) = pack(conv, input.pixel);
                let form = &self.variants.conv2d_fused;
                let tiles = pixels.div_ceil(form.pixels) * output.pixel / form.channels;
                (conv2d_shader(form.shader, conv, input), tiles.div_ceil(form.tiles), weight, bias)
            }
            Operator::MaxPool { kernel, stride, padding } => {
                let shader = max_pool_shader([*kernel, *stride, *padding], input);
                (shader, (pixels * output.pixel / VEC4).div_ceil(WORKGROUP), vec![], vec![])
            }
            Operator::Norm(norm) => {
                let workgroups = norm.groups * if norm.per_pixel { pixels } else { 1 };
                (norm_shader(norm, input), workgroups, norm.weight.clone(), norm.bias.clone())
            }
            Operator::Attention { heads } => (attention_shader(*heads, input), heads * pixels, vec![], vec![]),
            Operator::Position { embedding } => {
                // In the order of the output's numbers, padding included.
                let value = |at: usize| embedding.get(at % output.pixel * pixels + at / output.pixel);
                let values = (0..pixels * output.pixel).map(|at| value(at).copied().unwrap_or_default()).collect();
                (each_shader(ADD_POSITION, input), (pixels * output.pixel).div_ceil(WORKGROUP), values, vec![])
            }
            Operator::Gelu => (each_shader(GELU, input), (pixels * output.pixel).div_ceil(WORKGROUP), vec![], vec![]),
        };
        let unit = if matches!(step.operator, Operator::Conv2d(_) | Operator::MaxPool { .. }) { VEC4 } else { 1 };
        let number = if self.precision == Precision::F16 { "f16" } else { "f32" };
        let shader = common(shader, output, residual, step.relu, unit).and([("Number", number.into())]);
        let device = self.device;
        let pipeline = self.pipelines.entry(shader).or_insert_with_key(|shader| compile(device, shader)).clone();

        let constant = |values: &[f32]| {
            self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: None,
                contents: &encode(values, self.precision),
                usage: wgpu::BufferUsages::STORAGE,
            })
        };
        let buffer = |storage: ValueStorage| self.buffers[storage.buffer].clone();
        let mut bound = vec![(2, buffer(input)), (4, buffer(output))];
        // A shader that adds nothing still declares where it would read.
        bound.push((3, residual.map_or_else(|| buffer(input), buffer)));
        let constants = [weight, bias].into_iter().zip(0..).filter(|(values, _)| !values.is_empty());
        bound.extend(constants.map(|(values, binding)| (binding, constant(&values))));
        let entries: Vec<_> = bound
            .iter()
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding: *binding, resource: buffer.as_entire_binding() })
            .collect();
        let layout = &pipeline.get_bind_group_layout(0);
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
        Dispatch { bindings: self.device.create_bind_group(&descriptor), pipeline, workgroups: workgroups as u32 }
    }
}

/// What every shader has; lengths are counted in `unit` numbers.
fn common(
    shader: Specialized,
    output: ValueStorage,
    residual: Option<ValueStorage>,
    relu: bool,
    unit: usize,
) -> Specialized {
    let added = residual.unwrap_or(output);
    shader.and([
        ("PIXELS", (output.shape[1] * output.shape[2]).into()),
        ("OUT_WIDTH", output.shape[2].into()),
        ("OUT_CHANNELS", (output.pixel / unit).into()),
        ("OUT_ROW", (output.row() / unit).into()),
        ("OUT_START", (output.at(0, 0) / unit).into()),
        ("RESIDUAL", residual.is_some().into()),
        ("RESIDUAL_ROW", (added.row() / unit).into()),
        ("RESIDUAL_START", (added.at(0, 0) / unit).into()),
        ("RELU", relu.into()),
    ])
}

fn conv2d_shader(shader: Shader, conv: &Conv2d, input: ValueStorage) -> Specialized {
    let padding = conv.padding as isize;
    shader.with([
        ("KERNEL", conv.kernel.into()),
        ("STRIDE", conv.stride.into()),
        ("IN_CHANNELS", (input.pixel / VEC4).into()),
        ("IN_ROW", (input.row() / VEC4).into()),
        ("IN_START", (input.at(-padding, -padding) / VEC4).into()),
    ])
}

fn max_pool_shader([kernel, stride, padding]: [usize; 3], input: ValueStorage) -> Specialized {
    MAX_POOL.with([
        ("KERNEL", kernel.into()),
        ("STRIDE", stride.into()),
        ("PADDING", padding.into()),
        ("IN_HEIGHT", input.shape[1].into()),
        ("IN_WIDTH", input.shape[2].into()),
        ("IN_ROW", (input.row() / VEC4).into()),
        ("IN_START", (input.at(0, 0) / VEC4).into()),
    ])
}

/// A shader that reads numbers one by one.
fn each_shader(shader: Shader, input: ValueStorage) -> Specialized {
    shader.with([
        ("IN_CHANNELS", input.pixel.into()),
        ("IN_ROW", input.row().into()),
        ("IN_START", input.at(0, 0).into()),
    ])
}

fn norm_shader(norm: &Norm, input: ValueStorage) -> Specialized {
    let [channels, height, width] = input.shape;
    each_shader(NORM, input).and([
        ("GROUPS", norm.groups.into()),
        ("GROUP", (channels / norm.groups).into()),
        ("SPAN", if norm.per_pixel { 1 } else { height * width }.into()),
        ("EPSILON", norm.epsilon.into()),
    ])
}

fn attention_shader(heads: usize, input: ValueStorage) -> Specialized {
    let size = input.shape[0] / 3 / heads;
    each_shader(ATTENTION, input).and([
        ("HEADS", heads.into()),
        ("SIZE", size.into()),
        ("SCALE", (size as f32).sqrt().recip().into()),
    ])
}

/// Weights as `conv2d_fused.wgsl` reads them, `pixel` input channels with the padding, and biases.
fn pack(conv: &Conv2d, pixel: usize) -> (Vec<f32>, Vec<f32>) {
    let (out, area) = (conv.bias.len(), conv.kernel * conv.kernel);
    let mut bias = conv.bias.clone();
    bias.resize(out.next_multiple_of(BLOCK), 0.0);
    let mut packed = vec![0.0; bias.len() * area * pixel];
    for o in 0..out {
        for c in 0..conv.channels {
            for at in 0..area {
                // [O / 8, K K, C / 4, 2 (matrix), 4 (column: c), 4 (row: o)]
                let matrix = (((o / 8 * area + at) * pixel + c) / 4) * 2 + o % 8 / 4;
                packed[matrix * 16 + c % 4 * 4 + o % 4] = conv.weight[(o * conv.channels + c) * area + at];
            }
        }
    }
    (packed, bias)
}
