//! Which form of a convolution is fastest on a GPU, of those that are right on it: each is run on random inputs, compared, and
//! timed in turn with the others.
//!
//! Nobody has all the GPUs that people bring, and drivers have faults of their own. So no form is chosen that has not given the
//! right numbers on this very device: every one of them is compared with the first that passes, and that one's with the
//! definition in double precision at places spread over the whole output.

#[cfg(not(target_family = "wasm"))]
use std::sync::{
    Arc,
    mpsc::{self, RecvTimeoutError},
};
#[cfg(not(target_family = "wasm"))]
use std::thread;

use web_time::{Duration, Instant};

use crate::GpuError;
use crate::check::{noise, relative_error};
use crate::conv2d::wgsl::{Steps, steps};
use crate::conv2d::{Form, Geometry, Outcome, Pass, Trial, reference};
#[cfg(not(target_family = "wasm"))]
use crate::gpu::Adapter;
use crate::runner::{Prepared, Runner};

/// The most that a result may be off, over the largest: long sums in f32 differ by a tenth of it in their order alone, and a
/// single product that is missing in a hundred thousand shows.
const LIMIT: f64 = 1e-4;
/// Places of an output that are compared with the definition.
const PLACES: usize = 128;
/// Times that each form is measured; the median counts. Runs that are long are as good as measured by one.
const ROUNDS: usize = 3;
/// Times the fastest first run after which a form is out of the race: where runs are short, a first one says little.
const HOPELESS: [f64; 2] = [4.0, 1.5];
/// A measurement takes at least this long, in runs that follow each other.
const LONG_ENOUGH: Duration = Duration::from_millis(4);
/// Times its patience that a device is given to end what took too long.
#[cfg(not(target_family = "wasm"))]
const GRACE: u32 = 4;
/// A run should take no longer than this: the batch is cut for a slow device.
const LONGEST_RUN: Duration = Duration::from_millis(20);

/// Numbers of an input or output beyond which more images say nothing new: they fill the largest GPU several times over, and
/// to make, upload and compare them takes longer than to convolve them.
const MOST_NUMBERS: usize = 1 << 23;

/// A form that is right, ready to be timed.
struct Ready {
    form: Form,
    prepared: Vec<Prepared>,
    /// Of its first run that was not also its driver's to compile it.
    first: Duration,
}

/// The inputs of a pass, and what is known of its output.
struct Problem<'a> {
    runner: &'a Runner,
    geometry: Geometry,
    pass: Pass,
    values: [Vec<f32>; 2],
    inputs: [wgpu::Buffer; 2],
    /// The whole output by the first form that was right.
    whole: Option<Vec<f64>>,
}

/// Lengths of a pass's inputs.
fn input_lens(geometry: &Geometry, pass: Pass) -> [usize; 2] {
    let [x, y, weight] =
        [Pass::BackwardData, Pass::Forward, Pass::BackwardWeight].map(|pass| geometry.output_len(pass));
    match pass {
        Pass::Forward => [x, weight],
        Pass::BackwardData => [y, weight],
        Pass::BackwardWeight => [x, y],
    }
}

impl<'a> Problem<'a> {
    fn new(runner: &'a Runner, geometry: Geometry, pass: Pass) -> Self {
        let lens = input_lens(&geometry, pass);
        let values = [noise(lens[0], 1), noise(lens[1], 2)];
        let inputs = [&values[0], &values[1]].map(|values| runner.upload(values));
        Self { runner, geometry, pass, values, inputs, whole: None }
    }

    /// Compiles a form and runs it; the time of a run, and its error.
    async fn check(&mut self, steps: &Steps) -> Result<(Vec<Prepared>, Duration, f64), GpuError> {
        let output = self.runner.poisoned(self.geometry.output_len(self.pass));
        let prepared = self.runner.prepare_steps(steps, [&self.inputs[0], &self.inputs[1]], &output).await?;
        // Some drivers compile when a shader runs for the first time.
        self.runner.repeat(&prepared, 1).await?;
        let start = Instant::now();
        self.runner.repeat(&prepared, 1).await?;
        let first = start.elapsed();
        let found = self.runner.read(&output).await?;
        let error = match &self.whole {
            Some(whole) => relative_error(&found, whole),
            None => {
                // What was never written is not a number.
                let is_whole = found.iter().all(|value| value.is_finite());
                let error = if is_whole { self.error_at_places(&found) } else { f64::INFINITY };
                if error <= LIMIT {
                    self.whole = Some(found.into_iter().map(f64::from).collect());
                }
                error
            }
        };
        Ok((prepared, first, error))
    }

    /// The error at places spread over the whole output, its first and last number among them.
    fn error_at_places(&self, found: &[f32]) -> f64 {
        /// The golden ratio of 2^64: its multiples meet all rows, columns and channels.
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let (len, count) = (found.len(), PLACES.min(found.len()) as u64);
        let spread = (0..count).map(|place| ((u128::from(place.wrapping_mul(STEP)) * len as u128) >> 64) as usize);
        let [first, second] = &self.values;
        let (found, expected): (Vec<_>, Vec<_>) = spread
            .chain(len.checked_sub(1))
            .map(|index| (found[index], reference::at(&self.geometry, self.pass, first, second, index)))
            .unzip();
        relative_error(&found, &expected)
    }
}

/// Tries the forms of a pass; says of each when it begins with it. Whatever a form does is its outcome. A lost device refuses
/// all that follow.
pub async fn trials(
    runner: &Runner,
    geometry: &Geometry,
    pass: Pass,
    forms: &[(Form, Steps)],
    begins: impl Fn(Form),
) -> Vec<Trial> {
    let mut problem = Problem::new(runner, *geometry, pass);
    let mut trials = vec![];
    let mut ready = vec![];
    for (form, steps) in forms {
        begins(*form);
        let outcome = match problem.check(steps).await {
            Ok((prepared, first, error)) if error <= LIMIT => {
                ready.push(Ready { form: *form, prepared, first });
                continue;
            }
            Ok((.., error)) => Outcome::Wrong(error),
            Err(error) => Outcome::Refused(error.to_string()),
        };
        trials.push(Trial { form: *form, outcome });
    }
    trials.extend(time(runner, ready, begins).await);
    trials
}

/// The median times of forms, in turn. What took far longer than another in its first run is not run again.
async fn time(runner: &Runner, ready: Vec<Ready>, begins: impl Fn(Form)) -> Vec<Trial> {
    let fastest = ready.iter().map(|ready| ready.first).min().unwrap_or_default();
    let [short, long] = HOPELESS;
    let is_long = fastest >= LONG_ENOUGH;
    let (limit, rounds) = (fastest.mul_f64(if is_long { long } else { short }), if is_long { 1 } else { ROUNDS });
    let (ready, hopeless): (Vec<_>, Vec<_>) = ready.into_iter().partition(|ready| ready.first <= limit);
    let mut times = vec![vec![]; ready.len()];
    let mut refusals = vec![None; ready.len()];
    for _ in 0..rounds {
        for ((ready, times), refused) in ready.iter().zip(&mut times).zip(&mut refusals) {
            begins(ready.form);
            match measure(runner, &ready.prepared).await {
                Ok(time) => times.push(time),
                Err(error) => *refused = Some(error.to_string()),
            }
        }
    }
    let outcomes = times.into_iter().zip(refusals).map(|(mut times, refused)| match refused {
        Some(refusal) => Outcome::Refused(refusal),
        None => {
            times.sort();
            Outcome::Right(times[rounds / 2])
        }
    });
    let hopeless = hopeless.iter().map(|ready| Trial { form: ready.form, outcome: Outcome::Right(ready.first) });
    ready.iter().zip(outcomes).map(|(ready, outcome)| Trial { form: ready.form, outcome }).chain(hopeless).collect()
}

/// The time of one run among as many as make a measurement.
async fn measure(runner: &Runner, prepared: &[Prepared]) -> Result<Duration, GpuError> {
    let mut runs = 1;
    loop {
        let start = Instant::now();
        runner.repeat(prepared, runs).await?;
        let time = start.elapsed();
        if time >= LONG_ENOUGH || runs >= 1 << 12 {
            return Ok(time / runs as u32);
        }
        // What is measured next is long enough, if it takes as long as this.
        let wanted = LONG_ENOUGH.as_secs_f64() / time.as_secs_f64().max(1e-6);
        runs *= (wanted.ceil() as usize).clamp(2, 16);
    }
}

/// The forms that a pass could take, with their launches.
pub fn candidates(geometry: &Geometry, pass: Pass) -> Vec<(Form, Steps)> {
    Form::candidates(geometry, pass).into_iter().map(|form| (form, steps(geometry, pass, form))).collect()
}

/// The fastest form that is right.
pub fn best(trials: &[Trial]) -> Option<(Form, Duration)> {
    let right = trials.iter().filter_map(|trial| match trial.outcome {
        Outcome::Right(time) => Some((trial.form, time)),
        _ => None,
    });
    right.min_by_key(|(_, time)| *time)
}

/// The same convolution with as many images, of all that it has, as a device gets through in a short time.
///
/// # Errors
/// If the device refuses the work or is lost.
pub async fn at_a_fair_batch(runner: &Runner, geometry: &Geometry) -> Result<Geometry, GpuError> {
    let one = Geometry { batch: 1, ..*geometry };
    let problem = Problem::new(runner, one, Pass::Forward);
    let steps = steps(&one, Pass::Forward, Form::default());
    let output = runner.poisoned(one.output_len(Pass::Forward));
    let prepared = runner.prepare_steps(&steps, [&problem.inputs[0], &problem.inputs[1]], &output).await?;
    runner.repeat(&prepared, 1).await?;
    let time = measure(runner, &prepared).await?;
    let in_time = (LONGEST_RUN.as_secs_f64() / time.as_secs_f64().max(1e-9)) as usize;
    let largest = one.output_len(Pass::Forward).max(one.output_len(Pass::BackwardData));
    let images = in_time.min(MOST_NUMBERS / largest).clamp(1, geometry.batch.max(1));
    Ok(Geometry { batch: images, ..*geometry })
}

/// Tries forms on an adapter and survives them: one that does not come to an end is left behind on its thread, and a device
/// that was lost is opened anew.
#[cfg(not(target_family = "wasm"))]
pub struct Tuner {
    adapter: Adapter,
    runner: Arc<Runner>,
    patience: Duration,
    /// How long the device is given to end what took too long.
    grace: Duration,
}

#[cfg(not(target_family = "wasm"))]
impl Tuner {
    /// `patience` is how long a form may take to be compiled and run, and then for each measurement.
    ///
    /// # Errors
    /// If the adapter gives no device.
    pub fn new(adapter: Adapter, patience: Duration) -> Result<Self, GpuError> {
        let runner = Arc::new(pollster::block_on(Runner::new(&adapter))?);
        Ok(Self { adapter, runner, patience, grace: patience.saturating_mul(GRACE) })
    }

    /// [`at_a_fair_batch`].
    ///
    /// # Errors
    /// If the device refuses the work, is lost, or does not come to an end.
    pub fn at_a_fair_batch(&mut self, geometry: &Geometry) -> Result<Geometry, GpuError> {
        let (send, receive) = mpsc::channel();
        let (runner, geometry) = (self.runner.clone(), *geometry);
        thread::spawn(move || send.send(pollster::block_on(at_a_fair_batch(&runner, &geometry))));
        receive.recv_timeout(self.patience).unwrap_or(Err(GpuError::Lost))
    }

    /// Tries forms, and calls `begins` with each that it begins with.
    ///
    /// # Errors
    /// If the device is gone and cannot be opened anew.
    pub fn trials(
        &mut self,
        geometry: &Geometry,
        pass: Pass,
        mut forms: Vec<(Form, Steps)>,
        begins: &mut dyn FnMut(Form),
    ) -> Result<Vec<Trial>, GpuError> {
        let mut failed: Vec<Trial> = vec![];
        loop {
            let (found, culprit) = self.attempt(geometry, pass, forms.clone(), begins);
            let Some(culprit) = culprit else {
                failed.extend(found);
                return Ok(failed);
            };
            forms.retain(|(form, _)| *form != culprit.form);
            failed.push(culprit);
            self.runner = Arc::new(pollster::block_on(Runner::new(&self.adapter))?);
        }
    }

    /// What came of all forms, or the one that stopped it: by taking too long, or by losing the device.
    fn attempt(
        &self,
        geometry: &Geometry,
        pass: Pass,
        forms: Vec<(Form, Steps)>,
        begins: &mut dyn FnMut(Form),
    ) -> (Vec<Trial>, Option<Trial>) {
        let (send, receive) = mpsc::channel();
        let (runner, geometry) = (self.runner.clone(), *geometry);
        thread::spawn(move || {
            let begun = send.clone();
            let found = pollster::block_on(trials(&runner, &geometry, pass, &forms, |form| {
                let _ = begun.send(Message::Begins(form));
            }));
            // Nobody listens any more to a form that took too long.
            let _ = send.send(Message::Ended(found, runner.is_lost()));
        });
        let mut current = Form::default();
        loop {
            match receive.recv_timeout(self.patience) {
                Ok(Message::Begins(form)) => {
                    current = form;
                    begins(form);
                }
                Ok(Message::Ended(found, false)) => return (found, None),
                // All that followed was refused too: the first is to blame.
                Ok(Message::Ended(found, true)) => {
                    let culprit = found.iter().find(|trial| matches!(trial.outcome, Outcome::Refused(_))).cloned();
                    return (found, culprit);
                }
                Err(RecvTimeoutError::Timeout) => {
                    // While the device is busy with it, every other form would seem as slow.
                    let since = Instant::now();
                    while let Some(left) = self.grace.checked_sub(since.elapsed()) {
                        if !matches!(receive.recv_timeout(left), Ok(Message::Begins(_))) {
                            break;
                        }
                    }
                    return (vec![], Some(Trial { form: current, outcome: Outcome::TooLong(self.patience) }));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let outcome = Outcome::Refused("the driver panicked".to_owned());
                    return (vec![], Some(Trial { form: current, outcome }));
                }
            }
        }
    }
}

/// What the thread that tries forms says.
#[cfg(not(target_family = "wasm"))]
enum Message {
    Begins(Form),
    /// What came of them, and whether the device is lost.
    Ended(Vec<Trial>, bool),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shader::{Launch, PEAK, SUM};

    fn runner() -> Option<Runner> {
        let adapter = crate::gpu::for_tests()?;
        Some(pollster::block_on(Runner::new(&adapter)).unwrap())
    }

    fn geometries() -> Vec<Geometry> {
        [
            ([1, 1, 1, 1], 1, 1, 1, 0),
            ([1, 3, 5, 7], 4, 3, 1, 1),
            ([3, 5, 9, 8], 7, 3, 2, 1),
            ([2, 3, 8, 6], 5, 3, 1, 0),
            ([17, 24, 4, 4], 9, 1, 2, 0),
            ([1, 3, 23, 21], 4, 7, 2, 3),
            ([5, 70, 4, 5], 67, 3, 1, 1),
            ([2, 20, 9, 9], 33, 3, 2, 1),
            // Sums long enough to be cut.
            ([1, 40, 4, 4], 130, 3, 1, 1),
        ]
        .map(|(x, out, kernel, stride, padding)| Geometry::new(x, [out, x[1], kernel, kernel], stride, padding))
        .to_vec()
    }

    #[test]
    fn every_form_agrees_with_the_reference() {
        let Some(runner) = runner() else { return };
        let mut forms_tried = std::collections::BTreeSet::new();
        for (geometry, pass) in geometries().into_iter().flat_map(|it| Pass::ALL.map(|pass| (it, pass))) {
            let problem = Problem::new(&runner, geometry, pass);
            let [first, second] = &problem.values;
            let expected = match pass {
                Pass::Forward => reference::forward(&geometry, first, second),
                Pass::BackwardData => reference::backward_data(&geometry, second, first),
                Pass::BackwardWeight => reference::backward_weight(&geometry, first, second),
            };
            // Small tiles too where `candidates` has only fitting ones.
            let tiles = ["registers", "tiles 64x64", "tiles 32x128", "tiles 16x256", "tiles 64x64 split"];
            for form in tiles.map(|name| name.parse::<Form>().unwrap()) {
                let output = runner.poisoned(expected.len());
                let inputs = [&problem.inputs[0], &problem.inputs[1]];
                let found = pollster::block_on(async {
                    let prepared = runner.prepare_steps(&steps(&geometry, pass, form), inputs, &output).await?;
                    runner.repeat(&prepared, 1).await?;
                    runner.read(&output).await
                });
                let error = relative_error(&found.unwrap(), &expected);
                assert!(error < 1e-5, "{form}, {pass} of {geometry:?}: {error}");
                forms_tried.insert(format!("{form} {pass}"));
            }
        }
        assert_eq!(forms_tried.len(), 15);
    }

    /// Launches of another convolution, which read the same buffers.
    fn broken(geometry: &Geometry, pass: Pass) -> Steps {
        let mut broken = steps(geometry, pass, Form::Registers);
        broken.launches.last_mut().unwrap().0 =
            steps(&Geometry { padding: 0, ..*geometry }, pass, Form::Registers).launches.pop().unwrap().0;
        broken
    }

    #[test]
    fn a_form_that_is_wrong_or_refused_is_named_and_never_chosen() {
        let Some(runner) = runner() else { return };
        let geometry = Geometry::new([2, 8, 9, 9], [16, 8, 3, 3], 1, 1);
        for pass in [Pass::Forward, Pass::BackwardData] {
            let [fine, fine_too, wrong, refused, idle] =
                ["tiles 16x256", "registers", "tiles 32x128", "tiles 64x64", "tiles 64x64 split"]
                    .map(|name| name.parse::<Form>().unwrap());
            let not_wgsl: Launch = SUM.with([("PARTS", 0.5_f32.into())]).over(64);
            let mut of_another_language = steps(&geometry, pass, Form::Registers);
            of_another_language.launches[1].0 = not_wgsl;
            let mut does_nothing = steps(&geometry, pass, Form::Registers);
            does_nothing.launches.pop();
            let forms = vec![
                (wrong, broken(&geometry, pass)),
                (fine, steps(&geometry, pass, fine)),
                (refused, of_another_language),
                (idle, does_nothing),
                (fine_too, steps(&geometry, pass, fine_too)),
            ];
            let trials = pollster::block_on(trials(&runner, &geometry, pass, &forms, |_| ()));
            let outcome = |form| &trials.iter().find(|trial| trial.form == form).unwrap().outcome;
            assert!(matches!(outcome(wrong), Outcome::Wrong(error) if *error > 0.1), "{trials:?}");
            assert!(matches!(outcome(refused), Outcome::Refused(reason) if reason.contains("sum")), "{trials:?}");
            assert_eq!(outcome(idle), &Outcome::Wrong(f64::INFINITY));
            assert!(matches!(outcome(fine), Outcome::Right(_)) && matches!(outcome(fine_too), Outcome::Right(_)));
            assert!([fine, fine_too].contains(&best(&trials).unwrap().0));
        }
    }

    /// Launches that take a CPU some ten seconds. Mesa ends a loop after 65,536 rounds, so that no loop is endless there.
    fn endless(geometry: &Geometry) -> Steps {
        let mut steps = steps(geometry, Pass::Forward, Form::Registers);
        steps.launches[0].0 = PEAK.with([("ROUNDS", 60_000_usize.into())]).over(1 << 19);
        steps
    }

    #[test]
    fn a_form_without_an_end_is_passed_over() {
        let Some(adapter) = crate::gpu::for_tests() else { return };
        let geometry = Geometry::new([2, 8, 9, 9], [16, 8, 3, 3], 1, 1);
        let [stuck, fine] = ["tiles 16x256", "registers"].map(|name| name.parse::<Form>().unwrap());
        let (mut begun, is_software) = (vec![], adapter.is_software);
        let mut tuner = Tuner::new(adapter, Duration::from_secs(3)).unwrap();
        // Whatever else this machine has to do.
        tuner.grace = Duration::from_secs(300);
        let forms = vec![(stuck, endless(&geometry)), (fine, steps(&geometry, Pass::Forward, fine))];
        let trials = tuner.trials(&geometry, Pass::Forward, forms, &mut |form| begun.push(form)).unwrap();
        // A GPU gets through it, and gives other numbers.
        let expected = if is_software { Outcome::TooLong(Duration::from_secs(3)) } else { trials[0].outcome.clone() };
        assert_eq!(trials[0].outcome, expected, "{trials:?}");
        assert_eq!(best(&trials).unwrap().0, fine);
        assert_eq!(begun[..2], [stuck, fine]);
    }

    #[test]
    fn a_slow_device_is_asked_for_fewer_images() {
        let Some(runner) = runner() else { return };
        let geometry = Geometry::new([4096, 16, 32, 32], [16, 16, 3, 3], 1, 1);
        let fair = pollster::block_on(at_a_fair_batch(&runner, &geometry)).unwrap();
        // 4096 are 67 million numbers.
        assert!((1..=512).contains(&fair.batch), "{fair:?}");
        assert_eq!(Geometry { batch: 4096, ..fair }, geometry);
    }
}
