//! Chooses the executor and records why.

use std::sync::Arc;

use js_sys::{Function, Promise, Reflect};
use kiln_infer::gpu::Adapter;
use kiln_infer::{CpuExecutor, Executor, GpuError, GpuExecutor, Plan, PlanError};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

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

/// An executor and, in a sentence for the user, why it was chosen.
pub type Chosen = (Executor, String);

/// Uses the requested backend, or falls back to the CPU and says why. Fails only if the plan runs on neither.
pub async fn choose(plan: &Arc<Plan>, wish: Backend) -> Result<Chosen, PlanError> {
    if wish == Backend::Cpu {
        return cpu(plan, "the CPU was selected".into());
    }
    let mut adapter = match Adapter::request().await {
        Ok(adapter) => adapter,
        Err(error) => return cpu(plan, error.to_string()),
    };
    if adapter.name.is_empty() {
        adapter.name = describe_adapter().await.unwrap_or_else(|_| "an unnamed GPU".into());
    }
    if wish == Backend::Auto && !adapter.variants().before_cpu {
        let reason = format!("the only WebGPU adapter, {}, is software and slower than the CPU path", adapter.name);
        return cpu(plan, reason);
    }
    match GpuExecutor::new(&adapter, plan, adapter.variants().precision).await {
        Ok(executor) => {
            let reason = match wish {
                Backend::Auto => "WebGPU runs on a hardware GPU here",
                _ => "WebGPU was selected",
            };
            Ok((Executor::Gpu(Box::new(executor)), reason.into()))
        }
        Err(GpuError::Plan(error)) => Err(error),
        Err(error) => cpu(plan, format!("WebGPU failed: {error}")),
    }
}

/// An executor to continue with after a GPU failed: a new device, or the CPU if there is none.
pub async fn replace(plan: &Arc<Plan>, failed: &GpuError) -> Result<Chosen, PlanError> {
    let (executor, reason) = choose(plan, Backend::WebGpu).await?;
    let reason = match executor {
        Executor::Gpu(_) => format!("{failed}; a new device was created"),
        Executor::Cpu(_) => format!("{failed}; then: {reason}"),
    };
    Ok((executor, reason))
}

/// The CPU, for that reason.
pub fn cpu(plan: &Arc<Plan>, reason: String) -> Result<Chosen, PlanError> {
    Ok((Executor::Cpu(Box::new(CpuExecutor::new(plan.clone())?)), reason))
}

/// `webgpu` or `cpu`.
pub fn backend(executor: &Executor) -> &'static str {
    match executor {
        Executor::Cpu(_) => "cpu",
        Executor::Gpu(_) => "webgpu",
    }
}

/// The adapter's name, or what kind of CPU path it is and on how many threads.
pub fn device(executor: &Executor) -> String {
    match executor {
        Executor::Cpu(_) => {
            let simd = if cfg!(target_feature = "simd128") { " SIMD" } else { "" };
            let threads = threads::count();
            format!("CPU, WebAssembly{simd}, {threads} thread{}", if threads == 1 { "" } else { "s" })
        }
        Executor::Gpu(executor) => executor.name().into(),
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
