//! From the names that training scripts give to torchvision's.

use crate::ConvertError;
use crate::tensor::Tensors;

/// What wrappers put before every name: DataParallel, `torch.compile`, Lightning and others.
const PREFIXES: [&str; 8] =
    ["module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "state_dict.", "model_state_dict."];
/// The first layer of a residual network or of a transformer.
const FIRST: [&str; 2] = ["conv1.weight", "patch_embed.proj.weight"];
/// Last parts of names that say nothing about the network: counters.
const PASSED_OVER: [&str; 4] = ["num_batches_tracked", "total_ops", "total_params", "n_averaged"];

/// The tensors under torchvision's names, and notes of what was changed.
pub fn normalized(tensors: Tensors) -> Result<(Tensors, Vec<String>), ConvertError> {
    let mut notes = vec![];
    let Some(prefix) = prefix(tensors.keys().map(String::as_str)) else {
        let first = tensors.keys().take(5).map(|name| format!("'{name}'")).collect();
        return Err(ConvertError::NoNetwork(first));
    };
    if !prefix.is_empty() {
        notes.push(format!("'{prefix}' was taken off the names"));
    }
    let (mut made, mut passed_over) = (Tensors::new(), 0);
    for (name, tensor) in tensors {
        let bare = name.strip_prefix(&prefix).unwrap_or(&name);
        if PASSED_OVER.contains(&bare.rsplit('.').next().unwrap_or_default()) {
            passed_over += 1;
            continue;
        }
        let bare = torchvision(bare);
        if made.insert(bare.clone(), tensor).is_some() {
            return Err(ConvertError::Twice(bare));
        }
    }
    if passed_over > 0 {
        notes.push(format!("{passed_over} counters such as num_batches_tracked were passed over"));
    }
    Ok((made, notes))
}

/// The shortest prefix, made of known ones, before the name of a first layer.
fn prefix<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let before = |name: &'a str| FIRST.iter().find_map(|first| name.strip_suffix(first)).filter(|rest| is_known(rest));
    names.filter_map(before).min_by_key(|prefix| prefix.len()).map(str::to_owned)
}

fn is_known(mut prefix: &str) -> bool {
    while let Some(rest) = PREFIXES.iter().find_map(|known| prefix.strip_prefix(known)) {
        prefix = rest;
    }
    prefix.is_empty()
}

/// The well-known CIFAR repositories call a block's projection `shortcut`, and the head `linear`.
fn torchvision(name: &str) -> String {
    for (theirs, ours) in [("linear.", "fc."), ("classifier.", "fc."), ("head.fc.", "fc.")] {
        if let Some(rest) = name.strip_prefix(theirs) {
            return format!("{ours}{rest}");
        }
    }
    name.replace(".shortcut.", ".downsample.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Numbers, Tensor};

    fn of(names: &[&str]) -> Result<(Vec<String>, Vec<String>), ConvertError> {
        let tensor = |name: &&str| (name.to_string(), Tensor::new(vec![], Numbers::F32, || Ok(vec![])));
        let (tensors, notes) = normalized(names.iter().map(tensor).collect())?;
        Ok((tensors.into_keys().collect(), notes))
    }

    #[test]
    fn prefixes_are_found_and_taken_off() {
        for prefix in ["", "module.", "model.", "_orig_mod.module.", "backbone.", "state_dict.model.net."] {
            let names = ["bn1.num_batches_tracked", "conv1.weight", "fc.bias", "layer1.0.conv1.weight"];
            let named = names.map(|name| format!("{prefix}{name}"));
            let (found, notes) = of(&named.each_ref().map(String::as_str)).unwrap();
            assert_eq!(found, ["conv1.weight", "fc.bias", "layer1.0.conv1.weight"], "{prefix}");
            assert_eq!(notes.len(), 1 + usize::from(!prefix.is_empty()), "{notes:?}");
        }
    }

    #[test]
    fn names_of_cifar_repositories_become_torchvisions() {
        let (found, _) =
            of(&["module.conv1.weight", "module.layer2.0.shortcut.0.weight", "module.linear.bias"]).unwrap();
        assert_eq!(found, ["conv1.weight", "fc.bias", "layer2.0.downsample.0.weight"]);
    }

    #[test]
    fn a_head_outside_of_the_backbone_is_kept() {
        let (found, _) = of(&["backbone.conv1.weight", "head.fc.weight"]).unwrap();
        assert_eq!(found, ["conv1.weight", "fc.weight"]);
    }

    #[test]
    fn what_is_not_a_network_says_what_the_file_has() {
        let error = of(&["features.0.weight", "layer1.0.conv1.weight"]).unwrap_err().to_string();
        assert!(error.contains("no 'conv1.weight'") && error.contains("'features.0.weight'"), "{error}");
        let error = of(&["conv1.weight", "fc.bias", "linear.bias"]).unwrap_err().to_string();
        assert!(error.contains("two tensors for 'fc.bias'"), "{error}");
    }
}
