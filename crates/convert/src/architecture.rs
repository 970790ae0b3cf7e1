//! What network a file's tensors make, from their names and shapes alone.

use std::collections::BTreeMap;

use kiln_model::{Architecture, NormKind, ResNetConfig, Shortcut, Stem, VitConfig};

use crate::ConvertError;

/// Names and shapes of a file's tensors.
pub type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// What the shapes cannot say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// Groups of a residual network's group normalization.
    pub groups: Option<usize>,
    /// Heads of a transformer.
    pub heads: Option<usize>,
}

/// The architecture of a network with these tensors.
///
/// # Errors
/// If it is none that Kiln has, with the name of a tensor that shows it.
pub fn detect(shapes: &Shapes, hints: Hints) -> Result<Architecture, ConvertError> {
    let architecture = match shapes.get("patch_embed.proj.weight") {
        Some(patches) => Architecture::Vit(transformer(shapes, patches, hints)?),
        None => Architecture::ResNet(resnet(shapes, hints)?),
    };
    architecture.validate()?;
    architecture.check_shapes(shapes)?;
    Ok(architecture)
}

fn resnet(shapes: &Shapes, hints: Hints) -> Result<ResNetConfig, ConvertError> {
    let blocks = [1, 2, 3, 4].map(|stage| blocks(shapes, stage));
    let is_bottleneck = shapes.contains_key("layer1.0.conv3.weight");
    let depth = depth(blocks, is_bottleneck)?;
    let stem = shape(shapes, "conv1.weight", 4)?;
    let stem = match stem[1..] {
        [3, 7, 7] => Stem::Imagenet,
        [3, 3, 3] if shapes.contains_key("conv1.bias") => Stem::Compact,
        [3, 3, 3] => Stem::Cifar,
        _ => return Err(wrong("conv1.weight", stem, "known stems have shape [C, 3, 7, 7] or [C, 3, 3, 3]")),
    };
    let width = shape(shapes, "layer1.0.conv1.weight", 4)?[0];
    let classes = shapes.get("fc.weight").map_or(1, |shape| shape.first().copied().unwrap_or_default());
    let config = ResNetConfig { depth, width, stem, ..ResNetConfig::new(depth, classes) };
    let shortcut = match shapes.keys().any(|name| name.contains(".downsample.1.")) {
        true => Shortcut::ProjectionNorm,
        false => Shortcut::Projection,
    };
    if shapes.contains_key("bn1.running_mean") || !shapes.contains_key("bn1.weight") {
        return Ok(ResNetConfig { shortcut, norm: NormKind::Batch, ..config });
    }
    let groups = hints.groups.ok_or(ConvertError::NeedsGroups)?;
    Ok(ResNetConfig { shortcut, norm: NormKind::Group, groups, ..config })
}

/// ResNet's depth by the number of blocks in its stages.
pub fn depth(blocks: [usize; 4], is_bottleneck: bool) -> Result<usize, ConvertError> {
    match (blocks, is_bottleneck) {
        ([2, 2, 2, 2], false) => Ok(18),
        ([3, 4, 6, 3], false) => Ok(34),
        ([3, 4, 6, 3], true) => Ok(50),
        ([3, 4, 23, 3], true) => Ok(101),
        ([3, 8, 36, 3], true) => Ok(152),
        _ => Err(ConvertError::Depth(blocks, if is_bottleneck { 3 } else { 2 })),
    }
}

/// Blocks of a stage, counted from `layer1`.
fn blocks(shapes: &Shapes, stage: usize) -> usize {
    (0..).take_while(|block| shapes.contains_key(format!("layer{stage}.{block}.conv1.weight").as_str())).count()
}

fn transformer(shapes: &Shapes, patches: &[usize], hints: Hints) -> Result<VitConfig, ConvertError> {
    let &[width, 3, patch, _] = patches else {
        return Err(wrong("patch_embed.proj.weight", patches, "it has to be [C, 3, P, P]"));
    };
    let position = shape(shapes, "pos_embed", 3)?;
    let side = position[1].isqrt();
    if side * side != position[1] {
        let expected = "it has to be [1, T, C] for T = N x N patches: class tokens are not supported";
        return Err(wrong("pos_embed", position, expected));
    }
    let depth = (0..).take_while(|block| shapes.contains_key(format!("blocks.{block}.norm1.weight").as_str())).count();
    let classes = shapes.get("head.weight").map_or(1, |shape| shape.first().copied().unwrap_or_default());
    let heads = hints.heads.ok_or(ConvertError::NeedsHeads)?;
    Ok(VitConfig { image_size: side.saturating_mul(patch), patch, width, depth, heads, classes })
}

/// The shape of a tensor that has so many dimensions.
fn shape<'a>(shapes: &Shapes<'a>, name: &'static str, dimensions: usize) -> Result<&'a [usize], ConvertError> {
    let Some(shape) = shapes.get(name) else {
        return Err(kiln_model::StateError::Missing(vec![name.to_owned()]).into());
    };
    match shape.len() == dimensions {
        true => Ok(shape),
        false => Err(wrong(name, shape, if dimensions == 4 { "it needs four dimensions" } else { "it needs three" })),
    }
}

fn wrong(name: &str, shape: &[usize], expected: &'static str) -> ConvertError {
    ConvertError::Shape { name: name.to_owned(), shape: shape.to_vec(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(architecture: &Architecture, hints: Hints) -> Result<Architecture, ConvertError> {
        let tensors = architecture.tensors();
        let shapes = tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        detect(&shapes, hints)
    }

    #[test]
    fn every_architecture_is_found_from_its_shapes() {
        let of = |depth| ResNetConfig { width: 8, ..ResNetConfig::new(depth, 7) };
        for architecture in [
            of(18).into(),
            ResNetConfig { stem: Stem::Imagenet, ..of(34) }.into(),
            of(50).into(),
            ResNetConfig { stem: Stem::Imagenet, ..of(101) }.into(),
            of(152).into(),
            ResNetConfig { width: 8, ..ResNetConfig::compact(3) }.into(),
            ResNetConfig { norm: NormKind::Group, groups: 4, ..of(18) }.into(),
            Architecture::Vit(VitConfig::tiny(5)),
        ] {
            let found = found(&architecture, Hints { groups: Some(4), heads: Some(3) }).unwrap();
            assert_eq!(found, architecture);
        }
    }

    #[test]
    fn what_shapes_cannot_say_is_asked_for() {
        let grouped = ResNetConfig { norm: NormKind::Group, groups: 4, width: 8, ..ResNetConfig::new(18, 7) };
        assert!(matches!(found(&grouped.into(), Hints::default()), Err(ConvertError::NeedsGroups)));
        let transformer = Architecture::Vit(VitConfig::tiny(5));
        assert!(matches!(found(&transformer, Hints::default()), Err(ConvertError::NeedsHeads)));
    }

    #[test]
    fn a_tensor_that_does_not_fit_is_named() {
        let tensors = Architecture::from(ResNetConfig { width: 4, ..ResNetConfig::new(18, 7) }).tensors();
        type Tensors = BTreeMap<String, Vec<usize>>;
        let refused = |change: &dyn Fn(&mut Tensors)| {
            let mut tensors: Tensors = tensors.iter().cloned().collect();
            change(&mut tensors);
            let shapes = tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
            detect(&shapes, Hints::default()).unwrap_err().to_string()
        };
        assert!(refused(&|tensors| drop(tensors.remove("fc.weight"))).contains("lack 'fc.weight'"));
        assert!(refused(&|tensors| drop(tensors.insert("se.weight".into(), vec![4]))).contains("hold 'se.weight'"));
        assert!(
            refused(&|tensors| drop(tensors.insert("bn1.bias".into(), vec![5]))).contains("'bn1.bias' has shape [5]")
        );
        assert!(
            refused(&|tensors| drop(tensors.insert("conv1.weight".into(), vec![4, 1, 3, 3]))).contains("known stems")
        );
        assert!(refused(&|tensors| drop(tensors.insert("conv1.weight".into(), vec![]))).contains("four dimensions"));
        let third = refused(&|tensors| drop(tensors.insert("layer2.2.conv1.weight".into(), vec![8, 8, 3, 3])));
        assert!(third.contains("[2, 3, 2, 2] blocks"), "{third}");
    }
}
