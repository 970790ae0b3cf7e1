//! Names with letters that the built-in font lacks (it has Latin, Greek and Cyrillic). In a PNG such a class appears as its number;
//! SVG files and the page have the reader's fonts, and so the names.

use crate::theme::FONT;
use ab_glyph::Font;

/// Class names that a PNG cannot show, with the numbers that stand for them.
#[derive(Clone, Debug, Default)]
pub struct NumberedNames(Vec<(String, String)>);

impl NumberedNames {
    /// Those of these classes; they count from 0, as in a bundle.
    pub fn of(classes: &[String]) -> Self {
        let lacking = classes.iter().enumerate().filter(|(_, name)| lacks_letters(name));
        let mut names: Vec<_> = lacking.map(|(number, name)| (name.clone(), format!("#{number}"))).collect();
        // A name may be part of a longer one.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self(names)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A line for each, the number and the name, in the order of the numbers.
    pub fn key(&self) -> String {
        let mut lines: Vec<_> = self.0.iter().map(|(name, number)| (number.len(), number, name)).collect();
        lines.sort();
        lines.into_iter().map(|(_, number, name)| format!("{number} {name}\n")).collect()
    }

    /// A text with numbers in place of these names, also of one that was cut short.
    pub(crate) fn replaced(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, number) in &self.0 {
            text = text.replace(name, number);
        }
        let Some(cut) = text.strip_suffix('…').filter(|cut| lacks_letters(cut)) else { return text };
        let starts = |name: &str| (1..=name.len()).rev().filter(|end| name.is_char_boundary(*end)).collect::<Vec<_>>();
        let found = self.0.iter().find_map(|(name, number)| {
            let rest = starts(name).into_iter().find_map(|end| cut.strip_suffix(&name[..end]))?;
            Some(format!("{rest}{number}"))
        });
        found.unwrap_or(text)
    }
}

fn lacks_letters(text: &str) -> bool {
    text.chars().any(|letter| FONT.glyph_id(letter).0 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_letters_become_numbers_also_where_they_were_cut() {
        let classes = ["cat", "猫", "大猫", "кошка", "🐱 small"].map(String::from);
        let names = NumberedNames::of(&classes);
        assert_eq!(names.key(), "#1 猫\n#2 大猫\n#4 🐱 small\n");
        assert_eq!(names.replaced("大猫 for 猫: 3 of cat, кошка"), "#2 for #1: 3 of cat, кошка");
        assert_eq!(names.replaced("大…"), "#2");
        assert_eq!(names.replaced("true: 🐱 sm…"), "true: #4");
        assert_eq!(names.replaced("a long…"), "a long…");
        assert!(NumberedNames::of(&classes[..1]).is_empty());
    }
}
