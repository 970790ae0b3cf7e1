//! Plans on wgpu: native adapters, and WebGPU in a browser, with the shaders in `shaders/`.
//!
//! Buffers, pipelines and bind groups are made once; an image is one upload, one submission and one
//! read-back.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_channel::oneshot;
use half::f16;
use half::slice::HalfFloatSliceExt;
use web_time::Instant;
use wgpu::util::DeviceExt;

use super::{Conv2d, Layout, Norm, Operator, Plan, PlanError, Step, Storage};
use crate::Precision;
use crate::shader::{ADD_POSITION, ATTENTION, GELU, MAX_POOL, NORM, Shader, Specialised, WORKGROUP};
use crate::variants::Variants;

/// Numbers of a vec4.
const VEC4: usize = 4;
/// What the packed weights count channels in.
const BLOCK: usize = 8;

/// A plan's pipelines and buffers on one device.
pub struct Executor {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    precision: Precision,
    input: Storage,
    output: Storage,
    input_buffer: wgpu::Buffer,
    output_buffer: wgpu::Buffer,
    staging: wgpu::Buffer,
    dispatches: Vec<Dispatch>,
    lost: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<String>>>,
    /// The laid-out input, kept between images.
    upload: RefCell<Vec<f32>>,
}

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    workgroups: u32,
}

/// An adapter that a plan could run on.
pub struct Adapter {
    adapter: wgpu::Adapter,
    /// Empty where a browser keeps it to itself.
    pub name: String,
    /// Whether a CPU does the work. Chooses between the forms of a shader that suit one or the other.
    pub is_software: bool,
}

/// How long the parts of one image took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    pub upload: Duration,
    pub compute: Duration,
    pub read_back: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error("there is no GPU adapter: {0}")]
    NoAdapter(String),
    #[error("the adapter gives no device: {0}")]
    NoDevice(String),
    #[error("the adapter {0} does not store {1:?}")]
    Precision(String, Precision),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the device was lost")]
    Lost,
    #[error("the device refused the work: {0}")]
    Refused(String),
}

impl Adapter {
    /// The adapter that wgpu prefers. On wgpu's native side software adapters count too.
    ///
    /// # Errors
    /// If there is none.
    pub async fn request() -> Result<Self, GpuError> {
        #[cfg(target_family = "wasm")]
        if !wgpu::util::is_browser_webgpu_supported().await {
            return Err(GpuError::NoAdapter("this browser has no WebGPU, or no GPU that it may use".into()));
        }
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends =
            wgpu::Backends::BROWSER_WEBGPU | wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = wgpu::Instance::new(descriptor).request_adapter(&options).await;
        let adapter = adapter.map_err(|error| GpuError::NoAdapter(error.to_string()))?;
        Ok(Self::new(adapter))
    }

    pub(crate) fn new(adapter: wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        Self { adapter, name: info.name, is_software: info.device_type == wgpu::DeviceType::Cpu }
    }
}

impl Adapter {
    /// What of [`crate::variants`] runs on it.
    pub fn variants(&self) -> &'static Variants {
        Variants::of(self.is_software)
    }

    /// Whether plans can keep their numbers in that precision on it.
    pub fn stores(&self, precision: Precision) -> bool {
        match precision {
            Precision::F32 => true,
            Precision::F16 => self.adapter.features().contains(wgpu::Features::SHADER_F16),
            Precision::Bf16 => false,
        }
    }

    /// All that a device of it can be asked for.
    pub(crate) fn limits(&self) -> wgpu::Limits {
        self.adapter.limits()
    }

    pub(crate) async fn device(
        &self,
        required_limits: wgpu::Limits,
        required_features: wgpu::Features,
    ) -> Result<(wgpu::Device, wgpu::Queue), GpuError> {
        let descriptor = wgpu::DeviceDescriptor { required_limits, required_features, ..Default::default() };
        self.adapter.request_device(&descriptor).await.map_err(|error| GpuError::NoDevice(error.to_string()))
    }
}

impl Executor {
    /// Makes everything that a run needs and waits until the device has accepted it. `precision` is that of
    /// stored numbers, F32 or, where [`Adapter::stores`] says so, F16; sums are f32.
    ///
    /// # Errors
    /// If the plan does not fit, or the device cannot hold or compile it.
    pub async fn new(adapter: &Adapter, plan: &Plan, precision: Precision) -> Result<Self, GpuError> {
        if !adapter.stores(precision) {
            return Err(GpuError::Precision(adapter.name.clone(), precision));
        }
        let layout = Layout::new(plan, [VEC4, BLOCK])?;
        let largest = layout.buffers.iter().copied().chain(plan.steps.iter().map(weights)).max().unwrap_or(0);
        let mut limits = wgpu::Limits::default();
        let bytes = bytes_of(largest, precision);
        limits.max_buffer_size = limits.max_buffer_size.max(bytes);
        limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.max(bytes);
        let f16 = if precision == Precision::F16 { wgpu::Features::SHADER_F16 } else { wgpu::Features::empty() };
        let (device, queue) = adapter.device(limits, f16).await?;
        let lost = Arc::new(AtomicBool::new(false));
        let failure = Arc::new(Mutex::new(None));
        device.set_device_lost_callback({
            let lost = lost.clone();
            move |_, _| lost.store(true, Ordering::Relaxed)
        });
        device.on_uncaptured_error({
            let failure = failure.clone();
            // Later errors only follow from the first.
            Arc::new(move |error: wgpu::Error| {
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(error.to_string());
                }
            })
        });

        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = |len: usize, usage| {
            let size = bytes_of(len, precision);
            // WebGPU clears every buffer; the borders rely on it.
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let buffers: Vec<_> = layout.buffers.iter().map(|len| buffer(*len, usage)).collect();
        let (input, output) = (layout.values[0], *layout.values.last().expect("there is always the input"));
        let staging = buffer(output.len(), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut builder = Builder {
            device: &device,
            layout: &layout,
            buffers: &buffers,
            variants: adapter.variants(),
            precision,
            pipelines: HashMap::new(),
        };
        let dispatches = plan.steps.iter().enumerate().map(|(index, step)| builder.dispatch(index, step)).collect();
        let executor = Self {
            name: adapter.name.clone(),
            precision,
            input,
            output,
            input_buffer: buffers[input.buffer].clone(),
            output_buffer: buffers[output.buffer].clone(),
            staging,
            dispatches,
            lost,
            failure,
            upload: RefCell::new(vec![0.0; input.len()]),
            device,
            queue,
        };
        // Compilation errors of a browser arrive with the first work that is done.
        executor.wait().await?;
        Ok(executor)
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last value, `[C, H, W]`, for an image `[C, H, W]`. Runs must not overlap.
    ///
    /// # Errors
    /// If the device is lost or refuses the work.
    ///
    /// # Panics
    /// If `image` has not the size of the plan's input.
    pub async fn run(&self, image: &[f32]) -> Result<(Vec<f32>, Timings), GpuError> {
        assert_eq!(image.len(), self.input.shape.iter().product::<usize>(), "an image of {:?}", self.input.shape);
        let start = Instant::now();
        {
            let mut upload = self.upload.borrow_mut();
            self.input.store(image, &mut upload);
            self.queue.write_buffer(&self.input_buffer, 0, &encode(&upload, self.precision));
        }
        let uploaded = Instant::now();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for dispatch in &self.dispatches {
                pass.set_pipeline(&dispatch.pipeline);
                pass.set_bind_group(0, &dispatch.bindings, &[]);
                pass.dispatch_workgroups(dispatch.workgroups, 1, 1);
            }
        }
        encoder.copy_buffer_to_buffer(&self.output_buffer, 0, &self.staging, 0, self.staging.size());
        self.queue.submit([encoder.finish()]);
        let mapping = map(&self.staging);
        self.wait().await?;
        let computed = Instant::now();
        mapping.await.map_err(|error| self.failure().unwrap_or(error))?;
        let values = unmap(&self.staging, |bytes| self.output.load(&decode(bytes, self.precision)))?;
        let timings = Timings { upload: uploaded - start, compute: computed - uploaded, read_back: computed.elapsed() };
        Ok((values, timings))
    }

    /// Loses the device, as a driver's reset would. Later runs fail with [`GpuError::Lost`].
    pub fn destroy(&self) {
        self.device.destroy();
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Waits until all submitted work is done.
    async fn wait(&self) -> Result<(), GpuError> {
        done(&self.device, &self.queue).await?;
        self.failure().map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<GpuError> {
        if self.lost.load(Ordering::Relaxed) {
            return Some(GpuError::Lost);
        }
        let failure = self.failure.lock().ok()?;
        failure.clone().map(GpuError::Refused)
    }
}

/// Numbers of a step's packed weights.
fn weights(step: &Step) -> usize {
    match &step.operator {
        Operator::Conv2d(conv) => {
            let area = conv.kernel * conv.kernel;
            conv.bias.len().next_multiple_of(BLOCK) * conv.channels.next_multiple_of(BLOCK) * area
        }
        Operator::Norm(norm) => norm.weight.len(),
        Operator::Position { embedding } => embedding.len(),
        Operator::MaxPool { .. } | Operator::Attention { .. } | Operator::Gelu => 0,
    }
}

/// Bytes of a buffer of `len` numbers; buffers are copied in words of 32 bits.
fn bytes_of(len: usize, precision: Precision) -> u64 {
    (len.div_ceil(precision.per_word()) * size_of::<u32>()) as u64
}

/// Numbers as a buffer holds them.
fn encode(values: &[f32], precision: Precision) -> Cow<'_, [u8]> {
    if precision != Precision::F16 {
        return Cow::Borrowed(bytemuck::cast_slice(values));
    }
    let mut halves = vec![f16::ZERO; values.len().next_multiple_of(2)];
    halves[..values.len()].convert_from_f32_slice(values);
    Cow::Owned(bytemuck::cast_slice(&halves).to_vec())
}

/// The way back of [`encode`].
fn decode(bytes: &[u8], precision: Precision) -> Cow<'_, [f32]> {
    if precision != Precision::F16 {
        return Cow::Borrowed(bytemuck::cast_slice(bytes));
    }
    Cow::Owned(bytemuck::cast_slice::<_, f16>(bytes).to_f32_vec())
}

/// What is shared while the steps' dispatches are made.
struct Builder<'a> {
    device: &'a wgpu::Device,
    layout: &'a Layout,
    buffers: &'a [wgpu::Buffer],
    variants: &'static Variants,
    precision: Precision,
    /// Steps of one shape share a pipeline.
    pipelines: HashMap<Specialised, wgpu::ComputePipeline>,
}

impl Builder<'_> {
    fn dispatch(&mut self, index: usize, step: &Step) -> Dispatch {
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
        let buffer = |storage: Storage| self.buffers[storage.buffer].clone();
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

/// Waits until all submitted work is done.
pub(crate) async fn done(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<(), GpuError> {
    let (send, done) = oneshot::channel();
    queue.on_submitted_work_done(move || {
        let _ = send.send(());
    });
    #[cfg(not(target_family = "wasm"))]
    device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| GpuError::Refused(error.to_string()))?;
    #[cfg(target_family = "wasm")]
    let _ = device;
    done.await.map_err(|_| GpuError::Lost)
}

/// Asks for a buffer's bytes. Before [`done`] is waited for: one after the other would cost a second
/// round trip.
pub(crate) fn map(staging: &wgpu::Buffer) -> impl Future<Output = Result<(), GpuError>> + use<> {
    let (send, mapped) = oneshot::channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| {
        let _ = send.send(result);
    });
    async {
        match mapped.await {
            Ok(Ok(())) => Ok(()),
            _ => Err(GpuError::Lost),
        }
    }
}

/// Takes what it needs from the bytes that [`map`] gave, and gives them back.
pub(crate) fn unmap<T>(staging: &wgpu::Buffer, take: impl FnOnce(&[u8]) -> T) -> Result<T, GpuError> {
    let taken = {
        let view = staging.get_mapped_range(..).map_err(|error| GpuError::Refused(error.to_string()))?;
        take(&view)
    };
    staging.unmap();
    Ok(taken)
}

pub(crate) fn compile(device: &wgpu::Device, shader: &Specialised) -> wgpu::ComputePipeline {
    let source = wgpu::ShaderSource::Wgsl(shader.source().into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    })
}

/// What every shader has; lengths are counted in `unit` numbers.
fn common(shader: Specialised, output: Storage, residual: Option<Storage>, relu: bool, unit: usize) -> Specialised {
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

fn conv2d_shader(shader: Shader, conv: &Conv2d, input: Storage) -> Specialised {
    let padding = conv.padding as isize;
    shader.with([
        ("KERNEL", conv.kernel.into()),
        ("STRIDE", conv.stride.into()),
        ("IN_CHANNELS", (input.pixel / VEC4).into()),
        ("IN_ROW", (input.row() / VEC4).into()),
        ("IN_START", (input.at(-padding, -padding) / VEC4).into()),
    ])
}

fn max_pool_shader([kernel, stride, padding]: [usize; 3], input: Storage) -> Specialised {
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
fn each_shader(shader: Shader, input: Storage) -> Specialised {
    shader.with([
        ("IN_CHANNELS", input.pixel.into()),
        ("IN_ROW", input.row().into()),
        ("IN_START", input.at(0, 0).into()),
    ])
}

fn norm_shader(norm: &Norm, input: Storage) -> Specialised {
    let [channels, height, width] = input.shape;
    each_shader(NORM, input).and([
        ("GROUPS", norm.groups.into()),
        ("GROUP", (channels / norm.groups).into()),
        ("SPAN", if norm.per_pixel { 1 } else { height * width }.into()),
        ("EPSILON", norm.epsilon.into()),
    ])
}

fn attention_shader(heads: usize, input: Storage) -> Specialised {
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

/// An adapter for a test. Without one it panics, so that no test passes by not running;
/// `KILN_SKIP_GPU=1` skips such tests and says so.
#[cfg(test)]
pub(crate) fn for_tests() -> Option<Adapter> {
    if std::env::var_os("KILN_SKIP_GPU").is_some() {
        eprintln!("skipped: KILN_SKIP_GPU is set");
        return None;
    }
    let adapter = pollster::block_on(Adapter::request());
    Some(adapter.expect("a Vulkan, Metal or DX12 adapter, or KILN_SKIP_GPU=1 to go without"))
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::tests::{error, noise, plans};
    use super::*;

    #[test]
    fn every_step_agrees_with_the_reference_in_double_precision() {
        if for_tests().is_none() {
            return;
        }
        for (is_software, plan) in
            [true, false].into_iter().flat_map(|form| plans().into_iter().map(move |plan| (form, plan)))
        {
            let adapter = Adapter { is_software, ..for_tests().unwrap() };
            let image = noise(plan.input.iter().product(), 1);
            let expected = reference::run(&plan, &image);
            for (precision, limit) in [(Precision::F32, 1e-5), (Precision::F16, 1e-2)] {
                if !adapter.stores(precision) {
                    eprintln!("skipped: {} does not store {precision:?}", adapter.name);
                    continue;
                }
                let executor = pollster::block_on(Executor::new(&adapter, &plan, precision)).unwrap();
                // The second run finds the buffers as the first left them.
                for _ in 0..2 {
                    let (found, _) = pollster::block_on(executor.run(&image)).unwrap();
                    let error = error(&found, &expected);
                    assert!(error < limit, "{error} with {precision:?} in {:?}", plan.shapes());
                }
            }
        }
    }

    #[test]
    fn a_precision_that_no_shader_stores_is_refused() {
        let Some(adapter) = for_tests() else { return };
        let made = pollster::block_on(Executor::new(&adapter, &plans()[0], Precision::Bf16));
        assert!(matches!(made, Err(GpuError::Precision(..))));
    }

    #[test]
    fn a_lost_device_is_an_error() {
        let Some(adapter) = for_tests() else { return };
        let plan = plans().pop().unwrap();
        let executor = pollster::block_on(Executor::new(&adapter, &plan, Precision::F32)).unwrap();
        let image = noise(plan.input.iter().product(), 1);
        executor.destroy();
        assert!(matches!(pollster::block_on(executor.run(&image)), Err(GpuError::Lost | GpuError::Refused(_))));
    }
}
