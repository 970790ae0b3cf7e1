//! Classifies pictures with a trained network, on a GPU if there is one.
//!
//!     cargo run --release --example predict -- web/models/quick.safetensors PICTURE..

use kiln::infer::gpu::Adapter;
use kiln::{Bundle, DeviceRequest, Predictor, choose};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let bundle = Bundle::open(arguments.next().ok_or("name a bundle")?)?;
    let adapter: Option<Adapter> = choose(DeviceRequest::Auto)?.adapter.map(|adapter| adapter.for_inference());
    let mut predictor = match adapter {
        Some(adapter) => pollster::block_on(Predictor::on_gpu(bundle, &adapter))?,
        None => Predictor::new(bundle)?,
    };
    for picture in arguments {
        let prediction = predictor.classify_file(&picture)?;
        let class = prediction.class();
        let name = &predictor.metadata().classes[class];
        println!("{picture}: {name} ({:.1} %)", 100.0 * prediction.probabilities[class]);
        // Where in the picture the evidence lies, row by row.
        let [_, width] = predictor.activation_size();
        for row in predictor.activation(&prediction, class).chunks(width) {
            println!("    {}", row.iter().map(|value| format!("{value:>7.2}")).collect::<String>());
        }
    }
    Ok(())
}
