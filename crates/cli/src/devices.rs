//! `kiln devices`, and how commands choose one.

use std::process::ExitCode;

use anyhow::Result;
use kiln::{SelectedDevice, use_known_forms};
use kiln_infer::Precision;
use kiln_kernels::device::{self, DeviceRequest, adapters};
use serde_json::json;

use crate::args::DevicesArgs;
use crate::printable::message;

/// The device for a request, with the forms of Kiln's shaders that are known to be the fastest there.
pub fn choose(request: DeviceRequest) -> Result<SelectedDevice> {
    let selected = device::choose(request)?;
    if let Some(warning) = use_known_forms(&selected) {
        eprintln!("warning: {}", message(warning));
    }
    Ok(selected)
}

pub fn run(args: DevicesArgs) -> Result<ExitCode> {
    let chosen = device::choose(DeviceRequest::Auto)?;
    let adapters = adapters();
    let bf16 = Precision::Bf16.unit_of_cpu();
    if args.json {
        let list: Vec<_> = adapters
            .iter()
            .map(|a| {
                json!({"name": a.name, "api": a.api, "driver": a.driver, "class": a.class.to_string(),
                "f16": a.for_inference().stores(Precision::F16), "matrix_units": a.matrix_units().is_some()})
            })
            .collect();
        println!("{}", json!({"chosen": chosen.name, "reason": chosen.reason, "cpu_bf16": bf16, "adapters": list}));
        return Ok(ExitCode::SUCCESS);
    }
    let bf16 = bf16.map(|unit| format!(", bf16 by {unit}")).unwrap_or_default();
    println!("{:<11} {}{bf16}", "cpu", device::choose(DeviceRequest::Cpu)?.name);
    let mut gpus = 0;
    for adapter in &adapters {
        let name = if adapter.class == kiln_kernels::device::AdapterClass::Software {
            "software".to_owned()
        } else {
            gpus += 1;
            format!("gpu:{}", gpus - 1)
        };
        let f16 = if adapter.for_inference().stores(Precision::F16) { ", f16" } else { "" };
        let units = if adapter.matrix_units().is_some() { ", matrix units" } else { "" };
        println!("{name:<11} {} ({}, {}, {}{f16}{units})", adapter.name, adapter.api, adapter.class, adapter.driver);
    }
    println!("\n--device auto takes {}: {}", chosen.name, chosen.reason);
    Ok(ExitCode::SUCCESS)
}
