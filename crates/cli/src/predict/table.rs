//! Answers as a table in CSV (RFC 4180).

use std::path::Path;

use kiln_data::DecodeError;

use super::Answer;

/// A row for each image: its name, the likeliest classes with their probabilities, and what is wrong with its file.
pub struct Table {
    top: usize,
    text: String,
}

impl Table {
    pub fn new(top: usize) -> Self {
        let columns: String = (1..=top).map(|rank| format!(",class_{rank},probability_{rank}")).collect();
        Self { top, text: format!("image{columns},problem\n") }
    }

    pub fn add(&mut self, image: &Path, answer: &Result<Answer, DecodeError>, classes: &[String]) {
        let mut cells = vec![image.display().to_string()];
        let ranked = answer.as_ref().map(|answer| answer.prediction.top(self.top)).unwrap_or_default();
        cells.extend(ranked.iter().flat_map(|(class, p)| [classes[*class].clone(), format!("{p:.6}")]));
        cells.resize(1 + 2 * self.top, String::new());
        cells.push(match answer {
            Ok(answer) => answer.damage.as_ref().map(ToString::to_string).unwrap_or_default(),
            Err(error) => error.to_string(),
        });
        let cells: Vec<_> = cells.iter().map(|cell| quoted(cell)).collect();
        self.text += &(cells.join(",") + "\n");
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_commas_and_quotes_are_quoted() {
        let mut table = Table::new(1);
        let failed = Err(DecodeError::Corrupt("a, b".into()));
        table.add(Path::new("a \"cat\".jpg"), &failed, &[]);
        assert_eq!(table.text(), "image,class_1,probability_1,problem\n\"a \"\"cat\"\".jpg\",,,\"damaged: a, b\"\n");
    }
}
