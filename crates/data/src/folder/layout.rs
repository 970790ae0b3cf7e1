//! Finds out how pictures are arranged in folders, from their names alone.
//!
//! Known are `train/<class>/..` with `val/` and `test/`, under every usual name of a part, `<class>/..` and
//! `<class>/train/..`, each inside up to two more folders.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
};

use super::{
    Found, Kind, Wish,
    names::{self, Part},
};
use crate::{
    error::DataError,
    found::{Aside, LeftAside, listed},
    labels::Labels,
};

/// Folders around the parts or classes that are stepped into.
const MOST_AROUND: usize = 2;

/// Longest name of a class, in bytes.
const MAX_CLASS_NAME: usize = 1024;

/// An image's part and class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub part: Part,
    /// An index into [`Layout::classes`].
    pub class: u32,
}

/// Where every image belongs.
#[derive(Debug)]
pub(super) struct Layout {
    /// The training classes in alphabetical order; without training images, those of the other parts.
    pub classes: Vec<String>,
    /// Images of classes, by their index in the list of files: by part, and then by path.
    pub placed: Vec<(usize, Place)>,
    /// What is used for nothing.
    pub aside: LeftAside,
    /// How the folders are arranged, to be read after the name of the data.
    pub arrangement: String,
    /// What looks like a mistake.
    pub notes: Vec<String>,
}

/// The images below each folder, by its path.
struct Tree<'a> {
    folders: HashMap<&'a str, Folder<'a>>,
}

#[derive(Default)]
struct Folder<'a> {
    /// Images at any depth.
    images: usize,
    /// Images that are in no folder below.
    own: usize,
    /// Names of the folders in it.
    kids: BTreeSet<&'a str>,
}

impl<'a> Tree<'a> {
    fn new(files: &'a [Found], folders: &'a [String]) -> Self {
        let mut tree = Self { folders: HashMap::from([("", Folder::default())]) };
        let is_used = |path: &str| !names::is_leftover(path) && !names::is_hidden(path);
        // With a file's name behind it, a folder's path is one of a file that is not there.
        for folder in folders.iter().filter(|folder| is_used(&format!("{folder}/_"))) {
            tree.add(folder, 0);
        }
        for file in files.iter().filter(|file| !matches!(file.kind, Kind::Other) && is_used(&file.name)) {
            let folder = file.name.rsplit_once('/').map_or("", |(folder, _)| folder);
            tree.add(folder, 1);
            tree.folders.get_mut(folder).expect("just added").own += 1;
        }
        tree
    }

    /// Adds images to a folder and to those around it.
    fn add(&mut self, folder: &'a str, images: usize) {
        let mut folder = folder;
        self.folders.entry(folder).or_default().images += images;
        while !folder.is_empty() {
            let (around, name) = folder.rsplit_once('/').unwrap_or(("", folder));
            let parent = self.folders.entry(around).or_default();
            parent.images += images;
            parent.kids.insert(name);
            folder = around;
        }
    }

    fn images(&self, folder: &str) -> usize {
        self.folders.get(folder).map_or(0, |folder| folder.images)
    }

    fn own(&self, folder: &str) -> usize {
        self.folders.get(folder).map_or(0, |folder| folder.own)
    }

    fn kids(&self, folder: &str) -> impl Iterator<Item = &'a str> {
        self.folders.get(folder).into_iter().flat_map(|folder| folder.kids.iter().copied())
    }

    /// Names of the folders in one that contain images at any depth.
    fn filled(&self, folder: &str) -> Vec<&'a str> {
        let has_images = |kid: &&str| self.images(&join(folder, kid)) > 0;
        self.kids(folder).filter(has_images).collect()
    }

    /// The folder of the classes in a part's folder: itself, or one that it has around all of them.
    fn inside(&self, part: &str) -> String {
        let mut folder = part.to_owned();
        for _ in 0..MOST_AROUND {
            let name = folder.rsplit('/').next().unwrap_or_default();
            let [only] = self.filled(&folder)[..] else { break };
            let inner = join(&folder, only);
            let says_nothing =
                names::is_wrapper(only) || names::part_among_words(only).is_some() || only.eq_ignore_ascii_case(name);
            if !says_nothing || self.own(&folder) > 0 || self.filled(&inner).is_empty() {
                break;
            }
            folder = inner;
        }
        folder
    }

    /// The folders of parts in a folder, if it is one of parts: each part with the path of its folder.
    fn parts(&self, folder: &str) -> Vec<(Part, String)> {
        let filled = self.filled(folder);
        let has_classes = |kid: &str| !self.filled(&self.inside(&join(folder, kid))).is_empty();
        let exact: Vec<_> = filled.iter().filter_map(|kid| Some((names::part(kid)?, *kid))).collect();
        let named = filled.iter().filter_map(|kid| Some((names::part_among_words(kid)?, *kid)));
        let mut others: Vec<_> = named.filter(|(_, kid)| has_classes(kid)).collect();
        others.retain(|(part, _)| !exact.iter().any(|(its, _)| its == part));
        let distinct = |parts: &[(Part, &str)]| parts.iter().map(|(part, _)| part).collect::<BTreeSet<_>>().len();
        let is_one_of_parts = if exact.is_empty() {
            // A class may be called "test tube": one such name among others says nothing.
            distinct(&others) > 1 || others.len() == filled.len() && !others.is_empty()
        } else {
            // One may be called "train", too.
            let all = [&exact[..], &others].concat();
            let images: usize = all.iter().map(|(_, kid)| self.images(&join(folder, kid))).sum();
            let is_most = 2 * images >= self.images(folder);
            exact.iter().any(|(_, kid)| has_classes(kid)) && (distinct(&all) > 1 || is_most)
        };
        let mut parts = if is_one_of_parts { [exact, others].concat() } else { vec![] };
        parts.sort_unstable();
        parts.into_iter().map(|(part, kid)| (part, join(folder, kid))).collect()
    }

    /// Whether every class folder has folders of parts in it, and nothing else.
    fn is_parts_in_classes(&self, folder: &str) -> bool {
        let filled = self.filled(folder);
        filled.len() > 1
            && filled.iter().all(|kid| {
                let class = join(folder, kid);
                let inner = self.filled(&class);
                self.own(&class) == 0 && !inner.is_empty() && inner.iter().all(|kid| names::part(kid).is_some())
            })
    }
}

/// How folders are arranged.
enum Form {
    /// Each part, its folder, and the folder of its classes.
    Parts(Vec<(Part, String, String)>),
    /// The folder of the classes.
    Classes(String),
    /// The folder of the classes, in which there are parts.
    PartsInClasses(String),
}

impl Form {
    fn of(tree: &Tree, root: &Path) -> Result<Self, DataError> {
        let mut folder = String::new();
        for step in 0..=MOST_AROUND {
            let parts = tree.parts(&folder);
            if !parts.is_empty() {
                let with_classes = |(part, path): (Part, String)| {
                    let classes = tree.inside(&path);
                    (part, path, classes)
                };
                return Ok(Self::Parts(parts.into_iter().map(with_classes).collect()));
            }
            match tree.filled(&folder)[..] {
                [only] if step < MOST_AROUND => {
                    let inner = join(&folder, only);
                    // A class with some of its images in folders is not one around classes.
                    if 2 * tree.own(&inner) >= tree.images(&inner) {
                        break;
                    }
                    folder = inner;
                }
                _ => break,
            }
        }
        if tree.is_parts_in_classes(&folder) {
            return Ok(Self::PartsInClasses(folder));
        }
        let filled = tree.filled(&folder);
        let parts: BTreeSet<Part> = filled.iter().filter_map(|kid| names::part(kid)).collect();
        let has_others = filled.iter().any(|kid| names::part(kid).is_none());
        match (filled.is_empty(), tree.own(&folder) > 0) {
            (true, false) => Err(DataError::NoImages { path: root.into() }),
            (true, true) => Err(DataError::NoClassFolders { path: root.into(), folders: String::new() }),
            // A class may be called "train", but not the only one, nor beside another called "test".
            _ if parts.len() > 1 || !parts.is_empty() && !has_others => {
                let folders = filled.iter().map(|kid| format!("{kid}/"));
                Err(DataError::NoClassFolders { path: root.into(), folders: listed(folders) })
            }
            _ => Ok(Self::Classes(folder)),
        }
    }

    /// Folders of classes, with the part that they are of.
    fn bases(&self) -> Vec<(Part, &str)> {
        match self {
            Self::Parts(parts) => parts.iter().map(|(part, _, classes)| (*part, classes.as_str())).collect(),
            Self::Classes(folder) | Self::PartsInClasses(folder) => vec![(Part::Train, folder.as_str())],
        }
    }

    /// Part and class of an image.
    fn place<'a>(&self, name: &'a str) -> Result<(Part, &'a str), Aside> {
        for (part, base) in self.bases() {
            let Some(below) = below(name, base) else { continue };
            let (class, file) = below.split_once('/').ok_or(Aside::NoClassFolder)?;
            if let Self::PartsInClasses(_) = self {
                let part = file.split_once('/').and_then(|(folder, _)| names::part(folder));
                return Ok((part.ok_or(Aside::Outside)?, class));
            }
            return Ok((part, class));
        }
        match self {
            Self::Parts(parts) if parts.iter().any(|(_, folder, _)| below(name, folder).is_some()) => {
                Err(Aside::NoClassFolder)
            }
            Self::Parts(_) => Err(Aside::Outside),
            Self::Classes(_) | Self::PartsInClasses(_) if name.contains('/') => Err(Aside::Outside),
            Self::Classes(_) | Self::PartsInClasses(_) => Err(Aside::NoClassFolder),
        }
    }

    fn describe(&self) -> String {
        let at = |folder: &str| if folder.is_empty() { String::new() } else { format!(" in {folder}/") };
        match self {
            Self::Parts(parts) => {
                let folders = parts.iter().map(|(_, folder, classes)| {
                    let inner = below(classes, folder).map(|inner| format!(" (its {inner}/)")).unwrap_or_default();
                    format!("{folder}/{inner}")
                });
                format!("the folder{} {}", if parts.len() == 1 { "" } else { "s" }, listed(folders))
            }
            Self::Classes(folder) => format!("a folder for each class{}", at(folder)),
            Self::PartsInClasses(folder) => format!("a folder for each class{}, with parts in it", at(folder)),
        }
    }
}

impl Layout {
    /// # Errors
    ///
    /// [`DataError::NoImages`], [`DataError::NoClassFolders`], [`DataError::OneClass`] if there is but one class to train
    /// on, and [`DataError::ClassName`].
    pub(super) fn of(root: &Path, files: &[Found], folders: &[String], wish: &Wish) -> Result<Self, DataError> {
        let known = wish.known_classes;
        if let Some(labels) = wish.labels {
            return Self::of_table(root, files, labels, known);
        }
        let tree = Tree::new(files, folders);
        let form = Form::of(&tree, root)?;
        let mut aside = LeftAside::default();
        let mut placed = vec![];
        for (index, file) in files.iter().enumerate() {
            match is_used(file).and_then(|()| form.place(&file.name).map_err(Some)) {
                Ok((part, class)) => placed.push((index, part, class)),
                Err(Some(kind)) => aside.add(kind, &file.name),
                Err(None) => {}
            }
        }
        // Class folders without images are classes too: an error names them.
        let mut names: BTreeSet<(Part, &str)> = placed.iter().map(|(_, part, class)| (*part, *class)).collect();
        if !matches!(form, Form::PartsInClasses(_)) {
            let empty = form.bases().into_iter().flat_map(|(part, base)| tree.kids(base).map(move |kid| (part, kid)));
            names.extend(empty);
        }
        let mut layout = Self::arranged(root, files, (&names, known), placed, aside)?;
        layout.arrangement = form.describe();
        if let Form::Classes(folder) = &form {
            layout.notes.extend(same_folders_in_each(&tree, folder));
            let parts = tree.filled(folder).into_iter().filter(|kid| names::part(kid).is_some());
            layout.notes.extend(parts.map(|kid| {
                format!("one of the classes is called {kid}: give it class folders if it is a part of the images")
            }));
        }
        Ok(layout)
    }

    /// Of images whose labels are in a table. Those in a folder named like a part are of that part.
    fn of_table(root: &Path, files: &[Found], labels: &Labels, known: &[String]) -> Result<Self, DataError> {
        let (mut aside, mut placed, mut found) = (LeftAside::default(), vec![], HashSet::new());
        for (index, file) in files.iter().enumerate() {
            match is_used(file).and_then(|()| labels.row(&file.name).ok_or(Some(Aside::NotInTable))) {
                Ok(row) => {
                    let folder = file.name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let part = folder.split('/').find_map(|name| names::part(name).or(names::part_among_words(name)));
                    found.insert(row);
                    placed.push((index, part.unwrap_or(Part::Train), row));
                }
                Err(Some(kind)) => aside.add(kind, &file.name),
                Err(None) => {}
            }
        }
        // train/1.jpg and test/1.jpg may both be meant by "1", but the labels of a test are seldom there.
        let trained: HashSet<usize> =
            placed.iter().filter(|(_, part, _)| *part == Part::Train).map(|of| of.2).collect();
        placed.retain(|(index, part, row)| {
            let is_kept = *part == Part::Train || !trained.contains(row);
            if !is_kept {
                aside.add(Aside::NotInTable, &files[*index].name);
            }
            is_kept
        });
        let class = |row: usize| labels.rows[row].1.as_str();
        let placed: Vec<_> = placed.into_iter().map(|(index, part, row)| (index, part, class(row))).collect();
        let names = placed.iter().map(|(_, part, class)| (*part, *class)).collect();
        if placed.is_empty() {
            return Err(match files.iter().any(|file| is_used(file).is_ok()) {
                true => DataError::NoImageInTable { path: root.into(), row: labels.rows[0].0.clone() },
                false => DataError::NoImages { path: root.into() },
            });
        }
        let mut layout = Self::arranged(root, files, (&names, known), placed, aside)?;
        layout.arrangement = format!("a table of {} labels", labels.rows.len());
        layout.notes.extend(labels.missing(&found));
        Ok(layout)
    }

    /// Gives labels to classes and order to images. `names` are the classes of each part, and those that a network knows.
    fn arranged(
        root: &Path,
        files: &[Found],
        names: (&BTreeSet<(Part, &str)>, &[String]),
        placed: Vec<(usize, Part, &str)>,
        mut aside: LeftAside,
    ) -> Result<Self, DataError> {
        let (classes, notes) = classes(root, names.0, names.1)?;
        let label = |class: &str| classes.by_form.get(&*names::normalized(class)).copied();
        let mut places = vec![];
        for (index, part, class) in placed {
            match label(class) {
                Some(class) => places.push((index, Place { part, class })),
                None => aside.add(Aside::UnknownClass, &files[index].name),
            }
        }
        places.sort_by(|(a, place), (b, other)| {
            let names = || files[*a].name.split('/').cmp(files[*b].name.split('/'));
            place.part.cmp(&other.part).then_with(names)
        });
        Ok(Self { classes: classes.names, placed: places, aside, arrangement: String::new(), notes })
    }
}

/// Whether a file is an image to use, or why not; nothing is said of hidden files.
fn is_used(file: &Found) -> Result<(), Option<Aside>> {
    match file.kind {
        _ if names::is_leftover(&file.name) => Err(Some(Aside::Leftover)),
        _ if names::is_hidden(&file.name) => Err(None),
        Kind::Other => Err(Some(Aside::NotAnImage)),
        Kind::Image | Kind::Refused(_) => Ok(()),
    }
}

/// The classes of all parts.
struct Classes {
    names: Vec<String>,
    /// The label of each by the form in which names are compared.
    by_form: BTreeMap<String, u32>,
}

/// The classes to train on, or to evaluate on if there is no training part, and what is odd about their names.
fn classes(
    root: &Path,
    names: &BTreeSet<(Part, &str)>,
    network: &[String],
) -> Result<(Classes, Vec<String>), DataError> {
    let network: BTreeSet<_> = network.iter().map(|class| names::normalized(class)).collect();
    let has_training = names.iter().any(|(part, _)| *part == Part::Train);
    let is_known =
        |part: Part, class: &str| !has_training || part == Part::Train || network.contains(&names::normalized(class));
    let all: BTreeSet<&str> =
        names.iter().filter(|(part, class)| is_known(*part, class)).map(|(_, class)| *class).collect();
    for class in &all {
        if class.len() > MAX_CLASS_NAME || class.chars().any(char::is_control) {
            return Err(DataError::ClassName { path: root.into(), class: class.chars().take(40).collect() });
        }
    }
    let mut notes = vec![];
    let mut forms: BTreeMap<String, &str> = BTreeMap::new();
    for class in all {
        if let Some(first) = forms.get(&*names::normalized(class)) {
            notes.push(format!("two folders are called {first}, in different Unicode forms: they are one class"));
            continue;
        }
        forms.insert(names::normalized(class).into_owned(), class);
    }
    let mut sorted: Vec<&str> = forms.values().copied().collect();
    sorted.sort_unstable();
    if let ([class], true) = (&sorted[..], has_training && network.is_empty()) {
        return Err(DataError::OneClass { path: root.into(), class: (*class).to_owned() });
    }
    let by_form: BTreeMap<String, u32> =
        sorted.iter().zip(0..).map(|(class, label)| (names::normalized(class).into_owned(), label)).collect();
    notes.extend(differences(names, &by_form));
    notes.extend(alike(names));
    let odd = listed(sorted.iter().filter(|class| class.contains("\\x")).map(ToString::to_string));
    if !odd.is_empty() {
        notes.push(format!("names that are not UTF-8 are written with \\x: {odd}; rename the folders to read them"));
    }
    Ok((Classes { names: sorted.into_iter().map(str::to_owned).collect(), by_form }, notes))
}

/// Classes that are not in every part.
fn differences(names: &BTreeSet<(Part, &str)>, by_form: &BTreeMap<String, u32>) -> Vec<String> {
    let of = |part: Part| names.iter().filter(move |(its, _)| *its == part).map(|(_, class)| *class);
    let mut notes = vec![];
    if of(Part::Train).next().is_none() {
        return notes;
    }
    for part in [Part::Validation, Part::Test].into_iter().filter(|part| of(*part).next().is_some()) {
        let here: BTreeSet<String> = of(part).map(|class| names::normalized(class).into_owned()).collect();
        let unknown = of(part).filter(|class| !by_form.contains_key(&*names::normalized(class)));
        let unknown = listed(unknown.map(str::to_owned));
        if !unknown.is_empty() {
            notes.push(format!("the {} part has classes that are not trained on, left aside: {unknown}", part.name()));
        }
        let missing = by_form.keys().filter(|class| !here.contains(*class));
        let missing = listed(missing.cloned());
        if !missing.is_empty() {
            notes.push(format!("the {} part has no images of {missing}", part.name()));
        }
    }
    notes
}

/// Different class names that may be meant to be one.
fn alike(names: &BTreeSet<(Part, &str)>) -> Vec<String> {
    let mut by_fold: BTreeMap<String, BTreeMap<String, &str>> = BTreeMap::new();
    for (_, class) in names {
        by_fold.entry(names::folded(class)).or_default().insert(names::normalized(class).into_owned(), class);
    }
    let groups = by_fold.into_iter().filter(|(fold, group)| !fold.is_empty() && group.len() > 1);
    groups
        .map(|(_, group)| {
            let names = group.into_values().map(|name| format!("{name:?}"));
            format!("class names that differ in case, spaces or signs alone: {}", listed(names))
        })
        .collect()
}

/// A word of warning if every class folder has the same folders in it, as folders of parts with unknown names do.
fn same_folders_in_each(tree: &Tree, folder: &str) -> Option<String> {
    let classes = tree.filled(folder);
    let mut inner = classes.iter().map(|class| tree.filled(&join(folder, class)));
    let first = inner.next().filter(|inner| inner.len() > 1)?;
    let is_same = classes.len() > 1 && inner.all(|inner| inner == first);
    is_same.then(|| {
        let folders = listed(first.into_iter().map(str::to_owned));
        format!("every class folder has the same folders in it, {folders}: are these the classes?")
    })
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The rest of a path that is below a folder.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    if folder.is_empty() { Some(path) } else { path.strip_prefix(folder)?.strip_prefix('/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<Found> {
        let kind = |name: &str| if names::is_image(name) { Kind::Image } else { Kind::Other };
        names.iter().map(|name| Found { kind: kind(name), name: (*name).to_owned() }).collect()
    }

    fn layout(names: &[&str]) -> Result<Layout, DataError> {
        Layout::of(Path::new("photos"), &found(names), &[], &Wish::default())
    }

    /// Part and class of every image, in order.
    fn places(names: &[&str]) -> Vec<String> {
        let layout = layout(names).unwrap();
        let place =
            |(_, Place { part, class }): &(usize, Place)| format!("{part:?} {}", layout.classes[*class as usize]);
        layout.placed.iter().map(place).collect()
    }

    #[test]
    fn parts_of_any_usual_name_and_case_are_parts() {
        for [train, valid, test] in [
            ["train", "val", "test"],
            ["Train", "Valid", "Test"],
            ["TRAINING", "dev", "testing"],
            ["seg_train", "seg_validation", "seg_test"],
            ["train2017", "val2017", "Test Data"],
            ["images/train", "images/valid", "images/test"],
            ["a/b/train", "a/b/valid", "a/b/test"],
            ["training_set/training_set", "val/images", "test_set/test_set"],
        ] {
            let names: Vec<String> = [train, valid, test]
                .iter()
                .flat_map(|p| [format!("{p}/cat/x/1.jpg"), format!("{p}/dog/2.jpg")])
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let expected = ["Train cat", "Train dog", "Validation cat", "Validation dog", "Test cat", "Test dog"];
            assert_eq!(places(&names), expected, "{train}");
        }
    }

    #[test]
    fn class_folders_have_images_at_any_depth_and_folders_around_them() {
        for around in ["", "images/", "a/b/"] {
            let names =
                [format!("{around}cat/2024/may/1.jpg"), format!("{around}dog/2.jpg"), format!("{around}logo.png")];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(places(&names), ["Train cat", "Train dog"], "{around}");
            let layout = layout(&names).unwrap();
            assert_eq!(layout.aside.to_string(), format!("1 in no class folder ({around}logo.png)"));
        }
    }

    #[test]
    fn a_class_may_be_called_like_a_part() {
        let names = ["train/1.jpg", "bus/1.jpg", "test tube/a/1.jpg", "test tube/b/1.jpg"];
        assert_eq!(places(&names), ["Train bus", "Train test tube", "Train test tube", "Train train"]);
        assert!(layout(&names).unwrap().notes[0].contains("called train"));
        let names = ["train/steam/1.jpg", "bus/1.jpg", "bus/2.jpg", "car/1.jpg"];
        assert_eq!(places(&names), ["Train bus", "Train bus", "Train car", "Train train"]);
        let names =
            ["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "more/1.jpg", "more/2.jpg", "more/3.jpg", "more/4.jpg"];
        assert_eq!(places(&names), ["Train a", "Train b", "Test a"], "two parts are parts");
    }

    #[test]
    fn parts_without_class_folders_are_refused() {
        for names in
            [&["Train/1.jpg", "Test/2.jpg"][..], &["train/1.jpg"], &["train/1.jpg", "test/2.jpg", "more/3.jpg"]]
        {
            let message = layout(names).unwrap_err().to_string();
            assert!(message.contains("no class folders"), "{message}");
        }
        let message = layout(&["1.jpg", "2.jpg"]).unwrap_err().to_string();
        assert!(message.contains("no class folders"), "{message}");
        assert!(matches!(layout(&["notes.txt"]), Err(DataError::NoImages { .. })));
    }

    #[test]
    fn parts_may_be_inside_the_classes() {
        let names = ["cat/train/1.jpg", "cat/test/2.jpg", "dog/train/3.jpg", "dog/test/4.jpg"];
        assert_eq!(places(&names), ["Train cat", "Train dog", "Test cat", "Test dog"]);
    }

    #[test]
    fn images_of_a_part_that_are_in_no_class_are_left_aside() {
        let names = ["train/cat/1.jpg", "train/dog/2.jpg", "test/0.jpg", "test/1.jpg", "docs/logo.png", "readme.md"];
        assert_eq!(places(&names), ["Train cat", "Train dog"]);
        let aside = layout(&names).unwrap().aside.to_string();
        assert_eq!(
            aside,
            "1 not images (readme.md), 2 in no class folder (test/0.jpg), 1 outside the folders that are used \
             (docs/logo.png)"
        );
    }

    #[test]
    fn classes_of_test_are_matched_by_name() {
        let names = ["train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/bird/4.jpg"];
        assert_eq!(places(&names), ["Train cat", "Train dog", "Test cat"]);
        let layout = layout(&names).unwrap();
        assert_eq!(layout.aside.to_string(), "1 of classes that are not trained on (test/bird/4.jpg)");
        assert!(layout.notes[0].ends_with("left aside: bird"), "{:?}", layout.notes);
        assert!(layout.notes[1].ends_with("no images of dog"), "{:?}", layout.notes);
    }

    #[test]
    fn images_of_classes_that_a_network_knows_are_kept_to_score_it() {
        let names = ["train/cat/1.jpg", "test/cat/3.jpg", "test/bird/4.jpg", "test/fish/5.jpg"];
        let known = ["bird", "cat", "ship"].map(String::from);
        let wish = Wish { known_classes: &known, ..Wish::default() };
        let layout = Layout::of(Path::new("photos"), &found(&names), &[], &wish).unwrap();
        assert_eq!((layout.classes, layout.placed.len()), (vec!["bird".to_owned(), "cat".into()], 3));
        assert_eq!(layout.aside.to_string(), "1 of classes that are not trained on (test/fish/5.jpg)");
    }

    #[test]
    fn a_test_part_alone_has_its_own_classes_even_one() {
        assert_eq!(places(&["test/cat/3.jpg", "test/bird/4.jpg"]), ["Test bird", "Test cat"]);
        assert_eq!(places(&["Valid/cat/3.jpg"]), ["Validation cat"]);
        assert!(matches!(layout(&["train/cat/3.jpg"]), Err(DataError::OneClass { .. })));
    }

    #[test]
    fn names_in_other_normal_forms_are_the_same_class() {
        let names = ["train/caf\u{e9}/1.jpg", "train/tea/2.jpg", "test/cafe\u{301}/3.jpg", "test/tea/4.jpg"];
        assert_eq!(places(&names), ["Train café", "Train tea", "Test café", "Test tea"]);
        assert!(layout(&names).unwrap().notes.is_empty());
        let layout = layout(&["caf\u{e9}/1.jpg", "cafe\u{301}/2.jpg", "tea/3.jpg"]).unwrap();
        assert_eq!(layout.classes.len(), 2);
        assert!(layout.notes[0].contains("different Unicode forms"), "{:?}", layout.notes);
    }

    #[test]
    fn names_that_look_alike_are_said() {
        let layout = layout(&["Cat/1.jpg", "cat/2.jpg", "my dog/3.jpg", "my_dog/4.jpg"]).unwrap();
        assert_eq!(layout.classes.len(), 4);
        assert_eq!(layout.notes.len(), 2);
        assert!(layout.notes[0].ends_with("\"Cat\", \"cat\""), "{:?}", layout.notes);
    }

    #[test]
    fn folders_of_parts_with_unknown_names_are_said() {
        let layout = layout(&["fold1/cat/1.jpg", "fold1/dog/2.jpg", "fold2/cat/3.jpg", "fold2/dog/4.jpg"]).unwrap();
        assert_eq!(layout.classes, ["fold1", "fold2"]);
        assert!(layout.notes[0].contains("cat, dog: are these the classes?"), "{:?}", layout.notes);
    }

    #[test]
    fn leftovers_are_passed_over() {
        let names = [
            "train/cat/1.jpg",
            "train/dog/1.jpg",
            "train/cat/@eaDir/1.jpg",
            "__MACOSX/train/cat/._1.jpg",
            ".git/1.jpg",
        ];
        assert_eq!(places(&names), ["Train cat", "Train dog"]);
        let aside = layout(&names).unwrap().aside.to_string();
        assert_eq!(aside, "2 left by an operating system or a file server (train/cat/@eaDir/1.jpg)");
    }
}
