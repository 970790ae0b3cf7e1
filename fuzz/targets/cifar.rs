//! Bytes as a file of CIFAR-10 and of CIFAR-100 in their form for Python, which is a pickle.

#![no_main]

use std::path::Path;

use kiln_data::cifar::{CIFAR10, CIFAR100, Form};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for cifar in [&CIFAR10, &CIFAR100] {
        if let Ok(dataset) = cifar.dataset(Form::Python, |_| Ok(data.to_vec()), Path::new("cifar")) {
            let pixels = dataset.train.images.in_memory().expect("a set of CIFAR is in memory");
            assert_eq!(pixels.len(), 3072 * dataset.train.len());
            assert!(dataset.train.labels.iter().all(|label| (*label as usize) < cifar.classes.len()));
        }
    }
});
