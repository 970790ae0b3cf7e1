//! What a user of the command can type about an error. Libraries state facts and know no flags.

use std::error::Error;

use kiln_convert::ConvertError;
use kiln_data::DataError;
use kiln_kernels::device::DeviceError;
use kiln_model::{Architecture, NormKind, ResNetConfig, Stem};
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
    if let Some(error) = error.downcast_ref::<ConvertError>() {
        return convert(error);
    }
    if let Some(error) = error.downcast_ref::<DeviceError>() {
        return matches!(error, DeviceError::NoGpu { .. }).then(|| "`kiln devices` lists what there is".to_owned());
    }
    match error.downcast_ref::<TrainError>()? {
        TrainError::Precision(_) => Some("`kiln devices` says what each device multiplies".to_owned()),
        TrainError::Diverged { advice, .. } => {
            Some(format!("for example --set optimizer.lr={advice} or --set training.clip_norm=1"))
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

fn convert(error: &ConvertError) -> Option<String> {
    let hint = match error {
        ConvertError::NeedsNormalization => {
            "say it to `kiln import` with --preprocess, such as cifar10, or with --mean and --std"
        }
        ConvertError::NeedsGroups => "say it to `kiln import` with --groups",
        ConvertError::NeedsHeads => "say it to `kiln import` with --heads; DeiT and timm have one for 64 channels",
        ConvertError::OwnBundle => "use it as it is",
        ConvertError::Unfolded(_) => "leave --unfolded out",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// The flags that give a recipe the network whose weights a bundle has.
pub fn same_network(recipe: &Architecture, bundle: &Architecture) -> Option<String> {
    let mut flags = vec![];
    let mut set = |key: &str, differs: bool, value: String| {
        flags.extend(differs.then(|| format!("--set model.{key}={value}")));
    };
    match (recipe, bundle) {
        (Architecture::ResNet(recipe), Architecture::ResNet(bundle)) => {
            let preset = |config: &ResNetConfig| match config.stem {
                Stem::Compact => "resnet18-compact".to_owned(),
                _ => format!("resnet{}", config.depth),
            };
            let stem = serde_json::to_value(bundle.stem).ok().and_then(|stem| stem.as_str().map(str::to_owned));
            let norm = if bundle.norm == NormKind::Batch { "batch" } else { "group" };
            set("preset", preset(recipe) != preset(bundle), preset(bundle));
            set("stem", recipe.stem != bundle.stem, stem.unwrap_or_default());
            set("width", recipe.width != bundle.width, bundle.width.to_string());
            set("norm", recipe.norm != bundle.norm, norm.to_owned());
            let has_groups = bundle.norm == NormKind::Group;
            set("groups", has_groups && recipe.groups != bundle.groups, bundle.groups.to_string());
        }
        (Architecture::Vit(recipe), Architecture::Vit(bundle)) => {
            set("patch", recipe.patch != bundle.patch, bundle.patch.to_string());
            set("width", recipe.width != bundle.width, bundle.width.to_string());
            set("depth", recipe.depth != bundle.depth, bundle.depth.to_string());
            set("heads", recipe.heads != bundle.heads, bundle.heads.to_string());
        }
        (_, Architecture::Vit(_)) => return Some("--recipe vit-tiny".to_owned()),
        (Architecture::Vit(_), _) => return Some("--recipe resnet18".to_owned()),
    }
    (!flags.is_empty()).then(|| flags.join(" "))
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
        let error = anyhow::Error::from(ConvertError::NeedsHeads).context("cannot import vit.pth");
        assert!(hint(&error).unwrap().contains("--heads"));
    }

    #[test]
    fn another_stem_is_named_and_the_same_width_is_not() {
        let recipe = ResNetConfig::new(18, 10);
        let bundle = ResNetConfig { stem: Stem::Imagenet, ..ResNetConfig::new(18, 1000) };
        let flags =
            |recipe: &ResNetConfig, bundle: &ResNetConfig| same_network(&recipe.clone().into(), &bundle.clone().into());
        assert_eq!(flags(&recipe, &bundle).unwrap(), "--set model.stem=imagenet");
        let wide = ResNetConfig { width: 16, depth: 50, ..recipe.clone() };
        assert_eq!(flags(&recipe, &wide).unwrap(), "--set model.preset=resnet50 --set model.width=16");
        let compact = ResNetConfig::compact(10);
        assert_eq!(flags(&recipe, &compact).unwrap(), "--set model.preset=resnet18-compact --set model.stem=compact");
        assert_eq!(flags(&recipe, &recipe), None);
    }
}
