//! Single launches through wgpu, without burn: what the tests in browsers and measurements use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use wgpu::util::DeviceExt;

use crate::GpuError;
use crate::conv2d::wgsl::{Buffer, Steps};
use crate::gpu::{Adapter, compile, done, map, unmap};
use crate::shader::{Launch, Specialized};

/// A device that runs one shader at a time.
pub struct Runner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    lost: Arc<AtomicBool>,
    /// What was compiled before: some launches of a convolution are the same in all its forms.
    pipelines: Mutex<HashMap<Specialized, wgpu::ComputePipeline>>,
}

/// A launch with its pipeline and its buffers.
pub struct Prepared {
    launch: Launch,
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

fn limits(adapter: &Adapter) -> wgpu::Limits {
    let wgpu::Limits { max_buffer_size, max_storage_buffer_binding_size, .. } = adapter.limits();
    wgpu::Limits { max_buffer_size, max_storage_buffer_binding_size, ..wgpu::Limits::default() }
}

impl Runner {
    /// With no more than every WebGPU device allows, but for the length of buffers, of which there is as much as the adapter has.
    ///
    /// # Errors
    /// If the adapter gives no device.
    pub async fn new(adapter: &Adapter) -> Result<Self, GpuError> {
        let (device, queue) = adapter.device(limits(adapter), wgpu::Features::empty()).await?;
        let lost = Arc::new(AtomicBool::new(false));
        device.set_device_lost_callback({
            let lost = lost.clone();
            move |_, _| lost.store(true, Ordering::Relaxed)
        });
        Ok(Self { device, queue, lost, pipelines: Mutex::default() })
    }

    /// Whether the device is gone, so that nothing will work any more.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// A buffer with these numbers.
    pub fn upload<T: bytemuck::NoUninit>(&self, values: &[T]) -> wgpu::Buffer {
        self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(values),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        })
    }

    /// A buffer of `len` f32 for results: whatever is not written stays NaN.
    pub fn poisoned(&self, len: usize) -> wgpu::Buffer {
        self.upload(&vec![f32::NAN; len])
    }

    /// # Errors
    /// What the compiler has against the shader.
    pub async fn compile(&self, shader: &Specialized) -> Result<wgpu::ComputePipeline, GpuError> {
        let known = |pipelines: &Mutex<HashMap<_, _>>| pipelines.lock().ok()?.get(shader).cloned();
        if let Some(pipeline) = known(&self.pipelines) {
            return Ok(pipeline);
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let pipeline = compile(&self.device, shader);
        self.accepted(scope, shader).await?;
        if let Ok(mut pipelines) = self.pipelines.lock() {
            pipelines.insert(shader.clone(), pipeline.clone());
        }
        Ok(pipeline)
    }

    /// Makes a launch on buffers, in the order of the shader's bindings, ready to run.
    ///
    /// # Errors
    /// If the device refuses it or is lost.
    pub async fn prepare(&self, launch: &Launch, buffers: &[&wgpu::Buffer]) -> Result<Prepared, GpuError> {
        let pipeline = self.compile(&launch.shader).await?;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let layout = &pipeline.get_bind_group_layout(0);
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
        let bindings = self.device.create_bind_group(&descriptor);
        self.accepted(scope, &launch.shader).await?;
        Ok(Prepared { launch: launch.clone(), pipeline, bindings })
    }

    /// Runs them in turn, that many times over, and waits for the last.
    ///
    /// # Errors
    /// If the device refuses the work or is lost.
    pub async fn repeat(&self, prepared: &[Prepared], times: usize) -> Result<(), GpuError> {
        let Some(first) = prepared.first() else { return Ok(()) };
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for prepared in std::iter::repeat_n(prepared, times).flatten() {
                let Some([x, y, z]) = prepared.launch.grid() else { continue };
                pass.set_pipeline(&prepared.pipeline);
                pass.set_bind_group(0, &prepared.bindings, &[]);
                pass.dispatch_workgroups(x, y, z);
            }
        }
        self.queue.submit([encoder.finish()]);
        done(&self.device, &self.queue).await?;
        self.accepted(scope, &first.launch.shader).await
    }

    /// Makes the launches of a convolution ready to run.
    ///
    /// # Errors
    /// If the device refuses one or is lost.
    pub async fn prepare_steps(
        &self,
        steps: &Steps,
        inputs: [&wgpu::Buffer; 2],
        output: &wgpu::Buffer,
    ) -> Result<Vec<Prepared>, GpuError> {
        let between: Vec<_> = steps.between.iter().map(|len| self.poisoned(*len)).collect();
        let mut prepared = vec![];
        for (launch, buffers) in &steps.launches {
            let buffers: Vec<_> = buffers
                .iter()
                .map(|buffer| match buffer {
                    Buffer::First => inputs[0],
                    Buffer::Second => inputs[1],
                    Buffer::Between(index) => &between[*index],
                    Buffer::Output => output,
                })
                .collect();
            prepared.push(self.prepare(launch, &buffers).await?);
        }
        Ok(prepared)
    }

    /// Runs a launch once on buffers and waits for it.
    ///
    /// # Errors
    /// If the device refuses the work or is lost.
    pub async fn run(&self, launch: &Launch, buffers: &[&wgpu::Buffer]) -> Result<(), GpuError> {
        self.repeat(&[self.prepare(launch, buffers).await?], 1).await
    }

    /// Overwrites the start of a buffer.
    pub fn write<T: bytemuck::NoUninit>(&self, buffer: &wgpu::Buffer, values: &[T]) {
        self.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
    }

    /// Whether all that was asked for since `scope` was accepted. A lost device accepts everything.
    async fn accepted(&self, scope: wgpu::ErrorScopeGuard, shader: &Specialized) -> Result<(), GpuError> {
        let refused = scope.pop().await;
        if self.is_lost() {
            return Err(GpuError::Lost);
        }
        refused.map_or(Ok(()), |error| Err(GpuError::Refused(format!("{}: {error}", shader.shader.name))))
    }

    /// A buffer's f32.
    ///
    /// # Errors
    /// If the device is lost.
    pub async fn read(&self, buffer: &wgpu::Buffer) -> Result<Vec<f32>, GpuError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: buffer.size(), usage, mapped_at_creation: false };
        let staging = self.device.create_buffer(&descriptor);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        self.queue.submit([encoder.finish()]);
        let mapping = map(&staging);
        done(&self.device, &self.queue).await?;
        mapping.await?;
        unmap(&staging, |bytes| bytemuck::cast_slice(bytes).to_vec())
    }
}
