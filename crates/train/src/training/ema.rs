//! An exponential moving average of a network's weights.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_model::{Network, ParameterPath, StateDict, StateTensor};

/// Averages of every parameter and running statistic.
///
/// Running statistics are averaged like weights, as timm's `ModelEmaV2` does: they describe the
/// activations of the weights of about the same steps. In its beginning the average forgets faster,
/// `(1 + n) / (10 + n)` after `n` updates (TensorFlow's rule), as the first weights are worth little.
#[derive(Clone)]
pub struct Ema {
    decay: f64,
    /// Empty before the first update.
    averages: BTreeMap<String, Average>,
}

#[derive(Clone)]
struct Average {
    shape: Vec<usize>,
    /// Flattened, without autodiff.
    values: Tensor<1>,
}

impl Ema {
    pub fn new(decay: f64) -> Self {
        Self { decay, averages: BTreeMap::new() }
    }

    /// Takes in the weights of `model` after `updates` updates before this one.
    pub fn update(&mut self, model: &Network, updates: usize) {
        let n = updates as f64;
        let decay = self.decay.min((1.0 + n) / (10.0 + n));
        // `valid` folds pending updates into the running statistics.
        model.valid().visit(&mut Update { averages: &mut self.averages, decay, path: ParameterPath::default() });
    }

    /// The averages on the host, by torchvision name; empty before the first update. Waits for the device.
    pub async fn state(&self) -> StateDict {
        let mut state = StateDict::new();
        for (name, Average { shape, values }) in &self.averages {
            let read = StateTensor::read_async(values.clone()).await;
            state.insert(name.clone(), StateTensor { shape: shape.clone(), ..read });
        }
        state
    }

    /// Continues with what [`Ema::state`] gave.
    pub fn restore(&mut self, state: StateDict, device: &Device) {
        let average = |state: StateTensor| {
            let len = state.values.len();
            Average { shape: state.shape, values: Tensor::from_data(TensorData::new(state.values, [len]), device) }
        };
        self.averages = state.into_iter().map(|(name, state)| (name, average(state))).collect();
    }
}

struct Update<'a> {
    averages: &'a mut BTreeMap<String, Average>,
    decay: f64,
    path: ParameterPath,
}

impl ModuleVisitor for Update<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (name, value) = (self.path.name(), param.val());
        let (shape, value) = (value.dims().to_vec(), value.reshape([-1]));
        let values = match self.averages.remove(&name) {
            Some(average) => average.values * self.decay + value * (1.0 - self.decay),
            None => value,
        };
        self.averages.insert(name, Average { shape, values });
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::ResNetConfig;

    use pollster::block_on;

    use super::*;

    fn network(seed: u64) -> Network {
        let config = ResNetConfig { width: 2, ..ResNetConfig::new(18, 3) };
        config.init(seed, &Device::flex().autodiff()).unwrap().into()
    }

    #[test]
    fn the_first_weights_are_the_average_and_the_next_are_weighed() {
        let (first, second) = (network(0).state_dict(), network(1).state_dict());
        let mut ema = Ema::new(0.9);
        assert!(block_on(ema.state()).is_empty());
        ema.update(&network(0), 0);
        assert_eq!(block_on(ema.state()), first);
        ema.update(&network(1), 1);
        // (1 + 1) / (10 + 1), less than 0.9 yet.
        let decay = 2.0 / 11.0;
        let state = block_on(ema.state());
        assert!(state.contains_key("bn1.running_var"));
        for (name, average) in &state {
            assert_eq!(average.shape, first[name].shape, "{name}");
            for (index, value) in average.values.iter().enumerate() {
                let expected = decay * first[name].values[index] + (1.0 - decay) * second[name].values[index];
                assert!((value - expected).abs() < 1e-6, "{name}");
            }
        }
    }

    #[test]
    fn a_restored_average_goes_on_to_the_same_bits() {
        let mut whole = Ema::new(0.5);
        whole.update(&network(0), 0);
        let mut resumed = Ema::new(0.5);
        resumed.restore(block_on(whole.state()), &Device::flex());
        for ema in [&mut whole, &mut resumed] {
            ema.update(&network(1), 100);
            ema.update(&network(2), 101);
        }
        assert_eq!(block_on(whole.state()), block_on(resumed.state()));
    }
}
