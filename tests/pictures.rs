//! Your own pictures: the built program on folders and files as people have them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use kiln_data::{Interpolation, Preprocessing};
use kiln_model::{Bundle, ResNetConfig};
use tempfile::TempDir;

use crate::program::{TINY, bitmap, fails, kiln, succeeds, text};
use crate::{bombs, sample};

/// Dark and light pictures in `<part>/dark` and `<part>/light`.
fn part(folder: &Path, part: &str, images: u8) {
    for (class, base) in [("dark", 10), ("light", 200)] {
        let class = folder.join(part).join(class);
        fs::create_dir_all(&class).unwrap();
        for index in 0..images {
            fs::write(class.join(format!("{index}.bmp")), bitmap(base + index, 32)).unwrap();
        }
    }
}

/// A network of width 2 that knows these classes.
fn bundle(folder: &Path, classes: &[&str]) {
    let architecture = ResNetConfig { width: 2, ..ResNetConfig::new(18, classes.len()) };
    let mut bundle = sample::bundle(architecture.into(), |_| 1.0);
    bundle.metadata.classes = classes.iter().map(|class| (*class).to_owned()).collect();
    fs::write(folder.join("model.safetensors"), bundle.to_bytes().unwrap()).unwrap();
}

fn train(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let always = ["train", "--device", "cpu", "--epochs", "1", "--no-report"];
    kiln(folder).args(always).args(TINY).args(arguments).output().unwrap()
}

#[test]
fn parts_of_any_usual_name_are_found_and_classes_printed() {
    let folder = TempDir::new().unwrap();
    part(folder.path(), "photos/Train", 8);
    part(folder.path(), "photos/Valid", 3);
    part(folder.path(), "photos/TEST", 2);
    fs::write(folder.path().join("photos/TEST/0.bmp"), bitmap(1, 32)).unwrap();
    let output = train(folder.path(), &["--data", "photos", "--out", "run"]);
    let printed = succeeds(&output);
    let data = "photos: 16 to train, 6 to validate (the data's own), 4 to test; 2 classes: dark, light";
    assert!(printed.contains(data), "{printed}");
    let found = text(&output.stderr);
    assert!(found.contains("the folders Train/, Valid/, TEST/; 26 images"), "{found}");
    assert!(found.contains("left aside: 1 in no class folder (TEST/0.bmp)"), "{found}");

    fs::rename(folder.path().join("photos"), folder.path().join("moved")).unwrap();
    let resume = ["train", "--device", "cpu", "--no-report", "--resume", "run", "--data", "moved"];
    succeeds(&kiln(folder.path()).args(resume).output().unwrap());
    fs::write(folder.path().join("moved/Train/dark/0.bmp"), bitmap(99, 32)).unwrap();
    fails(&kiln(folder.path()).args(resume).output().unwrap(), 1, &["digest", "--allow-change dataset"]);
}

#[test]
fn of_classes_of_different_size_the_balanced_accuracy_is_said() {
    let folder = TempDir::new().unwrap();
    part(folder.path(), "photos/train", 20);
    for index in 3..20 {
        fs::remove_file(folder.path().join(format!("photos/train/light/{index}.bmp"))).unwrap();
    }
    let output = train(folder.path(), &["--data", "photos", "--out", "run", "--set", "training.validation=0.3"]);
    let printed = succeeds(&output);
    assert!(printed.contains(" %, balanced ") && printed.contains(" % balanced over the classes"), "{printed}");
    assert!(text(&output.stderr).contains("not balanced: dark 20, light 3"), "{}", text(&output.stderr));
    let scored = succeeds(&kiln(folder.path()).args(["eval", "run", "--data", "photos"]).output().unwrap());
    assert!(scored.contains("balanced accuracy"), "{scored}");
}

#[test]
fn image_folder_takes_the_size_that_suits_the_pictures_and_decodes_them_anew() {
    let folder = TempDir::new().unwrap();
    part(folder.path(), "photos/train", 10);
    part(folder.path(), "photos/test", 4);
    let output = train(folder.path(), &["--data", "photos", "--recipe", "image-folder", "--out", "run"]);
    assert!(succeeds(&output).contains("for images of 32 x 32 pixels"), "{}", text(&output.stdout));
    let found = text(&output.stderr);
    assert!(found.contains("28 images, decoded anew whenever they are needed"), "{found}");
    // It is known as the run's own data where it fits into memory, too.
    let report = kiln(folder.path()).args(["report", "run", "--data", "photos"]).output().unwrap();
    assert!(succeeds(&report).contains("report.html"));
    assert!(!text(&report.stderr).contains("not what the network was trained on"), "{}", text(&report.stderr));
    let predicted = kiln(folder.path()).args(["predict", "--model", "run", "photos/test"]).output().unwrap();
    assert!(succeeds(&predicted).contains("light"));
}

#[test]
fn a_run_resumes_with_its_pictures_resized_as_its_first_weights_wanted_them() {
    let folder = TempDir::new().unwrap();
    part(folder.path(), "photos/train", 8);
    for index in 0..8 {
        // Of another size and not plain, so that the way to 32 pixels shows.
        let mut file = bitmap(10 + index, 50);
        file[54..].iter_mut().zip(0..).for_each(|(byte, at): (&mut u8, u32)| *byte = byte.wrapping_add((at * 7) as u8));
        fs::write(folder.path().join(format!("photos/train/dark/{index}.bmp")), file).unwrap();
    }
    let architecture = ResNetConfig { width: 2, ..ResNetConfig::new(18, 2) };
    let mut weights = sample::bundle(architecture.into(), |_| 1.0);
    weights.metadata.image_size = 32;
    weights.metadata.preprocessing = Some(Preprocessing { resize: 40, interpolation: Interpolation::Bicubic });
    fs::write(folder.path().join("model.safetensors"), weights.to_bytes().unwrap()).unwrap();
    let start = train(folder.path(), &["--data", "photos", "--init", "model.safetensors", "--out", "run"]);
    succeeds(&start);
    let resume = ["train", "--device", "cpu", "--no-report", "--resume", "run", "--data", "photos"];
    succeeds(&kiln(folder.path()).args(resume).output().unwrap());
    let trained = Bundle::open(folder.path().join("run/model.safetensors")).unwrap();
    assert_eq!(trained.metadata.preprocessing, weights.metadata.preprocessing);
    assert_eq!(trained.metadata.mean, weights.metadata.mean);
}

#[test]
fn what_a_network_and_a_test_part_both_know_is_scored() {
    let folder = TempDir::new().unwrap();
    part(folder.path(), "photos/test", 5);
    let eval =
        || kiln(folder.path()).args(["eval", "model.safetensors", "--data", "photos", "--device", "cpu"]).output();
    bundle(folder.path(), &["light", "ship", "dark"]);
    let output = eval().unwrap();
    assert!(succeeds(&output).contains("on photos (test, 10 images)"));
    assert!(text(&output.stderr).contains("2 of the network's 3 classes: dark, light"), "{}", text(&output.stderr));
    bundle(folder.path(), &["dark", "ship"]);
    let output = eval().unwrap();
    assert!(succeeds(&output).contains("(test, 5 images)"));
    assert!(text(&output.stderr).contains("left aside: 5 images of classes that it does not know, light"));
    bundle(folder.path(), &["cat", "ship"]);
    fails(&eval().unwrap(), 1, &["cat, ship", "dark, light"]);
    fails(&train(folder.path(), &["--data", "photos"]), 1, &["photos has no images to train on"]);
}

#[test]
fn a_table_gives_the_labels() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("photos")).unwrap();
    let mut table = "what;key\n".to_owned();
    for index in 0..12 {
        fs::write(folder.path().join(format!("photos/{index}.bmp")), bitmap(20 * index, 32)).unwrap();
        table += &format!("{};{index}\n", ["even", "odd"][usize::from(index) % 2]);
    }
    fs::write(folder.path().join("labels.csv"), table).unwrap();
    let arguments = ["--data", "photos", "--labels", "labels.csv", "--label-columns", "key,what"];
    let printed = succeeds(&train(folder.path(), &arguments));
    assert!(printed.contains("2 classes: even, odd"), "{printed}");
    let wrong = ["--data", "photos", "--labels", "labels.csv", "--label-columns", "file,what"];
    fails(&train(folder.path(), &wrong), 1, &["labels.csv", "no column file, only what, key"]);
    fails(&train(folder.path(), &["--data", "photos"]), 1, &["no class folders", "table of labels"]);
}

#[test]
fn folders_patterns_and_lists_are_answered() {
    let folder = TempDir::new().unwrap();
    bundle(folder.path(), &["dark", "ship", "light"]);
    part(folder.path(), "photos", 2);
    fs::write(folder.path().join("photos/notes.txt"), "text").unwrap();
    let predict = |arguments: &[&str], list: &str| {
        let mut command = kiln(folder.path());
        command.args(["predict", "--model", "model.safetensors", "--json", "--top", "2"]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let images = |output: &std::process::Output| -> Vec<String> {
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let lines: Vec<_> = text(&output.stdout).lines().map(line).collect();
        assert!(lines.iter().all(|line| line["top"].as_array().unwrap().len() == 2));
        assert!(lines.iter().all(|line| line["logits"].as_array().unwrap().len() == 3));
        lines.iter().map(|line| line["image"].as_str().unwrap().replace('\\', "/")).collect()
    };
    let all = ["photos/dark/0.bmp", "photos/dark/1.bmp", "photos/light/0.bmp", "photos/light/1.bmp"];
    assert_eq!(images(&predict(&["photos"], "")), all);
    assert_eq!(images(&predict(&["photos/*/1.bmp"], "")), [all[1], all[3]]);
    assert_eq!(images(&predict(&["-"], "photos/light/0.bmp\r\nphotos/dark/0.bmp\n")), [all[2], all[0]]);
    let output = predict(&["photos/dark", "nowhere.jpg", "--csv", "answers.csv"], "");
    fails(&output, 1, &["nowhere.jpg"]);
    let table = fs::read_to_string(folder.path().join("answers.csv")).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "image,class_1,probability_1,class_2,probability_2,problem"));
    assert!(lines[3].starts_with("nowhere.jpg,,,,,cannot be read"), "{table}");
    fails(&predict(&["photos/*.gif"], ""), 1, &["no file has a name like photos/*.gif"]);
    fs::create_dir(folder.path().join("empty")).unwrap();
    fails(&predict(&["empty"], ""), 1, &["no images in empty"]);
}

#[test]
fn a_damaged_picture_is_answered_with_a_warning_and_not_trained_on() {
    let folder = TempDir::new().unwrap();
    bundle(folder.path(), &["dark", "light"]);
    part(folder.path(), "photos", 6);
    let whole = bombs::jpeg([64, 64], 3, [1, 1], false);
    let half = [&whole[..whole.len() - 40], &[0xFF, 0xD9]].concat();
    fs::write(folder.path().join("photos/dark/half.jpg"), half).unwrap();
    let predict = ["predict", "--model", "model.safetensors", "photos/dark/half.jpg"];
    let output = kiln(folder.path()).args(predict).output().unwrap();
    assert!(succeeds(&output).contains("half.jpg"));
    let warning = text(&output.stderr);
    assert!(warning.contains("damaged: only") && warning.contains("% of the picture"), "{warning}");
    let warning = text(&train(folder.path(), &["--data", "photos"]).stderr);
    assert!(warning.contains("skipped 1 of 13 files: 1 damaged"), "{warning}");
}
