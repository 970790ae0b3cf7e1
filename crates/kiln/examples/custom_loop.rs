//! A training loop of your own: the model, the optimizer and the loss, without recipes or run folders.
//!
//!     cargo run --release --example custom_loop

use burn::tensor::{Device, Tensor, TensorData};
use kiln::data::{Augment, Augmentation, epoch_order, fill_batch, synthetic, targets};
use kiln::model::{Architecture, ResNetConfig};
use kiln::train::recipe::Optimizer;
use kiln::train::{Sgd, cross_entropy, mixed_targets};

const BATCH: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    kiln::work_in_the_pool();
    let data = synthetic(1000, 0, 0); // ten classes, drawn in code
    let indices: Vec<u32> = (0..data.train.len() as u32).collect();
    let device = Device::flex().autodiff();
    let architecture = Architecture::ResNet(ResNetConfig { width: 8, ..ResNetConfig::new(18, data.classes.len()) });
    let mut model = architecture.init(0, &device)?;
    let optimizer = Optimizer { nesterov: true, decay_norms_and_biases: false, ..Optimizer::default() };
    let mut sgd = Sgd::new(optimizer);
    let augment = Augment::default();
    for epoch in 0..3 {
        let augmentation = Augmentation { augment: &augment, seed: 0, epoch, partners: &indices };
        let (mut sum, mut steps) = (0.0, 0);
        for batch in epoch_order(&indices, 0, epoch).chunks_exact(BATCH) {
            let mut pixels = vec![];
            fill_batch(&data.train, batch, Some(&augmentation), data.mean, data.std, &mut pixels)?;
            let shape = [BATCH, 3, data.train.height, data.train.width];
            let images = Tensor::<4>::from_data(TensorData::new(pixels, shape), &device);
            let targets = targets(&data.train, batch, Some(&augmentation));
            let targets = mixed_targets(&targets, data.classes.len(), 0.1, &device); // [n, classes]
            let loss = cross_entropy(model.forward(images), targets);
            model = sgd.step(model, &loss.backward(), 0.05);
            sum += loss.into_scalar::<f32>();
            steps += 1;
        }
        println!("epoch {}: loss {:.3}", epoch + 1, sum / steps as f32);
    }
    println!("{} tensors to save", model.state_dict().len());
    Ok(())
}
