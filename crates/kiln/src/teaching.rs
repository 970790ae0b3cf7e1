//! A network taught other classes by some pictures: its backbone stays, its head is fitted anew.

use kiln_data::ImageSet;
use kiln_model::{Bundle, PredictError, Predictor, StateTensor};
use kiln_train::Predictions;
use kiln_train::teach::{Examples, Head};
use pollster::block_on;

use crate::{Dataset, Error};

/// Pictures that go through the backbone together.
const BATCH: usize = 64;
/// The recipe that a taught bundle names.
const RECIPE: &str = "taught";

/// What a network's backbone makes of images, which must have its size. Says after each batch how many are done.
///
/// # Errors
/// If an image cannot be read any more, or a GPU is lost.
pub fn examples(
    predictor: &mut Predictor,
    set: &ImageSet,
    classes: &[String],
    mut done: impl FnMut(usize),
) -> Result<Examples, Error> {
    let mut features = vec![];
    let indices: Vec<usize> = (0..set.len()).collect();
    for batch in indices.chunks(BATCH) {
        let pictures = batch.iter().map(|index| Ok(set.image(*index)?.into_owned()));
        let pictures = pictures.collect::<Result<Vec<_>, Error>>()?;
        let predictions = block_on(predictor.predict_batch(&pictures)).map_err(PredictError::from)?;
        features.extend(predictions.into_iter().flat_map(|prediction| prediction.features));
        done(batch.last().map_or(0, |last| last + 1));
    }
    let labels = set.labels.iter().map(|label| *label as usize).collect();
    Ok(Examples { classes: classes.to_vec(), labels, features })
}

/// A head's answers to examples.
pub fn answers(head: &Head, examples: &Examples) -> Predictions {
    let width = examples.features.len() / examples.labels.len().max(1);
    Predictions {
        classes: examples.classes.clone(),
        labels: examples.labels.clone(),
        logits: examples.features.chunks_exact(width.max(1)).flat_map(|row| head.logits(row)).collect(),
        features: vec![],
    }
}

/// The network with that head for a dataset's classes. `measured` is the accuracy that the bundle states, with its split.
pub fn with_head(bundle: Bundle, head: Head, data: &Dataset, measured: Option<(&str, &Predictions)>) -> Bundle {
    let Bundle { mut metadata, mut state } = bundle;
    let classes = data.classes.len();
    let [weight, bias] = metadata.architecture.head();
    let width = head.weight.len() / classes;
    state.insert(weight.to_owned(), StateTensor { shape: vec![classes, width], values: head.weight });
    state.insert(bias.to_owned(), StateTensor { shape: vec![classes], values: head.bias });
    metadata.architecture = metadata.architecture.clone().with_classes(classes);
    metadata.classes.clone_from(&data.classes);
    metadata.dataset.clone_from(&data.name);
    metadata.dataset_digest = data.digest();
    metadata.accuracy = measured.map(|(_, answers)| answers.accuracy());
    metadata.accuracy_split = measured.map(|(split, _)| split.to_owned());
    metadata.accuracy_samples = measured.map(|(_, answers)| answers.len());
    metadata.recipe = RECIPE.to_owned();
    metadata.seed = 0;
    metadata.kiln_version = env!("CARGO_PKG_VERSION").to_owned();
    metadata.quantisation = None;
    Bundle { metadata, state }
}
