use kiln_data::synthetic;
use pollster::block_on;

use super::*;
use crate::recipe::BUILT_IN;

/// Every event up to the run's end.
fn run(trainer: &mut Trainer) -> Result<Vec<Event>, TrainError> {
    let mut events = vec![];
    while let Some(event) = block_on(trainer.next())? {
        events.push(event);
    }
    Ok(events)
}

fn checkpoint(trainer: &mut Trainer) -> Checkpoint {
    block_on(trainer.checkpoint())
}

/// The network after `steps` steps of a small recipe with these changes.
fn train(data: &Dataset, steps: usize, changes: &[&str]) -> Checkpoint {
    let network = ["model.width=4", "model.norm=group", "model.groups=2"];
    let small = [&network[..], &["training.batch_size=14", "training.ema_decay=0"]].concat();
    let overrides: Vec<_> = small.iter().chain(changes).map(|text| text.to_string()).collect();
    let recipe = Recipe::parse(BUILT_IN[0].1, &overrides).unwrap();
    let mut trainer = Trainer::new(recipe, data, Some(steps), &Device::flex()).unwrap();
    run(&mut trainer).unwrap();
    checkpoint(&mut trainer)
}

/// Largest difference of two networks' weights.
fn difference(a: &Checkpoint, b: &Checkpoint) -> f32 {
    let pairs = a.model.iter().zip(&b.model).flat_map(|((_, a), (_, b))| a.values.iter().zip(&b.values));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn without_batch_norm_micro_batches_change_nothing_but_rounding() {
    let data = synthetic(40, 0, 0);
    let rate = "optimizer.lr=0.01";
    let whole = train(&data, 3, &[rate]);
    // 14 images in two halves, and in parts of 5, 5 and 4.
    for parts in ["training.micro_batches=2", "training.micro_batches=3"] {
        let parted = train(&data, 3, &[rate, parts]);
        let difference = difference(&whole, &parted);
        assert!(difference < 1e-5, "{parts}: {difference}");
        let (whole, parted) = (&whole.header.history[0], &parted.header.history[0]);
        assert!((whole.train_loss - parted.train_loss).abs() < 1e-5, "{parts}");
        assert_eq!(whole.train_accuracy, parted.train_accuracy, "{parts}");
    }
}

#[test]
fn the_first_convolution_starts_whitening_if_the_recipe_says_so() {
    let data = synthetic(40, 0, 0);
    let [plain, whitened] = [&[][..], &["model.init=whitening"]].map(|changes| {
        let recipe = everything(&[&["model.width=32"], changes].concat());
        Trainer::new(recipe, &data, None, &Device::flex()).unwrap().model.state_dict()
    });
    for (name, tensor) in &plain {
        assert_eq!(tensor == &whitened[name], name != "conv1.weight", "{name}");
    }
}

#[test]
fn each_trick_takes_part_in_training() {
    let data = synthetic(40, 0, 0);
    let plain = train(&data, 2, &[]);
    for change in ["training.clip_norm=0.01", "augment.cutout=8", "augment.mix.mixup_chance=1"] {
        assert!(difference(&plain, &train(&data, 2, &[change])) > 1e-4, "{change}");
    }
    let averaged = train(&data, 2, &["training.ema_decay=0.9"]);
    assert_eq!(difference(&plain, &averaged), 0.0, "averaging leaves the weights themselves alone");
    assert_ne!(averaged.ema, averaged.model);
    assert!(plain.ema.is_empty());
}

/// A small recipe with everything in it that a checkpoint has to keep.
fn everything(changes: &[&str]) -> Recipe {
    let tricks = [
        "model.width=2",
        "training.batch_size=8",
        "training.validation=0.2",
        "training.ema_decay=0.9",
        "training.micro_batches=2",
        "augment.cutout=8",
        "augment.mix.mixup_chance=0.5",
        "augment.final_share=0.3",
    ];
    let overrides: Vec<_> = tricks.iter().chain(changes).map(|text| text.to_string()).collect();
    Recipe::parse(BUILT_IN[0].1, &overrides).unwrap()
}

/// All of a checkpoint but the times that were taken.
fn without_times(mut checkpoint: Checkpoint) -> Checkpoint {
    let header = &mut checkpoint.header;
    (header.seconds, header.running.seconds) = (0.0, 0.0);
    for epoch in &mut header.history {
        (epoch.seconds, epoch.images_per_second) = (0.0, 0.0);
    }
    checkpoint
}

#[test]
fn a_run_stopped_anywhere_goes_on_to_the_same_bits() {
    let (data, device, steps) = (synthetic(60, 0, 0), Device::flex(), Some(40));
    let mut whole = Trainer::new(everything(&[]), &data, steps, &device).unwrap();
    // Every moment at which a caller may stop: after a step, and between the batches of validation.
    let moments = run(&mut whole).unwrap().len();
    let whole = without_times(checkpoint(&mut whole));
    assert!(moments > 50, "{moments}");
    assert_eq!(whole.header.history.len(), 7);
    // One by one as on a CPU, and several ahead as on a GPU.
    for (moment, ahead) in (0..moments).map(|moment| (moment, 0)).chain([(3, 4), (17, 4), (31, 4)]) {
        let mut trainer = Trainer::new(everything(&[]), &data, steps, &device).unwrap().with_max_pending(ahead);
        for _ in 0..moment {
            assert!(block_on(trainer.next()).unwrap().is_some());
        }
        let checkpoint_then = Checkpoint::from_bytes(&checkpoint(&mut trainer).to_bytes().unwrap()).unwrap();
        let recipe = checkpoint_then.header.recipe.clone();
        let mut resumed = Trainer::resume(checkpoint_then, recipe, &[], &data, &device).unwrap();
        run(&mut resumed).unwrap();
        let resumed = without_times(checkpoint(&mut resumed));
        assert_eq!(resumed.header, whole.header, "stopped at moment {moment} of {moments}");
        assert!(resumed == whole, "stopped at moment {moment} of {moments}");
    }
}

#[test]
fn images_of_another_size_than_the_recipes_are_refused() {
    let data = synthetic(60, 0, 0);
    let error = Trainer::new(everything(&["training.image_size=64"]), &data, None, &Device::flex()).err().unwrap();
    assert!(error.to_string().contains("32 x 32 pixels and the recipe expects 64 x 64"), "{error}");
    let border = everything(&["augment.crop_padding=32"]);
    let error = Trainer::new(border, &data, None, &Device::flex()).err().unwrap();
    assert!(
        error.to_string().contains("leaves nothing of most images of 32 x 32: set augment.crop_padding = 4"),
        "{error}"
    );
}

#[test]
fn a_run_goes_on_with_another_recipe_only_where_that_is_allowed() {
    let data = synthetic(60, 0, 0);
    let mut trainer = Trainer::new(everything(&["training.epochs=2"]), &data, None, &Device::flex()).unwrap();
    run(&mut trainer).unwrap();
    let checkpoint = checkpoint(&mut trainer);
    let resume = |changes: &[&str], allowed: &[&str], data: &Dataset| {
        let allowed: Vec<_> = allowed.iter().map(|field| field.to_string()).collect();
        let recipe = everything(&[&["training.epochs=2"], changes].concat());
        match Trainer::resume(checkpoint.clone(), recipe, &allowed, data, &Device::flex()) {
            Ok(trainer) => Ok(trainer.header().total_steps),
            Err(error) => Err(error.to_string()),
        }
    };
    let longer = ["training.epochs=3", "optimizer.lr=0.01"];
    let error = resume(&longer, &["training.epochs"], &data).unwrap_err();
    assert!(error.contains("allow optimizer.lr to change") && !error.contains("epochs is"), "{error}");
    assert_eq!(resume(&longer, &["training.epochs", "optimizer.lr"], &data), Ok(18));
    let error = resume(&["training.epochs=1"], &["training.epochs"], &data).unwrap_err();
    assert!(error.contains("12 steps, more than the 6 of 1 epochs"), "{error}");
    for fixed in ["training.batch_size=4", "training.seed=1", "model.width=4"] {
        let field = fixed.split_once('=').unwrap().0;
        let error = resume(&[fixed], &[field, "architecture"], &data).unwrap_err();
        assert!(error.contains(field) && error.contains("cannot change within a run"), "{error}");
    }
    let renamed = Dataset { name: "a copy".to_owned(), ..synthetic(60, 0, 0) };
    assert_eq!(resume(&[], &[], &renamed), Ok(12), "the digest decides");
    let mut other = synthetic(60, 0, 0);
    other.train.pixels_mut()[0] ^= 1;
    assert!(resume(&[], &[], &other).unwrap_err().contains("allow dataset to change"));
    assert_eq!(resume(&[], &["dataset"], &other), Ok(12));
    assert!(resume(&[], &["dataset"], &synthetic(80, 0, 0)).unwrap_err().contains("number of steps"));
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_but_the_rate() {
    let data = synthetic(60, 0, 0);
    // One by one as on a CPU, and several ahead as on a GPU, whose steps are then done again.
    let ends = [0, 4].map(|max_pending| {
        let trainer = Trainer::new(everything(&[]), &data, Some(20), &Device::flex()).unwrap();
        let mut trainer = trainer.with_max_pending(max_pending);
        trainer.poisoned = vec![2, 3, 10];
        let skipped = run(&mut trainer).unwrap().into_iter().filter_map(|event| match event {
            Event::Skipped(SkippedStep { step, in_a_row, place, .. }) => Some((step, in_a_row, place)),
            _ => None,
        });
        let skipped: Vec<_> = skipped.collect();
        // The network's outputs are finite, the loss made of them is not; the head comes first on the way back.
        let place = || "the gradient of fc.weight".to_owned();
        assert_eq!(skipped, [(3, 1, place()), (4, 2, place()), (11, 1, place())], "{max_pending} ahead");
        without_times(checkpoint(&mut trainer))
    });
    assert!(ends[0] == ends[1]);
    let Recovery { skipped, in_a_row, halvings, good } = ends[0].header.recovery;
    assert_eq!((skipped, in_a_row, halvings, good), (3, 0, 3, 9));

    let mut plain = Trainer::new(everything(&[]), &data, Some(3), &Device::flex()).unwrap();
    let mut left_out = Trainer::new(everything(&[]), &data, Some(3), &Device::flex()).unwrap();
    left_out.poisoned = vec![1];
    for trainer in [&mut plain, &mut left_out] {
        run(trainer).unwrap();
    }
    assert!(difference(&checkpoint(&mut plain), &checkpoint(&mut left_out)) > 0.0, "two steps are not three");
}

#[test]
fn too_many_bad_steps_end_a_run_which_stands_where_it_stood() {
    // An epoch of more steps than may be bad.
    let data = synthetic(200, 0, 0);
    for max_pending in [0, 4] {
        let trainer = Trainer::new(everything(&[]), &data, Some(40), &Device::flex()).unwrap();
        let mut trainer = trainer.with_max_pending(max_pending);
        loop {
            if let Event::Step(metrics) = block_on(trainer.next()).unwrap().unwrap()
                && metrics.step >= 4
            {
                break;
            }
        }
        let good = checkpoint(&mut trainer);
        trainer.poisoned = (0..40).collect();
        let error = run(&mut trainer).unwrap_err();
        let TrainError::Diverged { place, .. } = &error else { panic!("{error}") };
        assert_eq!(place, "the gradient of fc.weight");
        assert!(error.to_string().contains("the loss was NaN"), "{error}");
        let left = checkpoint(&mut trainer);
        assert!(left.model == good.model && left.momentum == good.momentum && left.ema == good.ema);
    }
}

#[test]
fn the_layer_whose_output_is_not_finite_is_named() {
    let data = synthetic(200, 0, 0);
    let mut trainer = Trainer::new(everything(&[]), &data, Some(40), &Device::flex()).unwrap();
    let mut state = trainer.model.state_dict();
    state.get_mut("layer3.0.bn1.bias").unwrap().values[0] = f32::INFINITY;
    trainer = trainer.with_weights(state, true).unwrap();
    let error = run(&mut trainer).unwrap_err().to_string();
    assert!(error.contains("the output of layer3.0 was not finite"), "{error}");
}

#[test]
fn the_end_of_a_run_is_as_the_recipe_says() {
    let data = synthetic(40, 0, 0);
    let end = ["augment.cutout=8", "augment.final_share=1.0", "augment.final_keeps=crop_and_flip"];
    assert_eq!(difference(&train(&data, 2, &[]), &train(&data, 2, &end)), 0.0);
}

/// A small recipe with these changes, on a CPU.
fn trainer<'a>(data: &'a Dataset, changes: &[&str]) -> Trainer<'a> {
    let small = ["model.width=4", "training.batch_size=10", "training.epochs=1", "training.ema_decay=0"];
    let overrides: Vec<_> = small.iter().chain(changes).map(|text| text.to_string()).collect();
    Trainer::new(Recipe::parse(BUILT_IN[0].1, &overrides).unwrap(), data, Some(3), &Device::flex()).unwrap()
}

/// The names whose values differ.
fn changed(before: &StateDict, after: &StateDict) -> Vec<String> {
    let differs = |(name, tensor): &(&String, &kiln_model::StateTensor)| before[*name].values != tensor.values;
    after.iter().filter(differs).map(|(name, _)| name.clone()).collect()
}

const NO_AUGMENTATION: [&str; 2] = ["augment.crop_padding=0", "augment.flip=none"];

#[test]
fn what_is_frozen_keeps_its_weights_and_statistics() {
    let data = synthetic(40, 0, 0);
    for (freeze, still) in
        [("backbone", &["conv1", "bn1", "layer"][..]), ("stages:2", &["conv1", "bn1", "layer1", "layer2"])]
    {
        for augmentation in [&[][..], &NO_AUGMENTATION] {
            let freeze = format!("training.freeze={freeze}");
            let mut trainer = trainer(&data, &[&[freeze.as_str()], augmentation].concat());
            let before = checkpoint(&mut trainer).model;
            run(&mut trainer).unwrap();
            let changed = changed(&before, &checkpoint(&mut trainer).model);
            let is_still = |name: &&String| still.iter().any(|start| name.starts_with(start));
            assert_eq!(changed.iter().filter(is_still).count(), 0, "{freeze}: {changed:?}");
            let moving = before.keys().filter(|name| !is_still(name) && !name.ends_with("num_batches_tracked"));
            assert_eq!(changed.len(), moving.count(), "{freeze}: all the rest trains");
        }
    }
}

#[test]
fn features_that_are_kept_train_the_head_as_those_computed_anew() {
    let data = synthetic(40, 0, 0);
    let constant = ["training.freeze=backbone", "schedule.kind=constant", "schedule.warmup=0", "optimizer.lr=0.1"];
    let changes = [&constant[..], &NO_AUGMENTATION].concat();
    let (mut kept, mut anew) = (trainer(&data, &changes), trainer(&data, &changes));
    let events = run(&mut kept).unwrap();
    assert!(matches!(events[0], Event::Queued), "features come first");
    for _ in 0..3 {
        block_on(anew.step_at(0.1)).unwrap();
    }
    let (kept, anew) = (checkpoint(&mut kept), checkpoint(&mut anew));
    assert!(difference(&kept, &anew) < 1e-5);
    assert!(kept.model["fc.weight"].values.iter().any(|weight| weight.abs() > 1e-3));
}

#[test]
fn the_head_and_each_stage_can_have_a_rate_of_their_own() {
    let data = synthetic(40, 0, 0);
    let parameters_changed = |change: &str| {
        let mut trainer = trainer(&data, &[change]);
        let before = checkpoint(&mut trainer).model;
        run(&mut trainer).unwrap();
        let changed = changed(&before, &checkpoint(&mut trainer).model);
        changed.into_iter().filter(|name| !name.contains("running")).collect::<Vec<_>>()
    };
    let without_head = parameters_changed("optimizer.head_lr_factor=0");
    assert!(!without_head.is_empty() && without_head.iter().all(|name| !name.starts_with("fc.")), "{without_head:?}");
    assert_eq!(parameters_changed("optimizer.layer_decay=0"), ["fc.bias", "fc.weight"]);
}

#[test]
fn balanced_weights_change_only_what_classes_of_different_size_give() {
    let mut data = synthetic(40, 0, 0);
    let head = |data: &Dataset, change: &str| {
        let mut trainer = trainer(data, &[change, "training.validation=0"]);
        run(&mut trainer).unwrap();
        checkpoint(&mut trainer).model["fc.weight"].values.clone()
    };
    let (none, balanced) = ("training.class_weights=none", "training.class_weights=balanced");
    assert_eq!(head(&data, none), head(&data, balanced), "ten classes of four images each");
    data.train.labels.iter_mut().take(20).for_each(|label| *label = 0);
    assert_ne!(head(&data, none), head(&data, balanced));
    assert_ne!(head(&data, none), head(&data, "training.sampling=balanced"));
}
