//! An adapter's file, and the choices in use.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::time::Instant;

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use burn_cubecl::CubeDevice;
use kiln_infer::conv2d::{Choice, Choices, Form, Geometry, Pass};
use kiln_infer::tune::{Tuner, best, candidates};
use serde_json::{Value, json};

use super::{Patience, TunedPass, TuningError};
use crate::device::GraphicsAdapter;

/// Largest file that is read, in bytes: some thousand choices.
const MAX_BYTES: u64 = 1 << 20;

/// Processes that have to end while a form is tried before it is not tried again. One may have been ended by its user.
const STRIKES: usize = 2;

/// The choices that each device takes. Operators on tensors have no other way to know.
static IN_USE: RwLock<Vec<(CubeDevice, Choices)>> = RwLock::new(vec![]);

/// The form that a device takes for a pass: what was found to be the fastest there, else the first of all.
pub(crate) fn form(device: &CubeDevice, geometry: &Geometry, pass: Pass) -> Form {
    let in_use = IN_USE.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let known = in_use.iter().find(|(known, _)| known == device);
    known.and_then(|(_, choices)| choices.get(geometry, pass)).unwrap_or_default()
}

/// Lets a device take these forms from now on, and no others that it may have taken before.
pub fn use_on(device: &Device, choices: Choices) {
    let inner = device.clone().inner();
    let Some(device) = cube(inner.as_dispatch()) else { return };
    let mut in_use = IN_USE.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    in_use.retain(|(known, _)| known != device);
    in_use.push((device.clone(), choices));
}

fn cube(device: &DispatchDevice) -> Option<&CubeDevice> {
    match device {
        DispatchDevice::Cube(device) => Some(device),
        _ => None,
    }
}

/// What is known of an adapter's forms.
#[derive(Debug)]
pub struct Tuning {
    /// None where this system has no folder for such files.
    file: Option<PathBuf>,
    identity: Value,
    choices: Choices,
    /// Forms that were being tried when a process ended, each time once: see [`STRIKES`].
    suspects: Vec<Choice>,
    warning: Option<String>,
}

impl Tuning {
    /// What the user's cache folder has of an adapter. What is there and cannot be used is a [`warning`](Self::warning).
    pub fn open(adapter: &GraphicsAdapter) -> Self {
        Self::open_in(adapter, dirs::cache_dir().map(|folder| folder.join("kiln")).as_deref())
    }

    /// The same of another folder; with none, nothing is read or kept.
    pub fn open_in(adapter: &GraphicsAdapter, folder: Option<&Path>) -> Self {
        let GraphicsAdapter { name, api, driver, .. } = adapter;
        let identity = json!({"kiln": env!("CARGO_PKG_VERSION"), "adapter": name, "driver": driver, "api": api});
        let file = folder.map(|folder| folder.join(format!("tuning-{}.json", slug(&format!("{name} {api}")))));
        let mut tuning = Self { file, identity, choices: Choices::default(), suspects: vec![], warning: None };
        if let Err(fault) = tuning.load() {
            let path = tuning.file.as_deref().unwrap_or(Path::new("")).display();
            tuning.warning = Some(format!("{path} is not used and will be replaced: {fault}"));
        }
        tuning
    }

    /// What was wrong with the file.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Where it is kept.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// Those of which some pass was not tried yet at that batch.
    pub fn missing(&self, convolutions: &[Geometry]) -> Vec<Geometry> {
        let is_known = |geometry: &Geometry, pass| {
            self.choices.iter().any(|choice| choice.geometry == *geometry && choice.pass == pass)
        };
        let is_missing = |geometry: &&Geometry| !Pass::ALL.into_iter().all(|pass| is_known(geometry, pass));
        convolutions.iter().filter(is_missing).copied().collect()
    }

    /// Tries all forms of convolutions, in their order, and keeps the best ones. Says what came of each pass.
    ///
    /// # Errors
    /// If the adapter gives no device, another process tunes it, or the file cannot be written. What was found before is kept.
    pub fn tune(
        &mut self,
        adapter: &GraphicsAdapter,
        convolutions: &[Geometry],
        patience: Patience,
        mut report: impl FnMut(&TunedPass),
    ) -> Result<(), TuningError> {
        let start = Instant::now();
        let mut trying = self.file.as_deref().map(Trying::begin).transpose()?;
        if let Some(culprit) = trying.as_mut().and_then(Trying::culprit) {
            self.suspects.push(culprit);
            // Before it is tried again: it may end this process too.
            self.save()?;
        }
        let mut tuner = Tuner::new(adapter.for_inference(), patience.form)?;
        for geometry in convolutions {
            if start.elapsed() >= patience.total {
                break;
            }
            let tried = tuner.at_a_fair_batch(geometry)?;
            for pass in Pass::ALL {
                let is_avoided = |form: Form| {
                    let same = |known: &&Choice| {
                        (known.pass, known.form) == (pass, form)
                            && Geometry { batch: tried.batch, ..known.geometry } == tried
                    };
                    self.suspects.iter().filter(same).count() >= STRIKES
                };
                let (avoided, forms): (Vec<_>, Vec<_>) =
                    candidates(&tried, pass).into_iter().partition(|(form, _)| is_avoided(*form));
                let mut begins = |form| {
                    if let Some(trying) = &mut trying {
                        trying.begins(&Choice { geometry: *geometry, pass, form });
                    }
                };
                let trials = tuner.trials(&tried, pass, forms, &mut begins)?;
                // With nothing that is right, the first form stays: `kiln doctor` tells of such a device.
                let form = best(&trials).map_or(Form::default(), |(form, _)| form);
                self.choices.insert(Choice { geometry: *geometry, pass, form });
                let avoided = avoided.into_iter().map(|(form, _)| form).collect();
                report(&TunedPass { geometry: *geometry, batch: tried.batch, pass, trials, avoided });
            }
            self.save()?;
        }
        self.save()
    }

    fn load(&mut self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut text = String::new();
        match File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.to_string()),
            Ok(file) => file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?,
        };
        let whole: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if whole["of"] != self.identity {
            return Err("it is of another version of Kiln or of the driver".to_owned());
        }
        let read = |key: &str| {
            let entries = whole[key].as_array().ok_or(format!("it has no '{key}'"))?;
            entries
                .iter()
                .map(|entry| choice(entry).ok_or(format!("it has an unknown entry, {entry}")))
                .collect::<Result<Vec<_>, _>>()
        };
        let (choices, suspects): (Vec<Choice>, Vec<Choice>) = (read("choices")?, read("suspects")?);
        choices.into_iter().for_each(|choice| self.choices.insert(choice));
        self.suspects = suspects;
        Ok(())
    }

    fn save(&self) -> Result<(), TuningError> {
        let Some(file) = &self.file else { return Ok(()) };
        let entries = |choices: &mut dyn Iterator<Item = &Choice>| choices.map(entry).collect::<Vec<_>>();
        let whole = json!({
            "of": self.identity,
            "choices": entries(&mut self.choices.iter()),
            "suspects": entries(&mut self.suspects.iter()),
        });
        // A process that reads it meanwhile finds one or the other.
        let new = file.with_extension(format!("{}.new", std::process::id()));
        let written = fs::write(&new, format!("{whole:#}\n")).and_then(|()| fs::rename(&new, file));
        written.map_err(|source| TuningError::Io { path: file.clone(), source })
    }
}

/// A file that says what is being tried, as long as it is.
struct Trying {
    file: File,
    culprit: Option<Choice>,
}

impl Trying {
    /// Keeps other processes from tuning the same adapter.
    fn begin(of: &Path) -> Result<Self, TuningError> {
        let path = of.with_extension("trying");
        let wrong = |source| TuningError::Io { path: path.clone(), source };
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(wrong)?;
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(wrong)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TuningError::Busy),
            Err(TryLockError::Error(source)) => return Err(wrong(source)),
        }
        let mut text = String::new();
        (&mut file).take(MAX_BYTES).read_to_string(&mut text).map_err(wrong)?;
        let culprit = serde_json::from_str(&text).ok().as_ref().and_then(choice);
        Ok(Self { file, culprit })
    }

    /// What an earlier process was trying when it ended.
    fn culprit(&mut self) -> Option<Choice> {
        self.culprit.take()
    }

    /// Should it fail, a form that takes the process along would be tried again: a pity, and no more.
    fn begins(&mut self, choice: &Choice) {
        let _ = self.write(&entry(choice).to_string());
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        let _ = self.write("");
    }
}

fn entry(choice: &Choice) -> Value {
    let Geometry { batch, input, outputs, kernel, stride, padding } = choice.geometry;
    json!({
        "pass": choice.pass.to_string(), "form": choice.form.to_string(), "batch": batch, "input": input, "outputs": outputs,
        "kernel": kernel, "stride": stride, "padding": padding,
    })
}

fn choice(entry: &Value) -> Option<Choice> {
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    let three = |key: &str| {
        let numbers: Option<Vec<usize>> = entry[key].as_array()?.iter().map(number).collect();
        <[usize; 3]>::try_from(numbers?).ok()
    };
    let pass = Pass::ALL.into_iter().find(|pass| entry["pass"] == pass.to_string())?;
    let geometry = Geometry {
        batch: number(&entry["batch"])?,
        input: three("input")?,
        outputs: three("outputs")?,
        kernel: number(&entry["kernel"])?,
        stride: number(&entry["stride"])?,
        padding: number(&entry["padding"])?,
    };
    Some(Choice { geometry, pass, form: entry["form"].as_str()?.parse().ok()? })
}

/// A name for a file.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars() {
        match letter {
            _ if letter.is_ascii_alphanumeric() => slug.push(letter.to_ascii_lowercase()),
            _ if slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    slug.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::device::{adapters, for_tests};

    const PATIENCE: Patience = Patience { total: Duration::MAX, form: Duration::from_secs(60) };

    fn adapter() -> Option<GraphicsAdapter> {
        for_tests()?;
        adapters().into_iter().next()
    }

    fn small() -> Vec<Geometry> {
        vec![Geometry::new([2, 8, 9, 9], [24, 8, 3, 3], 1, 1), Geometry::new([2, 8, 9, 9], [16, 8, 1, 1], 2, 0)]
    }

    #[test]
    fn what_was_found_is_there_the_next_time() {
        let Some(adapter) = adapter() else { return };
        let folder = TempDir::new().unwrap();
        let mut tuning = Tuning::open_in(&adapter, Some(folder.path()));
        assert_eq!((tuning.warning(), tuning.missing(&small()).len()), (None, 2));
        let mut passes = vec![];
        tuning.tune(&adapter, &small()[..1], PATIENCE, |pass| passes.push(pass.clone())).unwrap();
        assert_eq!(passes.iter().map(|pass| pass.pass).collect::<Vec<_>>(), Pass::ALL);
        for pass in &passes {
            // Every form is right on this device.
            assert_eq!(pass.ranking().len(), candidates(&pass.geometry, pass.pass).len(), "{pass:?}");
        }
        let again = Tuning::open_in(&adapter, Some(folder.path()));
        assert_eq!((again.warning(), again.choices()), (None, tuning.choices()));
        assert_eq!(again.missing(&small()), small()[1..]);
    }

    #[test]
    fn time_that_is_up_begins_nothing() {
        let Some(adapter) = adapter() else { return };
        let mut tuning = Tuning::open_in(&adapter, None);
        let patience = Patience { total: Duration::ZERO, ..PATIENCE };
        tuning.tune(&adapter, &small(), patience, |_| panic!("there is no time")).unwrap();
        assert_eq!(tuning.missing(&small()).len(), 2);
    }

    #[test]
    fn a_file_that_is_broken_or_of_another_driver_is_passed_over_with_a_word() {
        let Some(adapter) = adapter() else { return };
        let folder = TempDir::new().unwrap();
        let mut tuning = Tuning::open_in(&adapter, Some(folder.path()));
        tuning.choices.insert(Choice { geometry: small()[0], pass: Pass::Forward, form: Form::Registers });
        tuning.save().unwrap();
        let file = tuning.file().unwrap().to_owned();
        let whole = fs::read_to_string(&file).unwrap();
        assert_eq!(Tuning::open_in(&adapter, Some(folder.path())).choices().iter().count(), 1);
        let mut other_driver = adapter.clone();
        other_driver.driver = "another".to_owned();
        let foreign = Tuning::open_in(&other_driver, Some(folder.path()));
        assert!(foreign.warning().unwrap().contains("another version"), "{foreign:?}");
        for (text, fault) in [
            (whole.replace("\"registers\"", "\"magic\""), "unknown entry"),
            (whole.replace("\"batch\": 2", "\"batch\": -2"), "unknown entry"),
            (whole.replace("choices", "choice"), "no 'choices'"),
            (whole[..whole.len() / 2].to_owned(), "EOF"),
            (String::new(), "EOF"),
        ] {
            fs::write(&file, &text).unwrap();
            let broken = Tuning::open_in(&adapter, Some(folder.path()));
            assert!(broken.warning().unwrap().contains(fault), "{:?}", broken.warning());
            assert_eq!(broken.choices(), &Choices::default());
        }
    }

    #[test]
    fn a_form_that_ended_two_processes_is_not_tried_again() {
        let Some(adapter) = adapter() else { return };
        let folder = TempDir::new().unwrap();
        let mut tuning = Tuning::open_in(&adapter, Some(folder.path()));
        // What such a process leaves behind.
        let form: Form = "tiles 32x128".parse().unwrap();
        let culprit = Choice { geometry: small()[0], pass: Pass::BackwardData, form: Form::Registers };
        let other = Choice { geometry: small()[0], pass: Pass::Forward, form };
        for (left, is_second) in [(culprit.clone(), false), (culprit, true), (other.clone(), false), (other, true)] {
            fs::write(tuning.file().unwrap().with_extension("trying"), entry(&left).to_string()).unwrap();
            let mut passes = vec![];
            tuning.tune(&adapter, &small()[..1], PATIENCE, |pass| passes.push(pass.clone())).unwrap();
            let pass = passes.iter().find(|pass| pass.pass == left.pass).unwrap();
            // The first time it may have been the user who ended it.
            let is_tried = pass.trials.iter().any(|trial| trial.form == left.form);
            assert_eq!((is_tried, pass.avoided.contains(&left.form)), (!is_second, is_second), "{pass:?}");
            tuning = Tuning::open_in(&adapter, Some(folder.path()));
            assert!(tuning.suspects.contains(&left), "{tuning:?}");
        }
        let left = fs::read_to_string(tuning.file().unwrap().with_extension("trying")).unwrap();
        assert_eq!(left, "", "nothing is being tried");
    }

    #[test]
    fn one_process_tunes_at_a_time() {
        let Some(adapter) = adapter() else { return };
        let folder = TempDir::new().unwrap();
        let mut tuning = Tuning::open_in(&adapter, Some(folder.path()));
        let _other = Trying::begin(tuning.file().unwrap()).unwrap();
        let busy = tuning.tune(&adapter, &small(), PATIENCE, |_| ());
        assert!(matches!(busy, Err(TuningError::Busy)), "{busy:?}");
    }

    #[test]
    fn names_of_adapters_become_names_of_files() {
        assert_eq!(slug("llvmpipe (LLVM 15.0.6, 256 bits) Vulkan"), "llvmpipe-llvm-15-0-6-256-bits-vulkan");
        assert_eq!(slug("../ü/.."), "");
    }
}
