//! Arguments of `kiln bench`.

use clap::Subcommand;
use kiln_infer::Precision;
use kiln_kernels::device::DeviceRequest;

#[derive(clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub what: Bench,
}

#[derive(Subcommand)]
pub enum Bench {
    /// Each convolution of a ResNet-18, forward and both gradients: Kiln's against burn's own
    Layers {
        /// Channels of the first stage
        #[arg(long, default_value_t = 64)]
        width: usize,
        /// Batch size
        #[arg(long, default_value_t = 8)]
        batch: usize,
        /// Pixels a side; from 64 on with ImageNet's stem
        #[arg(long, default_value_t = 32, value_name = "PIXELS")]
        image_size: usize,
        /// Timed runs, after one that is not; the median counts
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// What Kiln's convolutions multiply: f32, bf16 or f16; burn's multiply f32
        #[arg(long, default_value_t = Precision::F32)]
        precision: Precision,
        /// auto, cpu, gpu, gpu:N, software (or cuda, cuda:N in a build that has it)
        #[arg(long, default_value = "auto")]
        device: DeviceRequest,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Images through a CIFAR ResNet-18: the plan that the page runs, and the burn module, in turn
    Inference {
        /// Channels of the first stage
        #[arg(long, default_value_t = 64)]
        width: usize,
        /// Images at a time
        #[arg(long, default_value_t = 1)]
        batch: usize,
        /// Timed batches, after 3 that are not
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// How a plan stores numbers: f32, or f16 on a GPU that supports it
        #[arg(long, default_value_t = Precision::F32)]
        precision: Precision,
        /// auto, cpu, gpu, gpu:N or software
        #[arg(long, default_value = "auto")]
        device: DeviceRequest,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Training steps of a ResNet-18: forward, backward and update, against the whole loop
    TrainStep {
        /// Channels of the first stage
        #[arg(long, default_value_t = 16)]
        width: usize,
        /// Images a step
        #[arg(long, default_value_t = 64)]
        batch: usize,
        /// Pixels a side; from 64 on with ImageNet's stem
        #[arg(long, default_value_t = 32, value_name = "PIXELS")]
        image_size: usize,
        /// Timed steps, after up to 3 that are not
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        /// What convolutions multiply: f32, bf16 or f16
        #[arg(long, default_value_t = Precision::F32)]
        precision: Precision,
        /// auto, cpu, gpu, gpu:N, software (or cuda, cuda:N in a build that has it)
        #[arg(long, default_value = "auto")]
        device: DeviceRequest,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
