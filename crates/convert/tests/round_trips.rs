//! Out and in again: the same network, the same answers.

use std::collections::HashMap;
use std::fs;

use half::{bf16, f16};
use kiln_convert::{Choices, ConvertError, Hints, Imported, OnnxOptions, open, to_onnx, to_pytorch};
use kiln_model::{
    Architecture, Bundle, NormKind, Pixels, Predictor, ResNetConfig, StateDict, StateTensor, Stem, VitConfig,
};
use rten_onnx::onnx::{DataLocation, ModelProto};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

fn opened(bytes: &[u8], hints: Hints) -> Result<Imported, ConvertError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights");
    fs::write(&path, bytes).unwrap();
    open(&path, hints)
}

/// A network in which no norm is the identity and no bias zero.
fn bundle(architecture: impl Into<Architecture>) -> Bundle {
    let architecture = architecture.into();
    let tensor = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
        let spread = if shape.len() > 1 { 0.6 } else { 0.2 };
        let offset = if name.ends_with("var") || name.ends_with("weight") && shape.len() == 1 { 1.0 } else { 0.0 };
        let value = |at: usize| ((at * 31 + index * 7) % 23) as f32 / 23.0 * spread - spread / 2.0 + offset;
        (name, StateTensor { values: (0..shape.iter().product()).map(value).collect(), shape })
    };
    let state: StateDict = architecture.tensors().into_iter().enumerate().map(tensor).collect();
    let imported =
        Imported { format: kiln_convert::Format::Onnx, architecture, state, known: Default::default(), notes: vec![] };
    let preset = Some("crop=32".parse().unwrap());
    let normalization = Some(kiln_convert::Normalization::CIFAR10);
    imported.bundle(Choices { preset, normalization, ..Choices::default() }).unwrap().0
}

fn logits(bundle: Bundle) -> Vec<f32> {
    let rgb: Vec<u8> = (0..40 * 33 * 3).map(|at| (at * 37 % 251) as u8).collect();
    Predictor::new(bundle).unwrap().classify(Pixels::Rgb(&rgb, [40, 33])).unwrap().logits
}

fn residual() -> Vec<ResNetConfig> {
    let small = |depth| ResNetConfig { width: 4, ..ResNetConfig::new(depth, 5) };
    vec![
        small(18),
        ResNetConfig { stem: Stem::Imagenet, ..small(34) },
        small(50),
        ResNetConfig { width: 4, ..ResNetConfig::compact(5) },
    ]
}

#[test]
fn pytorchs_file_comes_back_as_it_was() {
    for config in residual() {
        let bundle = bundle(config);
        let found = opened(&to_pytorch(&bundle).unwrap(), Hints::default()).unwrap();
        assert_eq!((found.architecture, found.state), (bundle.metadata.architecture, bundle.state));
    }
    let grouped = bundle(ResNetConfig { norm: NormKind::Group, groups: 2, width: 4, ..ResNetConfig::new(18, 3) });
    let file = to_pytorch(&grouped).unwrap();
    assert!(matches!(opened(&file, Hints::default()), Err(ConvertError::NeedsGroups)));
    let found = opened(&file, Hints { groups: Some(2), ..Hints::default() }).unwrap();
    assert_eq!(found.architecture, grouped.metadata.architecture);
}

#[test]
fn an_onnx_model_comes_back_with_the_same_answers_folded_or_not() {
    for config in residual() {
        let bundle = bundle(config);
        let expected = logits(bundle.clone());
        let most = expected.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
        for unfolded in [false, true] {
            let file = to_onnx(&bundle, OnnxOptions { unfolded, softmax: unfolded }).unwrap();
            let found = opened(&file, Hints::default()).unwrap();
            assert_eq!(found.architecture, bundle.metadata.architecture);
            assert_eq!(found.notes.len(), usize::from(unfolded), "the softmax is left out");
            let (found, _) = found.bundle(Choices::default()).unwrap();
            assert_eq!(found.metadata.classes, bundle.metadata.classes);
            assert_eq!((found.metadata.mean, found.metadata.std), (bundle.metadata.mean, bundle.metadata.std));
            for (found, expected) in logits(found).iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-5 * most, "{found} for {expected}");
            }
        }
    }
}

#[test]
fn other_onnx_models_are_refused_with_the_node() {
    let grouped = bundle(ResNetConfig { norm: NormKind::Group, groups: 2, width: 4, ..ResNetConfig::new(18, 3) });
    let transformer = bundle(VitConfig { width: 6, depth: 1, heads: 2, ..VitConfig::tiny(3) });
    for bundle in [&grouped, &transformer] {
        let file = to_onnx(bundle, OnnxOptions::default()).unwrap();
        let error = opened(&file, Hints::default()).unwrap_err();
        assert!(matches!(&error, ConvertError::Node { .. }) && error.to_string().contains("node 'step"), "{error}");
        let unfolded = to_onnx(bundle, OnnxOptions { unfolded: true, softmax: false });
        assert!(matches!(unfolded, Err(ConvertError::Unfolded(_))));
    }
}

/// What the reader says of a model after a change.
fn changed(change: impl FnOnce(&mut ModelProto)) -> String {
    let file = to_onnx(&bundle(residual().swap_remove(0)), OnnxOptions::default()).unwrap();
    let mut model = ModelProto::parse_buf(&file).unwrap();
    change(&mut model);
    opened(&model.write_buf().unwrap(), Hints::default()).unwrap_err().to_string()
}

#[test]
fn a_changed_model_is_refused_by_name() {
    let node = |model: &mut ModelProto, operator: &str, nth: usize| {
        let nodes = &model.graph.as_ref().unwrap().node;
        nodes.iter().enumerate().filter(|(_, node)| node.op_type.as_deref() == Some(operator)).nth(nth).unwrap().0
    };
    let strides = changed(|model| {
        let at = node(model, "Conv", 3);
        let attributes = &mut model.graph.as_mut().unwrap().node[at].attribute;
        attributes.iter_mut().find(|one| one.name.as_deref() == Some("strides")).unwrap().ints = vec![2, 2];
    });
    assert!(strides.contains("node 'step") && strides.contains("a stride of 1"), "{strides}");
    let operator = changed(|model| {
        let at = node(model, "Relu", 5);
        model.graph.as_mut().unwrap().node[at].op_type = Some("Sigmoid".to_owned());
    });
    assert!(operator.contains("(Sigmoid)"), "{operator}");
    let extra = changed(|model| {
        let nodes = &mut model.graph.as_mut().unwrap().node;
        let mut spare = nodes[0].clone();
        (spare.name, spare.output) = (Some("spare".to_owned()), vec!["nowhere".to_owned()]);
        nodes.push(spare);
    });
    assert!(extra.contains("spare") || extra.contains("another reader"), "{extra}");
    let external = changed(|model| {
        model.graph.as_mut().unwrap().initializer[0].data_location = Some(DataLocation::EXTERNAL);
    });
    assert!(external.contains("is in another file"), "{external}");
    let circle = changed(|model| {
        let graph = model.graph.as_mut().unwrap();
        let at = node(&mut ModelProto { graph: Some(graph.clone()), ..ModelProto::default() }, "Add", 7);
        // The last sum flows back into the first block.
        graph.node[at + 1].output = vec!["step1.relu".to_owned()];
    });
    assert!(!circle.is_empty());
    let empty = changed(|model| model.graph = None);
    assert!(empty.contains("no graph"), "{empty}");
}

/// A safetensors file of a network's tensors in another type, with a counter and a prefix.
fn safetensors_of(state: &StateDict, dtype: Dtype) -> Vec<u8> {
    let bytes = |value: f32| match dtype {
        Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    let data: Vec<_> = state
        .iter()
        .map(|(name, tensor)| {
            (format!("module.{name}"), tensor, tensor.values.iter().flat_map(|v| bytes(*v)).collect::<Vec<_>>())
        })
        .collect();
    let mut views: HashMap<_, _> = data
        .iter()
        .map(|(name, tensor, bytes)| (name.as_str(), TensorView::new(dtype, tensor.shape.clone(), bytes).unwrap()))
        .collect();
    views.insert("module.bn1.num_batches_tracked", TensorView::new(Dtype::I64, vec![], &[0; 8]).unwrap());
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn safetensors_of_every_float_type_are_read() {
    let bundle = bundle(residual().swap_remove(0));
    for (dtype, precision) in [(Dtype::F32, 0.0), (Dtype::F64, 0.0), (Dtype::F16, 1e-3), (Dtype::BF16, 8e-3)] {
        let found = opened(&safetensors_of(&bundle.state, dtype), Hints::default()).unwrap();
        assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
        for (name, tensor) in &found.state {
            let pairs = tensor.values.iter().zip(&bundle.state[name].values);
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= precision), "{name} in {dtype:?}");
        }
    }
}

#[test]
fn tensors_of_other_types_and_names_are_refused_by_name() {
    let bundle = bundle(residual().swap_remove(0));
    let mut state = bundle.state.clone();
    state.insert("criterion.weight".to_owned(), StateTensor { shape: vec![1], values: vec![1.0] });
    let error = opened(&safetensors_of(&state, Dtype::F32), Hints::default()).unwrap_err().to_string();
    assert!(error.contains("'criterion.weight'"), "{error}");
    let mut state = bundle.state.clone();
    state.get_mut("fc.bias").unwrap().values[0] = f32::INFINITY;
    let error = opened(&safetensors_of(&state, Dtype::F32), Hints::default()).unwrap_err().to_string();
    assert!(error.contains("'fc.bias'") && error.contains("not finite"), "{error}");
    assert!(matches!(opened(&bundle.to_bytes().unwrap(), Hints::default()), Err(ConvertError::OwnBundle)));
}
