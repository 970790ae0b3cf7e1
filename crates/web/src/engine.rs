//! Which executor runs, and why.

use std::time::Duration;

use js_sys::{Function, Promise, Reflect};
use kiln_kernels::inference::gpu::{self, Adapter, GpuError};
use kiln_kernels::inference::{Plan, PlanError, cpu};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_time::Instant;

/// What a page can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// WebGPU on real hardware, otherwise the CPU.
    Auto,
    /// WebGPU, on a software adapter too; the CPU where there is no adapter.
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

/// A plan on the device that was chosen for it.
pub struct Engine {
    executor: Executor,
    /// One sentence for a user.
    pub reason: String,
}

enum Executor {
    Cpu(Box<cpu::Executor>),
    Gpu(Box<gpu::Executor>),
}

impl Engine {
    /// Meets the wish, or falls back to the CPU and says why. Only a plan that fits nowhere fails.
    pub async fn new(plan: &Plan, wish: Backend) -> Result<Self, PlanError> {
        if wish == Backend::Cpu {
            return Self::cpu(plan, "the CPU was asked for".into());
        }
        let mut adapter = match Adapter::request().await {
            Ok(adapter) => adapter,
            Err(error) => return Self::cpu(plan, error.to_string()),
        };
        if adapter.name.is_empty() {
            adapter.name = describe_adapter().await.unwrap_or_else(|_| "a GPU without a name".into());
        }
        if wish == Backend::Auto && !adapter.variants().before_cpu {
            let reason = format!("the only WebGPU adapter, {}, is software and slower than the CPU path", adapter.name);
            return Self::cpu(plan, reason);
        }
        match gpu::Executor::new(&adapter, plan, adapter.variants().precision).await {
            Ok(executor) => {
                let reason = match wish {
                    Backend::Auto => "WebGPU is there, on real hardware",
                    _ => "WebGPU was asked for",
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

    /// The feature map `[C, H', W']` of an image `[C, H, W]`. After a device was lost, the answer
    /// comes from a new one, or from the CPU if there is none.
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
                        self.reason = format!("{error}, and a new one was made");
                        return Ok(result);
                    }
                    Err(again) => *self = Self::cpu(plan, format!("WebGPU failed twice: {error}; {again}"))?,
                },
                Executor::Cpu(_) => self.reason = format!("{error}; then: {}", self.reason),
            }
        }
        let Executor::Cpu(executor) = &mut self.executor else { unreachable!("a GPU answered above") };
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

    pub fn device(&self) -> &str {
        match &self.executor {
            Executor::Cpu(_) if cfg!(target_feature = "simd128") => "CPU, WebAssembly SIMD, 1 thread",
            Executor::Cpu(_) => "CPU, WebAssembly, 1 thread",
            Executor::Gpu(executor) => executor.name(),
        }
    }

    pub fn destroy_device(&self) {
        if let Executor::Gpu(executor) = &self.executor {
            executor.destroy();
        }
    }
}

/// Maker and family of the adapter, such as `nvidia ampere`: all that most browsers tell, and that wgpu
/// does not pass on.
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
