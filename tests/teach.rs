//! `kiln teach`: from a folder of pictures to a bundle that knows them.

use std::fs;
use std::path::Path;
use std::process::Output;

use burn::tensor::Device;
use kiln_model::{Architecture, Bundle, ResNetConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{bitmap, fails, kiln, succeeds, text};
use crate::sample;

/// Pictures of shades around a base, a class each.
fn pictures(folder: &Path, classes: &[(&str, u8)], count: u8) {
    for (class, base) in classes {
        let class = folder.join(class);
        fs::create_dir_all(&class).unwrap();
        for index in 0..count {
            fs::write(class.join(format!("{index}.bmp")), bitmap(base + 2 * index, 32)).unwrap();
        }
    }
}

/// A folder with a network of 10 classes that nobody has trained.
fn folder_with_network() -> TempDir {
    let folder = TempDir::new().unwrap();
    let architecture = Architecture::from(ResNetConfig { width: 4, ..ResNetConfig::new(18, 10) });
    let state = architecture.init(1, &Device::flex()).unwrap().state_dict();
    let bundle = Bundle { state, ..sample::bundle(architecture, |_| 1.0) };
    fs::write(folder.path().join("model.safetensors"), bundle.to_bytes().unwrap()).unwrap();
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    kiln(folder).args(arguments).output().unwrap()
}

#[test]
fn a_network_learns_classes_that_it_never_had() {
    let folder = folder_with_network();
    let path = folder.path();
    pictures(&path.join("photos"), &[("dark", 5), ("grey", 100), ("light", 200)], 8);
    let printed = succeeds(&run(path, &["teach", "photos", "--model", "model.safetensors"]));
    for words in
        ["pictures 24 seen", "taught   3 classes", "not seen, in turns", "100.0 % (86 to 100 %), 24 of 24", "grey "]
    {
        assert!(printed.contains(words), "'{words}' is not in: {printed}");
    }
    let Bundle { metadata, .. } = Bundle::open(path.join("model-taught.safetensors")).unwrap();
    assert_eq!(metadata.classes, ["dark", "grey", "light"]);
    assert_eq!((metadata.accuracy, metadata.accuracy_samples), (Some(1.0), Some(24)));
    assert_eq!((metadata.recipe.as_str(), metadata.dataset.as_str()), ("taught", "photos"));

    fs::write(path.join("new.bmp"), bitmap(107, 32)).unwrap();
    let answer = succeeds(&run(path, &["predict", "--model", "model-taught.safetensors", "--json", "new.bmp"]));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["top"][0]["class"], "grey", "{answer}");

    // The same pictures give the same file, and pictures set apart the accuracy.
    let first = fs::read(path.join("model-taught.safetensors")).unwrap();
    succeeds(&run(path, &["teach", "photos", "--model", "model.safetensors", "--force"]));
    assert_eq!(fs::read(path.join("model-taught.safetensors")).unwrap(), first);
    fs::create_dir(path.join("parts")).unwrap();
    fs::rename(path.join("photos"), path.join("parts/train")).unwrap();
    pictures(&path.join("parts/test"), &[("dark", 6), ("grey", 101), ("light", 201)], 2);
    let tested =
        succeeds(&run(path, &["teach", "parts", "--model", "model.safetensors", "-o", "t.safetensors", "--json"]));
    let tested: Value = serde_json::from_str(&tested).unwrap();
    assert_eq!(
        (&tested["accuracy"]["split"], &tested["accuracy"]["all"]["of"]),
        (&Value::from("test"), &Value::from(6))
    );
    assert_eq!(tested["accuracy"]["classes"][1]["class"], "grey");
}

#[test]
fn a_picture_each_is_taught_without_a_word_about_accuracy() {
    let folder = folder_with_network();
    pictures(&folder.path().join("photos"), &[("dark", 5), ("light", 200)], 1);
    let printed = succeeds(&run(folder.path(), &["teach", "photos", "--model", "model.safetensors"]));
    assert!(printed.contains("accuracy not known"), "{printed}");
    let bundle = Bundle::open(folder.path().join("model-taught.safetensors")).unwrap();
    assert_eq!(bundle.metadata.accuracy, None);
}

#[test]
fn what_cannot_be_taught_is_said_and_nothing_is_written() {
    let folder = folder_with_network();
    let path = folder.path();
    pictures(&path.join("one"), &[("dark", 5)], 3);
    fails(&run(path, &["teach", "one", "--model", "model.safetensors"]), 1, &["class"]);
    fails(&run(path, &["teach", "nowhere", "--model", "model.safetensors"]), 1, &["nowhere"]);
    pictures(&path.join("same"), &[("a", 50), ("b", 50)], 1);
    fails(&run(path, &["teach", "same", "--model", "model.safetensors"]), 1, &["look the same to the network"]);
    assert!(!path.join("model-taught.safetensors").exists());
    fs::write(path.join("taken.safetensors"), "mine").unwrap();
    pictures(&path.join("two"), &[("a", 50), ("b", 90)], 2);
    let taken = run(path, &["teach", "two", "--model", "model.safetensors", "-o", "taken.safetensors"]);
    fails(&taken, 1, &["already exists", "--force"]);
    assert_eq!(text(&fs::read(path.join("taken.safetensors")).unwrap()), "mine");
}
