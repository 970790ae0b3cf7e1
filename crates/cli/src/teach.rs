//! `kiln teach`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use kiln::train::teach::{Examples, teach, wilson};
use kiln::{answers, choose, examples, with_head};
use kiln_data::{Dataset, ImageSet};
use kiln_model::Predictor;
use kiln_report::grouped;
use kiln_train::run_dir::write_whole;
use kiln_train::{Interval, Predictions};
use serde_json::{Value, json};

use crate::args::TeachArgs;
use crate::data;
use crate::export::{check_output, with_ending};
use crate::model::open;
use crate::predict::predictor;
use crate::printable::printable;

pub fn run(args: TeachArgs) -> Result<ExitCode> {
    let (path, bundle) = open(&args.model)?;
    let output = args.output.clone().unwrap_or_else(|| with_ending(&path, "-taught.safetensors"));
    check_output(&path, &output, args.force)?;
    let data = data::to_teach(&args, &bundle.metadata)?;
    let mut predictor = predictor(bundle.clone(), &choose(args.device)?)?;
    let start = Instant::now();
    let seen = features(&mut predictor, &data.train, &data)?;
    let apart = data.test.as_ref().map(|test| features(&mut predictor, test, &data)).transpose()?;
    let looked = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let taught = teach(&seen).with_context(|| format!("{} cannot be taught", printable(&data.name)))?;
    let fitted = start.elapsed().as_secs_f64();
    // Pictures set apart say more than those that took turns.
    let test = apart.as_ref().map(|apart| answers(&taught.head, apart));
    let measured = test.as_ref().map(|test| ("test", test)).or(taught.held_out.as_ref().map(|it| ("held out", it)));
    let bytes = with_head(bundle, taught.head, &data, measured).to_bytes()?;
    write_whole(&output, &bytes)?;
    if args.json {
        let measured =
            measured.map(|(split, answers)| json!({"split": split, "classes": rows(answers), "all": share(answers)}));
        println!(
            "{}",
            json!({
                "model": path, "output": output, "classes": data.classes, "images": seen.labels.len(), "penalty": taught.strength,
                "seconds": {"features": looked, "fit": fitted}, "accuracy": measured,
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    let count = seen.labels.len() + apart.map_or(0, |apart| apart.labels.len());
    println!("model    {}", path.display());
    println!("pictures {} seen in {looked:.1} s, {} of them to teach", grouped(count), grouped(seen.labels.len()));
    println!("taught   {} classes in {fitted:.2} s, L2 penalty {}", data.classes.len(), taught.strength);
    match measured {
        Some((split, answers)) => show(split, answers),
        None => println!("accuracy not known: it takes two pictures or more of each class"),
    }
    println!("written  {}", output.display());
    Ok(ExitCode::SUCCESS)
}

/// What the backbone makes of a set, with its progress on the terminal.
fn features(predictor: &mut Predictor, set: &ImageSet, data: &Dataset) -> Result<Examples> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(set.len() as u64) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("pictures {bar:30} {pos}/{len} {per_sec} ETA {eta}")?);
    let examples = examples(predictor, set, &data.classes, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    Ok(examples)
}

/// Right answers and pictures, of a class or of all.
struct Score {
    right: usize,
    total: usize,
}

impl Score {
    fn of(answers: &Predictions, class: Option<usize>) -> Self {
        let mut score = Self { right: 0, total: 0 };
        for (index, label) in
            answers.labels.iter().enumerate().filter(|(_, label)| class.is_none_or(|it| it == **label))
        {
            score.right += usize::from(answers.predicted(index) == *label);
            score.total += 1;
        }
        score
    }

    fn text(&self) -> String {
        let Interval { low, high } = wilson(self.right, self.total);
        let share = 100.0 * self.right as f64 / self.total.max(1) as f64;
        format!("{share:>5.1} % ({:.0} to {:.0} %), {} of {}", 100.0 * low, 100.0 * high, self.right, self.total)
    }

    fn json(&self) -> Value {
        json!({"right": self.right, "of": self.total, "interval": wilson(self.right, self.total)})
    }
}

fn share(answers: &Predictions) -> Value {
    Score::of(answers, None).json()
}

fn rows(answers: &Predictions) -> Vec<Value> {
    let row = |(class, name): (usize, &String)| {
        let mut row = Score::of(answers, Some(class)).json();
        row["class"] = json!(name);
        row
    };
    answers.classes.iter().enumerate().map(row).collect()
}

fn show(split: &str, answers: &Predictions) {
    let what =
        if split == "test" { "on the test pictures" } else { "on pictures that the head had not seen, in turns" };
    println!("accuracy {} {what}", Score::of(answers, None).text());
    let width = answers.classes.iter().map(|class| class.chars().count()).max().unwrap_or(0);
    for (class, name) in answers.classes.iter().enumerate() {
        println!("         {:<width$}  {}", printable(name), Score::of(answers, Some(class)).text());
    }
}
