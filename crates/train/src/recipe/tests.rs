use super::*;

fn quick(overrides: &[&str]) -> Result<Recipe, RecipeError> {
    let overrides: Vec<_> = overrides.iter().map(|text| text.to_string()).collect();
    Recipe::parse(BUILT_IN[0].1, &overrides)
}

#[test]
fn every_built_in_recipe_is_valid_and_bears_its_name() {
    for (name, text) in BUILT_IN {
        let recipe = Recipe::parse(text, &[]).unwrap();
        assert_eq!(recipe.name, name);
        assert_eq!(Recipe::parse(&recipe.to_toml(), &[]).unwrap(), recipe);
    }
}

#[test]
fn every_field_is_explained() {
    let page = include_str!("../../../../docs/recipes.md");
    for name in [BUILT_IN[0].0, VIT] {
        let text = Recipe::named(name).unwrap().to_toml();
        for key in keys(&text.parse().unwrap()).into_iter().filter(|key| key != "name") {
            assert!(page.contains(&format!("`{key}`")), "docs/recipes.md lacks {key}");
        }
    }
}

#[test]
fn every_file_in_the_recipes_folder_is_built_in() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let mut known: Vec<std::ffi::OsString> = BUILT_IN.iter().map(|(name, _)| format!("{name}.toml").into()).collect();
    files.sort();
    known.sort();
    assert_eq!(files, known);
}

#[test]
fn recipes_make_the_networks_and_schedules_of_their_references() {
    let recipe = |name: &str| {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap();
        Recipe::parse(text, &[]).unwrap()
    };
    for name in ["compact-plain", "compact-mixup", "compact-cutmix", "compact-aggressive", "compact-smoothing"] {
        let architecture = recipe(name).architecture(10, 32).unwrap();
        assert_eq!(kiln_model::Summary::new(&architecture, 32).parameters(), 11_154_890, "{name}");
        assert_eq!(50_000 / recipe(name).training.batch_size, 3125, "{name}");
    }
    // 5 of 200 epochs of warm-up, and 1e-6 at the end.
    for name in ["resnet18-batch-norm", "resnet18-group-norm", "vit-tiny"] {
        let Recipe { training, optimizer, schedule, .. } = recipe(name);
        let rate = |epoch: usize| optimizer.lr * schedule.factor(epoch, training.epochs);
        assert!(rate(4) < 0.1 && rate(5) == 0.1 && rate(6) < 0.1, "{name}");
        assert!((rate(200) - 1e-6).abs() < 1e-12, "{name}");
    }
    let Recipe { schedule, .. } = recipe("resnet18-steps");
    for (epoch, factor) in [(0, 1.0), (59, 1.0), (60, 0.1), (79, 0.1), (80, 0.01), (99, 0.01)] {
        assert!((schedule.factor(epoch, 100) - factor).abs() < 1e-12, "{epoch}");
    }
}

#[test]
fn a_transformer_is_trained_under_the_conditions_of_its_rival_and_has_keys_of_its_own() {
    let recipe = |name: &str, overrides: &[&str]| {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).unwrap();
        Recipe::parse(text, &overrides.iter().map(|text| text.to_string()).collect::<Vec<_>>())
    };
    let (vit, resnet) = (recipe("vit-tiny", &[]).unwrap(), recipe("resnet18-batch-norm", &[]).unwrap());
    let conditions = |recipe: Recipe| (recipe.training, recipe.optimizer, recipe.schedule, recipe.augment);
    assert_eq!(conditions(vit.clone()), conditions(resnet));
    assert_eq!(kiln_model::Summary::new(&vit.architecture(10, 32).unwrap(), 32).parameters(), 5_362_378);
    let json = serde_json::to_string(&vit).unwrap();
    assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), vit, "as a checkpoint keeps it");
    for (entry, words) in [
        ("model.norm=group", "no key 'model.norm'"),
        ("model.heads=5", "5 heads do not share the 192 channels"),
        ("model.patch=5", "patches of 5"),
        ("training.precision=bf16", "f32 for vit-tiny"),
        ("model.preset=resnet18", "no key 'model."),
    ] {
        let error = recipe("vit-tiny", &[entry]).unwrap_err().to_string();
        assert!(error.contains(words), "{entry}: {error}");
    }
    assert!(quick(&["model.heads=3"]).unwrap_err().to_string().contains("no key 'model.heads'"));
}

#[test]
fn overrides_reach_every_kind_of_field() {
    let recipe = quick(&[
        "optimizer.lr=1",
        "training.epochs = 3",
        "schedule.kind=multi_step",
        "schedule.milestones=[0.6, 0.8]",
        "optimizer.nesterov=false",
    ])
    .unwrap();
    assert_eq!((recipe.optimizer.lr, recipe.training.epochs, recipe.optimizer.nesterov), (1.0, 3, false));
    assert_eq!((recipe.schedule.kind, recipe.schedule.milestones), (ScheduleKind::MultiStep, vec![0.6, 0.8]));
}

#[test]
fn the_last_share_of_a_run_is_augmented_less() {
    let recipe = quick(&["augment.cutout=8", "augment.final_share=0.25", "augment.final_keeps=nothing"]).unwrap();
    assert_eq!([0, 74, 75, 99].map(|step| recipe.augment_at(step, 100).cutout), [8, 8, 0, 0]);
    assert_eq!(recipe.augment_at(99, 100).crop_padding, 0);
    let recipe = quick(&["augment.final_share=0.25", "augment.final_keeps=crop_and_flip"]).unwrap();
    assert_eq!(recipe.augment_at(99, 100).crop_padding, 4);
    let recipe = quick(&[]).unwrap();
    assert_eq!(*recipe.augment_at(99, 100), recipe.augment, "all the way where the share is 0");
}

#[test]
fn a_misspelt_key_brings_the_nearest_one() {
    for (wrong, right) in [
        ("optimizer.learning_rte=1", "lr"),
        ("optimizer.momentm=0.9", "optimizer.momentum"),
        ("training.epoch=3", "training.epochs"),
    ] {
        let error = quick(&[wrong]).unwrap_err().to_string();
        assert!(error.contains("no key"), "{error}");
        if wrong != "optimizer.learning_rte=1" {
            assert!(error.contains(&format!("did you mean '{right}'")), "{error}");
        }
    }
    let misspelt = BUILT_IN[0].1.replace("batch_size", "batchsize");
    let error = Recipe::parse(&misspelt, &[]).unwrap_err().to_string();
    assert!(error.contains("'training.batchsize'; did you mean 'training.batch_size'?"), "{error}");
}

#[test]
fn impossible_values_name_their_key() {
    for (entry, key) in [
        ("model.width=0", "width"),
        ("training.epochs=0", "training.epochs"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("training.validation=1.5", "training.validation"),
        ("training.micro_batches=0", "training.micro_batches"),
        ("training.micro_batches=129", "must be 1 to 128"),
        ("training.image_size=1025", "training.image_size"),
        ("training.crop_pct=0", "training.crop_pct"),
        ("augment.resized_crop.min_area=0", "augment.resized_crop.min_area"),
        ("augment.resized_crop.max_aspect=0.5", "augment.resized_crop.max_aspect"),
        ("training.clip_norm=-1", "training.clip_norm"),
        ("training.ema_decay=1", "training.ema_decay"),
        ("training.flip_tta=2", "flip_tta"),
        ("model.stem=compact", "cifar or imagenet for resnet18"),
        ("augment.flip_chance=2", "augment.flip_chance"),
        ("augment.cutout=-1", "cutout"),
        ("augment.final_share=1.1", "augment.final_share"),
        ("augment.final_keeps=all", "final_keeps"),
        ("augment.affine.chance=nan", "augment.affine.chance"),
        ("augment.affine.rotation=200", "augment.affine.rotation"),
        ("augment.affine.translation=2", "augment.affine.translation"),
        ("augment.affine.scale=1", "augment.affine.scale"),
        ("augment.affine.shear=90", "augment.affine.shear"),
        ("augment.colour.brightness=2", "augment.color.brightness"),
        ("augment.colour.contrast=-1", "augment.color.contrast"),
        ("augment.colour.saturation=2", "augment.color.saturation"),
        ("augment.mix.mixup_alpha=0", "augment.mix.mixup_alpha"),
        ("augment.mix.cutmix_alpha=9", "augment.mix.cutmix_alpha"),
        ("model.preset=resnet19", "resnet19"),
    ] {
        let error = quick(&[entry]).unwrap_err().to_string();
        assert!(error.contains(key), "{entry}: {error}");
    }
    let both = ["augment.mix.mixup_chance=0.6", "augment.mix.cutmix_chance=0.6"];
    assert!(quick(&both).unwrap_err().to_string().contains("augment.mix.cutmix_chance = 0.6"));
    assert!(matches!(quick(&["lr"]), Err(RecipeError::Override(_))));
    assert!(matches!(quick(&["training.epochs=many"]), Err(RecipeError::Syntax(_))));
}

#[test]
fn a_recipe_on_a_base_says_only_what_it_changes() {
    let text = "name = \"mine\"\nbase = \"s1-plain\"\n[training]\nepochs = 3\n[augment.color]\ncontrast = 0.5\n";
    let recipe = Recipe::parse(text, &["optimizer.lr=0.5".into()]).unwrap();
    let plain = Recipe::named("compact-plain").unwrap();
    let mut expected = Recipe { name: "mine".into(), ..plain };
    (expected.training.epochs, expected.augment.color.contrast, expected.optimizer.lr) = (3, 0.5, 0.5);
    assert_eq!(recipe, expected);
    let error = |text: &str| Recipe::parse(text, &[]).unwrap_err().to_string();
    assert!(error("name = \"a\"\nbase = \"nothing\"").contains("there are quick"));
    assert!(error("name = \"a\"\nbase = 3").contains("must be a built-in recipe"));
    assert!(error("name = \"a\"\nbase = \"vit-tiny\"").contains("take resnet18-batch-norm"));
    assert!(error("name = \"a\"\nbase = \"quick\"\n[training]\nepoch = 3").contains("did you mean 'training.epochs'"));
    assert!(error("base = \"quick\"").contains("name"), "a name of its own");
    let wrong = error("name = \"a\"\nbase = \"quick\"\ntraining = 3");
    assert!(wrong.contains("'training' is a table of keys, not 3"), "{wrong}");
    let deeper = Recipe::parse("name = \"a\"\nbase = \"quick\"\n[model]\npreset = \"resnet34\"", &[]).unwrap();
    let Model::ResNet(model) = deeper.model else { panic!("resnet34 is a ResNet") };
    assert_eq!((model.preset.as_str(), model.width, model.groups), ("resnet34", 16, 8), "all else is the base's");
}

#[test]
fn a_network_of_another_family_replaces_the_bases() {
    let vit = Recipe::named("vit-tiny").unwrap();
    assert!(matches!(vit.model, Model::Vit(_)));
    let lacking = Recipe::parse("name = \"a\"\nbase = \"quick\"\n[model]\npreset = \"vit-tiny\"", &[]).unwrap_err();
    assert!(lacking.to_string().contains("lacks the key 'model."), "{lacking}");
}

#[test]
fn old_names_and_keys_are_still_read() {
    for (old, new) in ALIASES {
        assert_eq!(Recipe::named(old).unwrap(), Recipe::named(new).unwrap());
    }
    let old = Recipe::named("quick").unwrap().to_toml().replace("[augment.color]", "[augment.colour]");
    assert_eq!(Recipe::parse(&old, &[]).unwrap(), Recipe::named("quick").unwrap());
    let json = serde_json::to_string(&Recipe::named("quick").unwrap()).unwrap().replace("\"color\"", "\"colour\"");
    assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), Recipe::named("quick").unwrap(), "of a checkpoint");
    assert_eq!(quick(&["augment.colour.contrast=0.5"]).unwrap().augment.color.contrast, 0.5);
}

#[test]
fn what_is_printed_is_the_same_recipe_with_every_key_explained() {
    for (name, text) in BUILT_IN {
        let printed = resolved(text).unwrap();
        assert_eq!(Recipe::parse(&printed, &[]).unwrap(), Recipe::named(name).unwrap());
        assert!(!printed.contains("base =") && !printed.contains("0000000"), "{printed}");
        let keys = printed.lines().filter(|line| line.contains(" = ") && line.contains(" # ")).count();
        assert!(keys >= 40, "{keys} keys of {name} have a comment");
    }
}

#[test]
fn what_is_printed_keeps_how_a_user_wrote_it() {
    let alone = BUILT_IN[0].1.replace("# images an update", "# my own words");
    assert_eq!(resolved(&alone).unwrap(), alone, "a file without a base is complete");
    let text = "# Mine.\nname = \"mine\"\nbase = \"resnet18-batch-norm\"\n[optimizer]\nlr = 5e-2 # found by lr-find\n";
    let printed = resolved(text).unwrap();
    assert!(printed.starts_with("# Mine.\nname = \"mine\"\n"), "{printed}");
    assert!(printed.contains("\nlr = 5e-2                     # found by lr-find\n"), "{printed}");
    assert!(printed.contains("\nweight_decay = 5e-4 "), "numbers of the base as they stand there: {printed}");
    let old = resolved("name = \"a\"\nbase = \"quick\"\n[augment.colour]\ncontrast = 0.25").unwrap();
    assert!(old.contains("\ncontrast = 0.25 "), "{old}");
}

#[test]
fn a_recipe_from_before_a_key_existed_means_what_it_did() {
    let new = ["class_weights", "sampling", "freeze", "head_lr_factor", "layer_decay"];
    let old: Vec<_> = BUILT_IN[0].1.lines().filter(|line| !new.iter().any(|key| line.starts_with(key))).collect();
    assert_eq!(old.len() + new.len(), BUILT_IN[0].1.lines().count());
    assert_eq!(Recipe::parse(&old.join("\n"), &[]).unwrap(), Recipe::named("quick").unwrap());
    let mut json = serde_json::to_value(Recipe::named("quick").unwrap()).unwrap();
    for (section, keys) in [("training", &new[..3]), ("optimizer", &new[3..])] {
        keys.iter().for_each(|key| drop(json[section].as_object_mut().unwrap().remove(*key).unwrap()));
    }
    assert_eq!(serde_json::from_value::<Recipe>(json).unwrap(), Recipe::named("quick").unwrap(), "of a checkpoint");
    for (entry, words) in [
        ("training.freeze=stages:5", "0 to 4"),
        ("training.freeze=all", "none, backbone or stages:N"),
        ("training.class_weights=3", "class_weights"),
        ("optimizer.layer_decay=2", "optimizer.layer_decay"),
    ] {
        let error = quick(&[entry]).unwrap_err().to_string();
        assert!(error.contains(words), "{entry}: {error}");
    }
    assert_eq!(quick(&["training.freeze=stages:2"]).unwrap().training.freeze, Frozen::Stages(2));
}
