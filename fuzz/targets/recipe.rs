//! A recipe, and after each zero byte an override of it.

#![no_main]

use kiln_train::Recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split('\0');
    let recipe = parts.next().unwrap_or_default();
    let overrides: Vec<String> = parts.map(str::to_owned).collect();
    let text = if recipe.is_empty() { kiln_train::recipe::BUILT_IN[0].1 } else { recipe };
    let Ok(recipe) = Recipe::parse(text, &overrides) else { return };
    let again = Recipe::parse(&recipe.to_toml(), &[]).expect("what was written can be read");
    assert_eq!(again, recipe);
    for (step, total) in [(0, 1), (0, 1000), (500, 1000), (999, 1000)] {
        let factor = recipe.schedule.factor(step, total);
        assert!((0.0..=1.0).contains(&factor), "{factor}");
        recipe.augment_at(step, total);
    }
    recipe.architecture(10, recipe.training.image_size).expect("a recipe that was read makes a network");
});
