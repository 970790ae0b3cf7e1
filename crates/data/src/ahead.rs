//! Images made in the background before they are asked for.
//!
//! This changes when an image is made, and never what it is.

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{error::DataError, images::ImageSource, resized_crop::CropDraw};

/// An index in the source, and what the crop depends on.
type Key = (u32, Option<[u64; 5]>);

#[derive(Debug)]
enum Slot {
    /// No thread has begun.
    Waiting,
    Running,
    Ready(Result<Vec<u8>, DataError>),
}

/// Images that are being made: never more than were asked for last, so memory is bounded by a batch.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    slots: Mutex<HashMap<Key, Slot>>,
    changed: Condvar,
}

impl Ahead {
    /// Makes these images in rayon's pool, and forgets all others.
    pub fn start(
        ahead: &Arc<Self>,
        source: &Arc<dyn ImageSource>,
        wanted: impl Iterator<Item = (u32, Option<CropDraw>)>,
    ) {
        let wanted: Vec<_> = wanted.map(|(index, crop)| (key(index, crop.as_ref()), crop)).collect();
        let keys: HashSet<Key> = wanted.iter().map(|(key, _)| *key).collect();
        let mut slots = ahead.lock();
        slots.retain(|key, _| keys.contains(key));
        for (key, crop) in wanted {
            slots.entry(key).or_insert_with(|| {
                let (ahead, source) = (ahead.clone(), source.clone());
                rayon::spawn(move || ahead.work(&*source, key, crop));
                Slot::Waiting
            });
        }
    }

    fn work(&self, source: &dyn ImageSource, key: Key, crop: Option<CropDraw>) {
        match self.lock().get_mut(&key) {
            Some(slot @ Slot::Waiting) => *slot = Slot::Running,
            // Somebody needed it first.
            _ => return,
        }
        // A panic would end the process here; whoever asks for the image meets it again where it can be caught.
        let image = catch_unwind(AssertUnwindSafe(|| source.image(key.0, crop.as_ref())));
        let mut slots = self.lock();
        match (image, slots.get_mut(&key)) {
            (Ok(image), Some(slot)) => *slot = Slot::Ready(image),
            (Err(_), Some(_)) => drop(slots.remove(&key)),
            (_, None) => {}
        }
        self.changed.notify_all();
    }

    /// An image that was started, once it is there; `None` if it has to be made now.
    pub fn take(&self, index: u32, crop: Option<&CropDraw>) -> Option<Result<Vec<u8>, DataError>> {
        let key = key(index, crop);
        let mut slots = self.lock();
        while let Some(Slot::Running) = slots.get(&key) {
            slots = self.changed.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
        match slots.remove(&key)? {
            Slot::Ready(image) => Some(image),
            Slot::Waiting | Slot::Running => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(index: u32, crop: Option<&CropDraw>) -> Key {
    (index, crop.map(CropDraw::key))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// Image `i` is the byte `i`; 7 cannot be read, 8 panics.
    #[derive(Debug, Default)]
    struct Counted(AtomicUsize);

    impl ImageSource for Counted {
        fn image(&self, index: u32, _: Option<&CropDraw>) -> Result<Vec<u8>, DataError> {
            self.0.fetch_add(1, SeqCst);
            assert_ne!(index, 8);
            if index == 7 { Err(DataError::ZeroLimit) } else { Ok(vec![index as u8]) }
        }

        fn digest(&self, index: u32) -> u128 {
            index.into()
        }
    }

    #[test]
    fn what_was_started_is_made_once_and_what_is_not_wanted_any_more_is_forgotten() {
        let (ahead, counted) = (Arc::new(Ahead::default()), Arc::new(Counted::default()));
        let source: Arc<dyn ImageSource> = counted.clone();
        for round in 0..200 {
            let first = round % 5;
            Ahead::start(&ahead, &source, [first, first + 1, 7].map(|index| (index, None)).into_iter());
            assert!(ahead.take(first + 2, None).is_none(), "not asked for");
            if let Some(image) = ahead.take(first, None) {
                assert_eq!(image.unwrap(), [first as u8]);
            }
            assert!(ahead.take(first, None).is_none(), "handed out once");
            assert!(ahead.take(7, None).is_none_or(|image| image.is_err()));
            assert!(ahead.lock().len() <= 1, "{round}");
        }
        Ahead::start(&ahead, &source, std::iter::empty());
        assert!(ahead.lock().is_empty());
        assert!(counted.0.load(SeqCst) <= 600);
    }

    #[test]
    fn a_panic_in_the_background_leaves_the_image_to_be_made_by_who_asks() {
        let (ahead, source) = (Arc::new(Ahead::default()), Arc::new(Counted::default()) as Arc<dyn ImageSource>);
        Ahead::start(&ahead, &source, [(8, None)].into_iter());
        while !ahead.lock().is_empty() {
            std::thread::yield_now();
        }
        assert!(ahead.take(8, None).is_none());
    }
}
