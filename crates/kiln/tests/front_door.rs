//! What a program that depends on `kiln` alone can do: nothing here names a crate below it.

use std::path::Path;

use kiln::{
    Bundle, Dataset, DeviceRequest, Error, Pixels, Predictor, Recipe, ResumeOptions, Run, RunEvent, RunOptions,
    SavedRun,
};

/// `train/<class>/` and `test/<class>/` with bright and dark pictures of 20 by 16 pixels.
fn pictures(folder: &Path) {
    for (split, count) in [("train", 20), ("test", 6)] {
        for (class, base) in [("dark", 20), ("light", 200)] {
            let folder = folder.join(split).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let picture = image::RgbImage::from_pixel(20, 16, image::Rgb([base + index, base, base + index / 2]));
                picture.save(folder.join(format!("{index}.png"))).unwrap();
            }
        }
    }
}

/// So small that a step takes milliseconds.
fn recipe() -> Recipe {
    let mut recipe = Recipe::named("quick").unwrap();
    recipe.training.image_size = 16;
    recipe.training.batch_size = 8;
    recipe.training.epochs = 2;
    recipe
}

fn on_cpu() -> ResumeOptions {
    ResumeOptions { device: DeviceRequest::Cpu, ..ResumeOptions::default() }
}

fn options(folder: &Path) -> RunOptions {
    RunOptions { device: DeviceRequest::Cpu, folder: Some(folder.to_owned()), ..RunOptions::default() }
}

#[test]
fn a_folder_of_pictures_becomes_a_network_that_classifies_them() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let data = Dataset::open(folder.path(), 16).unwrap();
    let mut run = Run::start(recipe(), &data, options(&folder.path().join("run"))).unwrap();
    let (mut epochs, mut finished) = (0, None);
    while let Some(event) = run.next().unwrap() {
        match event {
            RunEvent::Epoch { .. } => epochs += 1,
            RunEvent::Finished(end) => finished = Some(end),
            _ => {}
        }
    }
    assert_eq!(epochs, 2);
    let finished = finished.unwrap();
    assert_eq!(finished.bundle.metadata.accuracy_samples, Some(12));
    assert!(run.report().unwrap().is_file());

    let path = run.folder().bundle();
    assert_eq!(Bundle::open(&path).unwrap(), finished.bundle);
    let mut predictor = Predictor::open(&path).unwrap();
    let from_file = predictor.classify_file(folder.path().join("test/light/0.png")).unwrap();
    let pixels = [200, 200, 200].repeat(20 * 16);
    let from_pixels = predictor.classify(Pixels::Rgb(&pixels, [20, 16])).unwrap();
    assert_eq!(from_file.logits, from_pixels.logits);
}

#[test]
fn a_run_that_was_dropped_resumes_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let data = Dataset::open(folder.path(), 16).unwrap();
    let bundle = |run: &mut Run| {
        while run.next().unwrap().is_some() {}
        std::fs::read(run.folder().bundle()).unwrap()
    };
    let whole = bundle(&mut Run::start(recipe(), &data, options(&folder.path().join("whole"))).unwrap());
    let stopped = folder.path().join("stopped");
    let mut run = Run::start(recipe(), &data, options(&stopped)).unwrap();
    for _ in 0..5 {
        run.next().unwrap();
    }
    run.save().unwrap();
    let saved = std::fs::metadata(run.folder().last()).unwrap().modified().unwrap();
    run.save().unwrap();
    let again = std::fs::metadata(run.folder().last()).unwrap().modified().unwrap();
    assert_eq!(saved, again, "a step is saved once");
    drop(run);
    let resumed = bundle(&mut Run::resume(&stopped, &data, on_cpu()).unwrap());
    assert!(whole == resumed, "other bytes");
}

#[test]
fn a_run_of_crops_of_the_originals_resumes_to_the_same_weights_and_says_which_file_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let mut recipe = recipe();
    (recipe.training.crop_pct, recipe.augment.resized_crop.min_area) = (0.875, 0.3);
    let data = recipe.open(folder.path()).unwrap();
    assert!(data.is_streamed());
    let bundle = |run: &mut Run| {
        while run.next().unwrap().is_some() {}
        std::fs::read(run.folder().bundle()).unwrap()
    };
    let whole = bundle(&mut Run::start(recipe.clone(), &data, options(&folder.path().join("whole"))).unwrap());
    let kept = Bundle::from_bytes(&whole).unwrap().metadata.preprocessing.unwrap();
    assert_eq!(kept.resize, 18);

    let stopped = folder.path().join("stopped");
    let mut run = Run::start(recipe.clone(), &data, options(&stopped)).unwrap();
    let (file, aside) = (folder.path().join("train/light/7.png"), folder.path().join("7.png"));
    std::fs::rename(&file, &aside).unwrap();
    let error = loop {
        match run.next() {
            Ok(event) => assert!(event.is_some(), "an image is missing"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("7.png could be read when the data was loaded"), "{error}");
    assert_eq!(run.saved_step(), run.header().step, "nothing is lost");
    std::fs::rename(&aside, &file).unwrap();
    drop(run);
    assert!(whole == bundle(&mut Run::resume(&stopped, &data, on_cpu()).unwrap()), "other bytes");

    // Without the crops the pictures fit into memory; they are still those of the run.
    recipe.augment.resized_crop.min_area = 1.0;
    let in_memory = recipe.open(folder.path()).unwrap();
    assert!(!in_memory.is_streamed());
    let change = ResumeOptions { allow_change: vec!["augment.resized_crop.min_area".to_owned()], ..on_cpu() };
    SavedRun::open(&stopped).unwrap().resume(recipe, &in_memory, change).unwrap();
}

#[test]
fn a_run_started_under_a_recipes_old_name_resumes_under_its_new_one() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let data = Dataset::open(folder.path(), 16).unwrap();
    let named = |name: &str| Recipe { name: name.to_owned(), ..recipe() };
    let path = folder.path().join("run");
    drop(Run::start(named("s3"), &data, options(&path)).unwrap());
    drop(SavedRun::open(&path).unwrap().resume(named("resnet18-steps"), &data, on_cpu()).unwrap());
    let other = SavedRun::open(&path).unwrap().resume(named("cifar100"), &data, on_cpu()).err().unwrap();
    assert!(other.to_string().contains("name"), "{other}");
}

#[test]
fn a_damaged_checkpoint_is_said_once_and_the_one_before_it_resumed() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let data = Dataset::open(folder.path(), 16).unwrap();
    let path = folder.path().join("run");
    let damage = || {
        let mut run = Run::start(recipe(), &data, options(&path)).unwrap();
        for _ in 0..5 {
            run.next().unwrap();
        }
        run.save().unwrap();
        std::fs::write(run.folder().last(), b"cut").unwrap();
    };
    damage();
    let mut saved = SavedRun::open(&path).unwrap();
    assert!(saved.take_warning().unwrap().contains("resuming from the checkpoint before it"));
    let mut run = saved.resume(recipe(), &data, on_cpu()).unwrap();
    assert!(!matches!(run.next().unwrap(), Some(RunEvent::Warning(_))), "it was taken");
    drop(run);
    std::fs::remove_dir_all(&path).unwrap();
    damage();
    let mut run = Run::resume(&path, &data, on_cpu()).unwrap();
    assert!(matches!(run.next().unwrap(), Some(RunEvent::Warning(_))), "nobody took it");
}

#[test]
fn a_bundle_that_cannot_be_written_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let data = Dataset::open(folder.path(), 16).unwrap();
    let mut run = Run::start(recipe(), &data, options(&folder.path().join("run"))).unwrap();
    let path = run.folder().bundle();
    std::fs::create_dir(&path).unwrap();
    let error = loop {
        match run.next() {
            Ok(event) => assert!(event.is_some(), "nothing was written"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    std::fs::remove_dir(&path).unwrap();
    assert!(matches!(run.next().unwrap(), Some(RunEvent::Finished(_))));
    assert!(run.next().unwrap().is_none());
    assert!(Bundle::open(&path).is_ok());
}

#[test]
fn a_budget_fits_the_run_and_measuring_changes_no_weight() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let data = Dataset::open(folder.path(), 16).unwrap();
    let plain = Run::start(recipe(), &data, options(&folder.path().join("plain"))).unwrap().checkpoint();
    let measured = RunOptions { measure: true, ..options(&folder.path().join("measured")) };
    let mut measured = Run::start(recipe(), &data, measured).unwrap();
    assert!(measured.plan().unwrap().images_per_second > 0.0);
    assert!(plain == measured.checkpoint());
    let budget = Some(std::time::Duration::from_millis(1));
    let short = RunOptions { budget, ..options(&folder.path().join("short")) };
    assert_eq!(Run::start(recipe(), &data, short).unwrap().header().total_steps, 1);
}

#[test]
fn wrong_input_is_an_error_with_the_facts() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let data = Dataset::open(folder.path(), 16).unwrap();
    let mut larger = recipe();
    larger.training.image_size = 32;
    let error = Run::start(larger, &data, options(&folder.path().join("run"))).err().unwrap();
    assert!(error.to_string().contains("16 x 16 pixels and the recipe expects 32 x 32"), "{error}");
    assert!(!folder.path().join("run").exists(), "nothing is left behind");
    let error = Run::resume(folder.path().join("nowhere"), &data, on_cpu()).err().unwrap();
    assert!(matches!(error, Error::NoFolder(_)), "{error}");
    assert!(Recipe::named("nothing").is_err());
    drop(Run::start(recipe(), &data, options(&folder.path().join("run"))).unwrap());
    let error = Run::start(recipe(), &data, options(&folder.path().join("run"))).err().unwrap().to_string();
    assert!(error.contains("run") && !error.contains("--"), "no flag of the command: {error}");
}
