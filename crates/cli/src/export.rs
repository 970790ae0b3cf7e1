//! `kiln export`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use kiln::{score, test_images};
use kiln_convert::{OnnxOptions, to_onnx, to_pytorch};
use kiln_model::Bundle;
use kiln_model::container::Storage;
use kiln_report::grouped;
use kiln_train::Evaluation;
use kiln_train::run_dir::write_whole;
use serde_json::json;

use crate::args::{ExportArgs, Format};
use crate::data;
use crate::devices::choose;
use crate::model::open;

pub fn run(args: ExportArgs) -> Result<ExitCode> {
    ensure!(
        args.format == Format::Onnx || !(args.unfolded || args.softmax),
        "--unfolded and --softmax belong to --format onnx"
    );
    match args.format {
        Format::Web => smaller(args),
        Format::Safetensors | Format::Pytorch | Format::Onnx => converted(args),
    }
}

/// Writes the network in f32, which rounds nothing, whatever it is stored in.
fn converted(args: ExportArgs) -> Result<ExitCode> {
    ensure!(args.storage.is_none(), "this format holds f32 and takes no --storage: leave it out, or use --format web");
    let (path, bundle) = open(&args.model)?;
    let ending = match args.format {
        Format::Onnx => ".onnx",
        Format::Pytorch => "-pytorch.safetensors",
        _ => "-f32.safetensors",
    };
    let output = args.output.clone().unwrap_or_else(|| with_ending(&path, ending));
    check_output(&path, &output, args.force)?;
    let bytes = match args.format {
        Format::Onnx => to_onnx(&bundle, OnnxOptions { unfolded: args.unfolded, softmax: args.softmax })?,
        Format::Pytorch => to_pytorch(&bundle)?,
        _ => in_f32(bundle).to_bytes()?,
    };
    write_whole(&output, &bytes)?;
    if args.json {
        println!("{}", json!({"model": path, "output": output, "bytes": bytes.len()}));
    } else {
        println!("model    {}", path.display());
        println!("written  {} ({} bytes)", output.display(), grouped(bytes.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The bundle in f32. What rounded weights scored is then the accuracy, or nobody knows it.
fn in_f32(mut bundle: Bundle) -> Bundle {
    if let Some(record) = bundle.metadata.quantisation.clone() {
        let is_of_training = record.dataset.as_ref() == Some(&bundle.metadata.dataset);
        let measured = record.accuracy_after.zip(record.split.zip(record.samples)).filter(|_| is_of_training);
        bundle.metadata.accuracy = measured.as_ref().map(|(accuracy, _)| *accuracy);
        bundle.metadata.accuracy_samples = measured.as_ref().map(|(_, (_, samples))| *samples);
        bundle.metadata.accuracy_split = measured.map(|(_, (split, _))| split);
    }
    bundle.stored_as(Storage::F32)
}

pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    path.with_file_name(format!("{}{ending}", path.file_stem().unwrap_or_default().to_string_lossy()))
}

/// Writes the network in fewer bits, with the accuracy before and after.
fn smaller(args: ExportArgs) -> Result<ExitCode> {
    let (path, bundle) = open(&args.model)?;
    if let Some(quantisation) = &bundle.metadata.quantisation {
        bail!(
            "{} holds {} weights already, and rounding them again would only lose more: export the bundle it was made \
             from",
            path.display(),
            quantisation.storage.name()
        );
    }
    let storage = args.storage.map_or(Storage::Int8, Storage::from);
    let output = args.output.clone().unwrap_or_else(|| with_ending(&path, &format!("-{}.safetensors", storage.name())));
    check_output(&path, &output, args.force)?;

    let mut exported = bundle.clone().stored_as(storage);
    let measured = if args.no_accuracy { None } else { Some(measure(&args, &bundle, &exported)?) };
    if let (Some(record), Some(measured)) = (&mut exported.metadata.quantisation, &measured) {
        record.dataset = Some(measured.dataset.clone());
        record.split = Some(measured.split.to_owned());
        record.samples = Some(measured.after.samples);
        record.accuracy_before = Some(measured.before.accuracy);
        record.accuracy_after = Some(measured.after.accuracy);
    }
    let bytes = exported.to_bytes()?;
    write_whole(&output, &bytes)?;

    let sizes = (fs::metadata(&path)?.len() as usize, bytes.len());
    if args.json {
        let event = json!({
            "model": path, "output": output, "bytes_before": sizes.0, "bytes_after": sizes.1,
            "loss_before": measured.as_ref().map(|measured| measured.before.loss),
            "loss_after": measured.as_ref().map(|measured| measured.after.loss),
            "quantisation": exported.metadata.quantisation,
        });
        println!("{event}");
    } else {
        println!("model    {}", path.display());
        print_costs(storage, sizes, measured.as_ref());
        println!("written  {}", output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Size, accuracy and loss before and after.
fn print_costs(storage: Storage, sizes: (usize, usize), measured: Option<&Measured>) {
    let scores = |evaluation: &Evaluation| {
        format!("   accuracy {:.2} %   loss {:.4}", 100.0 * evaluation.accuracy, evaluation.loss)
    };
    let (before, after) = match measured {
        Some(measured) => (scores(&measured.before), scores(&measured.after)),
        None => Default::default(),
    };
    println!("{:<8} {:>11} bytes{before}", "before", grouped(sizes.0));
    println!("{:<8} {:>11} bytes{after}", storage.name(), grouped(sizes.1));
    match measured {
        Some(Measured { dataset, split, before, after }) => {
            let points = 100.0 * (after.accuracy - before.accuracy);
            println!("change   {points:+.2} points on {} images of {dataset} ({split})", after.samples);
        }
        None => println!("accuracy not measured, and the file says so"),
    }
}

/// Refuses what would destroy a file or fail after minutes of measuring.
pub fn check_output(input: &Path, output: &Path, force: bool) -> Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", output.display(), folder.display());
    if !output.exists() {
        return Ok(());
    }
    ensure!(output.is_file(), "cannot write {}: it is not a file; name one with --output", output.display());
    let resolved = |path: &Path| fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()));
    ensure!(
        resolved(input)? != resolved(output)?,
        "{} is the file to read: name another with --output",
        output.display()
    );
    ensure!(force, "{} already exists: --force replaces it, --output names another file", output.display());
    Ok(())
}

/// What smaller weights cost.
struct Measured {
    dataset: String,
    split: &'static str,
    before: Evaluation,
    after: Evaluation,
}

/// Scores a network as it is and as it comes out of the exported file.
fn measure(args: &ExportArgs, bundle: &Bundle, exported: &Bundle) -> Result<Measured> {
    let exported = Bundle::from_bytes(&exported.to_bytes()?)?;
    let data =
        data::of_training(&args.data, &bundle.metadata, false, "leave the accuracy unmeasured with --no-accuracy")
            .context("the accuracy cannot be measured")?;
    let device = choose(args.scoring.device)?.device;
    let batch_size = args.scoring.batch_size.into();
    Ok(Measured {
        dataset: data.name.clone(),
        split: test_images(&data).0,
        before: score(bundle, &data, batch_size, &device)?,
        after: score(&exported, &data, batch_size, &device)?,
    })
}
