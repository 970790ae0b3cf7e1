//! `kiln import` and what comes after it: files of other programs' weights, as a user meets them.

use std::fs;
use std::path::Path;
use std::process::Output;

use kiln_model::{Bundle, ResNetConfig, Stem};
use tempfile::TempDir;

use crate::program::{TINY, bitmap, fails, kiln, succeeds, text, train};
use crate::weights::{state_dict, wrapped};

/// A checkpoint of a network so small that a picture takes milliseconds.
fn checkpoint(stem: Stem) -> Vec<u8> {
    let tensors = kiln_model::Architecture::from(ResNetConfig { stem, width: 2, ..ResNetConfig::new(18, 3) }).tensors();
    let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    wrapped("state_dict", &tensors)
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    kiln(folder).args(arguments).output().unwrap()
}

#[test]
fn a_checkpoint_becomes_a_bundle_that_says_what_was_assumed() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("net.pth"), checkpoint(Stem::Imagenet)).unwrap();
    let printed = succeeds(&run(folder.path(), &["import", "net.pth", "--classes", "cat, dog, crane"]));
    for words in ["net.pth (PyTorch)", "ResNet-18 of width 2", "3: cat, dog, crane", "224 x 224", "accuracy not known"]
    {
        assert!(printed.contains(words), "'{words}' is not in: {printed}");
    }
    assert!(printed.contains("note     Resize(256), CenterCrop(224)"), "{printed}");
    let bundle = Bundle::open(folder.path().join("net-kiln.safetensors")).unwrap();
    assert_eq!(bundle.metadata.classes, ["cat", "dog", "crane"]);
    assert_eq!(bundle.metadata.preprocessing.unwrap().resize, 256);

    fs::write(folder.path().join("picture.bmp"), bitmap(90, 40)).unwrap();
    let of_bundle = run(folder.path(), &["predict", "--model", "net-kiln.safetensors", "--json", "picture.bmp"]);
    let of_file = run(folder.path(), &["predict", "--model", "net.pth", "--json", "picture.bmp"]);
    let logits = |output: &Output| {
        let line: serde_json::Value = serde_json::from_str(&succeeds(output)).unwrap();
        line["logits"].as_array().unwrap().clone()
    };
    assert_eq!(logits(&of_bundle), logits(&of_file));
    assert!(text(&of_file.stderr).contains("note: Resize(256)"), "{}", text(&of_file.stderr));
    let shown = succeeds(&run(folder.path(), &["predict", "--model", "net-kiln.safetensors", "picture.bmp"]));
    assert!(shown.contains("accuracy not known"), "{shown}");
}

#[test]
fn what_a_file_cannot_say_is_asked_for_with_its_flag() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("net.pth"), checkpoint(Stem::Cifar)).unwrap();
    fs::write(folder.path().join("picture.bmp"), bitmap(90, 40)).unwrap();
    fails(&run(folder.path(), &["import", "net.pth"]), 1, &["how pictures are normalized", "--preprocess", "--mean"]);
    fails(&run(folder.path(), &["predict", "--model", "net.pth", "picture.bmp"]), 1, &["kiln import", "--preprocess"]);
    let values = ["--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2", "--classes", "names.txt", "-o", "net.safetensors"];
    fs::write(folder.path().join("names.txt"), "cat\ndog\nfox\n").unwrap();
    succeeds(&run(folder.path(), &[&["import", "net.pth"], &values[..]].concat()));
    fails(&run(folder.path(), &[&["import", "net.pth"], &values[..]].concat()), 1, &["already exists", "--force"]);
    fails(
        &run(folder.path(), &["import", "net.safetensors", "-o", "x.safetensors"]),
        1,
        &["a bundle of Kiln's already"],
    );
    fails(&run(folder.path(), &["import", "net.pth", "--preprocess", "mnist"]), 2, &["choose imagenet"]);
    fails(&run(folder.path(), &["import", "net.pth", "--mean", "1,2", "--std", "1,1,1"]), 2, &["three numbers"]);
    fails(&run(folder.path(), &["import", "nowhere.pth"]), 1, &["cannot read nowhere.pth"]);
    let few = ["import", "net.pth", "--preprocess", "cifar10", "--classes", "cat,dog", "-o", "y.safetensors"];
    fails(&run(folder.path(), &few), 1, &["names 2 classes for a network of 3"]);
}

#[test]
fn a_tensor_that_the_network_lacks_is_named() {
    let folder = TempDir::new().unwrap();
    let mut tensors = kiln_model::Architecture::from(ResNetConfig { width: 1, ..ResNetConfig::new(18, 2) }).tensors();
    tensors.push(("layer1.0.se.weight".to_owned(), vec![1]));
    let borrowed: Vec<_> = tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    fs::write(folder.path().join("net.pth"), state_dict(&borrowed)).unwrap();
    let refused = run(folder.path(), &["import", "net.pth", "--preprocess", "cifar10"]);
    fails(&refused, 1, &["cannot import net.pth", "'layer1.0.se.weight'"]);
}

#[test]
fn training_starts_from_a_checkpoint_and_another_stem_is_explained() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("cifar.pth"), checkpoint(Stem::Cifar)).unwrap();
    fs::write(folder.path().join("imagenet.pth"), checkpoint(Stem::Imagenet)).unwrap();
    let init = |file: &'static str| [&TINY[..], &["--epochs", "1", "--out", "run", "--init", file]].concat();
    fails(
        &train(folder.path(), &init("imagenet.pth")),
        1,
        &["imagenet.pth: give the recipe", "--set model.stem=imagenet"],
    );
    let printed = succeeds(&train(folder.path(), &init("cifar.pth")));
    assert!(printed.contains("weights of cifar.pth, with a new head"), "{printed}");
}

#[test]
fn a_bundle_goes_out_to_onnx_and_pytorch_and_comes_back() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("net.pth"), checkpoint(Stem::Cifar)).unwrap();
    succeeds(&run(folder.path(), &["import", "net.pth", "--preprocess", "cifar10", "-o", "net.safetensors"]));
    let export = |model: &str, flags: &[&str]| run(folder.path(), &[&["export", model], flags].concat());
    succeeds(&export("net.safetensors", &["--no-accuracy"]));
    for model in ["net.safetensors", "net-int8.safetensors"] {
        succeeds(&export(model, &["--format", "onnx", "--force"]));
        succeeds(&export(model, &["--format", "pytorch", "--force"]));
        let name = model.trim_end_matches(".safetensors");
        for file in [format!("{name}.onnx"), format!("{name}-pytorch.safetensors")] {
            let again = ["import", &file, "--preprocess", "cifar10", "-o", "again.safetensors", "--force"];
            succeeds(&run(folder.path(), &again));
            let state = |file: &str| Bundle::open(folder.path().join(file)).unwrap().state;
            assert_eq!(state("again.safetensors")["fc.weight"], state(model)["fc.weight"], "{file}");
        }
    }
    succeeds(&export("net-int8.safetensors", &["--format", "safetensors"]));
    let whole = Bundle::open(folder.path().join("net-int8-f32.safetensors")).unwrap();
    assert_eq!((whole.metadata.quantisation, whole.metadata.accuracy), (None, None));
    fails(&export("net.safetensors", &["--softmax"]), 1, &["--format onnx"]);
    fails(&export("net.safetensors", &["--format", "onnx", "--storage", "int8"]), 1, &["takes no --storage"]);
}

#[test]
fn a_file_that_is_no_model_is_said_to_be_none() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("picture.bmp"), bitmap(90, 40)).unwrap();
    fails(
        &run(folder.path(), &["import", "picture.bmp"]),
        1,
        &["neither a safetensors file, nor a PyTorch checkpoint"],
    );
    fails(&run(folder.path(), &["predict", "--model", "picture.bmp", "picture.bmp"]), 1, &["not a usable bundle"]);
}
