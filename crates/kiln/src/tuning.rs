//! The forms of Kiln's shaders that a run takes on its GPU.

use std::time::{Duration, Instant};

use kiln_infer::Precision;
use kiln_infer::conv2d::{Choices, Form};
use kiln_kernels::device::SelectedDevice;
use kiln_kernels::tuning::{Patience, Tuning, use_on};
use kiln_train::Header;

/// What a run may spend before its first step.
const PATIENCE: Patience = Patience { total: Duration::from_secs(5), form: Duration::from_secs(5) };

/// What was tuned before a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuned {
    pub seconds: f64,
    /// Passes of convolutions that were tuned, of as many that the network has.
    pub passes: [usize; 2],
    /// Passes of which another form than the untuned one is the fastest.
    pub changed: usize,
}

/// Lets a device take the forms of Kiln's shaders that were found to be the fastest on it by an earlier run or `kiln tune`.
/// Gives a warning if what is known of them cannot be read.
pub fn use_known_forms(selected: &SelectedDevice) -> Option<String> {
    let tuning = Tuning::open(selected.adapter.as_ref()?);
    use_on(&selected.device, tuning.choices().clone());
    tuning.warning().map(ToOwned::to_owned)
}

/// Lets a device take the forms that run where nothing is known of it.
pub fn use_first_forms(selected: &SelectedDevice) {
    use_on(&selected.device, Choices::default());
}

/// Tunes what a run needs and is not known yet, on a real GPU; elsewhere what is known is taken. Gives what was tuned, and
/// warnings.
pub(crate) fn tune_for(selected: &SelectedDevice, header: &Header) -> (Option<Tuned>, Vec<String>) {
    let Some(adapter) = &selected.adapter else { return (None, vec![]) };
    let mut tuning = Tuning::open(adapter);
    let mut warnings: Vec<_> = tuning.warning().map(ToOwned::to_owned).into_iter().collect();
    let training = &header.recipe.training;
    let batch = training.batch_size.div_ceil(training.micro_batches);
    let convolutions = header.architecture.convolutions(header.image_size, batch);
    let missing = tuning.missing(&convolutions);
    let mut tuned = None;
    if selected.is_gpu && training.precision == Precision::F32 && !missing.is_empty() {
        let (start, mut done, mut changed) = (Instant::now(), 0, 0);
        let result = tuning.tune(adapter, &missing, PATIENCE, |pass| {
            done += 1;
            changed += usize::from(pass.ranking().first().is_some_and(|(form, _)| *form != Form::default()));
        });
        warnings.extend(result.err().map(|error| format!("this GPU was not tuned to its end: {error}")));
        tuned = Some(Tuned { seconds: start.elapsed().as_secs_f64(), passes: [done, 3 * missing.len()], changed });
    }
    use_on(&selected.device, tuning.choices().clone());
    (tuned, warnings)
}
