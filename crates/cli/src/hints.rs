//! What a user of the command can type about an error. Libraries state facts and know no flags.

use std::error::Error;

use kiln_data::DataError;
use kiln_kernels::device::DeviceError;
use kiln_report::ReportError;
use kiln_train::run_dir::RunDirError;
use kiln_train::{CheckpointError, TrainError};

/// The hint for the first error of a chain that has one.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(of)
}

fn of(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<kiln::Error>() {
        return match error {
            kiln::Error::Data(error) => of(error),
            kiln::Error::Device(error) => of(error),
            kiln::Error::Train(error) => of(error),
            kiln::Error::RunDir(error) => of(error),
            kiln::Error::Report(error) => of(error),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<DataError>() {
        return match error {
            DataError::NoClassFolders { .. } => Some("--labels FILE.csv gives one".to_owned()),
            DataError::Labels { .. } => Some("--label-columns NAME,CLASS names its columns".to_owned()),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<RunDirError>() {
        return run_dir(error);
    }
    if let Some(ReportError::NoRun(_)) = error.downcast_ref() {
        return Some("name a folder that `kiln train` made".to_owned());
    }
    if let Some(error) = error.downcast_ref::<DeviceError>() {
        return matches!(error, DeviceError::NoGpu { .. }).then(|| "`kiln devices` lists what there is".to_owned());
    }
    match error.downcast_ref::<TrainError>()? {
        TrainError::Precision(_) => Some("`kiln devices` says what each device multiplies".to_owned()),
        TrainError::Diverged { advice, .. } => {
            // Rounded, but never to zero.
            let rate = if *advice < 0.01 { format!("{advice:.1e}") } else { format!("{advice:.3}") };
            Some(format!("such as --set optimizer.lr={rate} or --set training.clip_norm=1"))
        }
        TrainError::Checkpoint(CheckpointError::Mismatch(differences)) => {
            let allowed = differences.iter().filter(|difference| difference.may_change);
            let flags: Vec<_> = allowed.map(|difference| format!("--allow-change {}", difference.field)).collect();
            let fixed = differences.iter().any(|difference| !difference.may_change);
            match (flags.is_empty(), fixed) {
                (_, true) => Some("a new run takes the weights with --init".to_owned()),
                (false, false) => Some(format!("{} allows it", flags.join(" "))),
                (true, false) => None,
            }
        }
        TrainError::ImageSize { found, .. } if found[0] == found[1] => {
            Some(format!("--image-size {} takes the images as they are", found[0]))
        }
        _ => None,
    }
}

fn run_dir(error: &RunDirError) -> Option<String> {
    match error {
        RunDirError::Occupied(path) => {
            Some(format!("resume it with --resume {}, or choose another --out", path.display()))
        }
        RunDirError::Locked(_) => Some("wait for it, or choose another --out".to_owned()),
        RunDirError::Damaged { folder, .. } => {
            Some(format!("start a new run, with --init {} if that one reads", folder.join("best.ckpt").display()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_found_below_contexts() {
        let error = kiln::Error::from(RunDirError::Occupied("runs/quick-1".into()));
        let error = anyhow::Error::from(error).context("the run cannot start");
        assert_eq!(hint(&error).unwrap(), "resume it with --resume runs/quick-1, or choose another --out");
        assert_eq!(hint(&anyhow::anyhow!("a plain error")), None);
    }
}
