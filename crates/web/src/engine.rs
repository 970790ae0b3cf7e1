//! Chooses the executor and records why.

use std::time::Duration;

use js_sys::{Function, Promise, Reflect};
use kiln_kernels::inference::gpu::{self, Adapter, GpuError};
use kiln_kernels::inference::{Plan, PlanError, cpu};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_time::Instant;

use crate::threads;

/// The backends that a page can request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// WebGPU on a hardware GPU, otherwise the CPU.
    Auto,
    /// WebGPU, even on a software adapter; the CPU if there is no adapter.
    WebGpu,
    Cpu,
}

impl Backend {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "webgpu" => Some(Self::WebGpu),
            "cpu" => Some(Self::Cpu),
            _ => None,
        }
    }
}

/// A plan on the device chosen for it.
pub struct Engine {
    executor: Executor,
    /// Why this device runs, in a sentence for the user.
    pub reason: String,
}

enum Executor {
    Cpu(Box<cpu::Executor>),
    Gpu(Box<gpu::Executor>),
}

impl Engine {
    /// Uses the requested backend, or falls back to the CPU and says why. Fails only if the plan runs on neither.
    pub async fn new(plan: &Plan, wish: Backend) -> Result<Self, PlanError> {
        if wish == Backend::Cpu {
            return Self::cpu(plan, "the CPU was selected".into());
        }
        let mut adapter = match Adapter::request().await {
            Ok(adapter) => adapter,
            Err(error) => return Self::cpu(plan, error.to_string()),
        };
        if adapter.name.is_empty() {
            adapter.name = describe_adapter().await.unwrap_or_else(|_| "an unnamed GPU".into());
        }
        if wish == Backend::Auto && !adapter.variants().before_cpu {
            let reason = format!("the only WebGPU adapter, {}, is software and slower than the CPU path", adapter.name);
            return Self::cpu(plan, reason);
        }
        match gpu::Executor::new(&adapter, plan, adapter.variants().precision).await {
            Ok(executor) => {
                let reason = match wish {
                    Backend::Auto => "WebGPU runs on a hardware GPU here",
                    _ => "WebGPU was selected",
                };
                Ok(Self { executor: Executor::Gpu(Box::new(executor)), reason: reason.into() })
            }
            Err(GpuError::Plan(error)) => Err(error),
            Err(error) => Self::cpu(plan, format!("WebGPU failed: {error}")),
        }
    }

    fn cpu(plan: &Plan, reason: String) -> Result<Self, PlanError> {
        Ok(Self { executor: Executor::Cpu(Box::new(cpu::Executor::new(plan.clone())?)), reason })
    }

    /// Computes the feature map `[C, H', W']` of an image `[C, H, W]`. If the device was lost, a new
    /// device answers, or the CPU if there is none.
    pub async fn run(&mut self, plan: &Plan, image: &[f32]) -> Result<(Vec<f32>, gpu::Timings), PlanError> {
        if let Executor::Gpu(executor) = &self.executor {
            let error = match executor.run(image).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            *self = Self::new(plan, Backend::WebGpu).await?;
            match &self.executor {
                Executor::Gpu(executor) => match executor.run(image).await {
                    Ok(result) => {
                        self.reason = format!("{error}; a new device was created");
                        return Ok(result);
                    }
                    Err(again) => *self = Self::cpu(plan, format!("WebGPU failed twice: {error}; {again}"))?,
                },
                Executor::Cpu(_) => self.reason = format!("{error}; then: {}", self.reason),
            }
        }
        let Executor::Cpu(executor) = &mut self.executor else { unreachable!("the GPU path returned above") };
        let start = Instant::now();
        let map = executor.run(image);
        let timings = gpu::Timings { compute: start.elapsed(), upload: Duration::ZERO, read_back: Duration::ZERO };
        Ok((map, timings))
    }

    /// `webgpu` or `cpu`.
    pub fn backend(&self) -> &'static str {
        match &self.executor {
            Executor::Cpu(_) => "cpu",
            Executor::Gpu(_) => "webgpu",
        }
    }

    pub fn device(&self) -> String {
        match &self.executor {
            Executor::Cpu(_) => {
                let simd = if cfg!(target_feature = "simd128") { " SIMD" } else { "" };
                let threads = threads::count();
                format!("CPU, WebAssembly{simd}, {threads} thread{}", if threads == 1 { "" } else { "s" })
            }
            Executor::Gpu(executor) => executor.name().into(),
        }
    }

    pub fn destroy_device(&self) {
        if let Executor::Gpu(executor) = &self.executor {
            executor.destroy();
        }
    }
}

/// Vendor and architecture of the adapter, such as `nvidia ampere`. Most browsers reveal no more, and wgpu does
/// not pass even that on.
async fn describe_adapter() -> Result<String, JsValue> {
    let get = |object: &JsValue, name: &str| Reflect::get(object, &name.into());
    let gpu = get(&get(&js_sys::global(), "navigator")?, "gpu")?;
    let promise = get(&gpu, "requestAdapter")?.dyn_into::<Function>()?.call0(&gpu)?.dyn_into::<Promise>()?;
    let info = get(&JsFuture::from(promise).await?, "info")?;
    let parts =
        ["vendor", "architecture", "device"].map(|name| get(&info, name).ok().and_then(|part| part.as_string()));
    let known: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if known.is_empty() { Err(JsValue::UNDEFINED) } else { Ok(known.join(" ")) }
}
