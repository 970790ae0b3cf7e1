//! Gradients by parameter name: to be summed, clipped, and handed to the optimizer.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Element, Gradients, Tensor};
use kiln_model::{Network, ParameterPath, StateDict, StateTensor};

/// The gradient of every parameter that a loss reaches, on the device.
pub struct ParameterGradients(BTreeMap<String, Gradient>);

struct Gradient {
    shape: Vec<usize>,
    /// Flattened.
    values: Tensor<1>,
}

/// The gradient of every parameter that `grads` reaches, on the host, by name.
pub fn gradients(model: &Network, grads: &Gradients) -> StateDict {
    let on_host = |gradient: Gradient| StateTensor { shape: gradient.shape, ..StateTensor::read(gradient.values) };
    ParameterGradients::of(model, grads).0.into_iter().map(|(name, gradient)| (name, on_host(gradient))).collect()
}

impl ParameterGradients {
    /// What the backward pass `grads` left for the parameters of `model`.
    pub fn of(model: &Network, grads: &Gradients) -> Self {
        let mut collector = Collector { grads, path: ParameterPath::default(), found: BTreeMap::new() };
        model.visit(&mut collector);
        Self(collector.found)
    }

    /// The sum of these and those of another batch through the same network.
    pub fn plus(mut self, other: Self) -> Self {
        for (name, gradient) in other.0 {
            let values = match self.0.remove(&name) {
                Some(sum) => sum.values + gradient.values,
                None => gradient.values,
            };
            self.0.insert(name, Gradient { shape: gradient.shape, values });
        }
        self
    }

    /// Shrinks all of them by one factor such that their global norm is `max_norm` at most, as
    /// PyTorch's `clip_grad_norm_`. Does not wait for the device.
    pub fn clip(mut self, max_norm: f64) -> Self {
        let squares = self.0.values().map(|gradient| sum_of_squares(&gradient.values));
        let Some(sum) = squares.reduce(|a, b| a + b) else { return self };
        let factor = ((sum.sqrt() + 1e-6).recip() * max_norm).clamp_max(1.0); // [1]
        for gradient in self.0.values_mut() {
            gradient.values = gradient.values.clone() * factor.clone();
        }
        self
    }

    /// The sum of all their values `[1]`: finite if, and but for sums beyond f32 only if, they all are. Does not wait
    /// for the device.
    pub(crate) fn sum(&self) -> Option<Tensor<1>> {
        self.0.values().map(|gradient| gradient.values.clone().sum()).reduce(|a, b| a + b)
    }

    /// Of the parameters whose gradient is not finite the one nearest to the loss, where the backward pass met it
    /// first. Waits for the device.
    pub(crate) async fn first_non_finite(&self) -> Option<&str> {
        let mut names = vec![];
        for (name, gradient) in &self.0 {
            if !scalar::<f32>(gradient.values.clone().sum()).await.is_finite() {
                names.push(name.as_str());
            }
        }
        // Names sort as stages and blocks follow one another, but for the head and a transformer's embeddings.
        let is_any = |name: &str, starts: [&str; 2]| starts.iter().any(|start| name.starts_with(start));
        names
            .into_iter()
            .max_by_key(|name| (is_any(name, ["fc.", "head."]), !is_any(name, ["patch_embed", "pos_embed"]), *name))
    }

    /// Takes the gradient of one parameter, flattened; `None` for a running statistic.
    pub(crate) fn take(&mut self, name: &str) -> Option<Tensor<1>> {
        self.0.remove(name).map(|gradient| gradient.values)
    }
}

/// The one number of a tensor. Waits for the device, and panics if that is lost, as burn's own reads do.
pub(crate) async fn scalar<E: Element>(tensor: Tensor<1>) -> E {
    tensor.into_scalar_async().await.unwrap_or_else(|error| panic!("{error}"))
}

/// `[n]` -> `[1]`. In parts, since burn's CPU backend sums longer tensors on several threads, in an order
/// that is not the same every time.
fn sum_of_squares(values: &Tensor<1>) -> Tensor<1> {
    const PART: usize = 1 << 20;
    let len = values.dims()[0];
    let parts = (0..len).step_by(PART).map(|start| {
        let part = values.clone().narrow(0, start, PART.min(len - start));
        (part.clone() * part).sum()
    });
    parts.reduce(|a, b| a + b).unwrap_or_else(|| Tensor::zeros([1], &values.device()))
}

struct Collector<'a> {
    grads: &'a Gradients,
    path: ParameterPath,
    found: BTreeMap<String, Gradient>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad(self.grads) {
            let gradient = Gradient { shape: grad.dims().to_vec(), values: grad.reshape([-1]) };
            self.found.insert(self.path.name(), gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use kiln_model::ResNetConfig;

    use super::*;

    fn network() -> Network {
        let config = ResNetConfig { width: 2, ..ResNetConfig::new(18, 3) };
        config.init(0, &Device::flex().autodiff()).unwrap().into()
    }

    /// Gradients of the sum of all logits of some pictures.
    fn of(model: &Network, pictures: usize) -> ParameterGradients {
        let device = Device::flex().autodiff();
        let images = Tensor::<4>::ones([pictures, 3, 8, 8], &device);
        ParameterGradients::of(model, &model.forward(images).sum().backward())
    }

    fn norm(gradients: ParameterGradients) -> f64 {
        let values = gradients.0.into_values().flat_map(|gradient| StateTensor::read(gradient.values).values);
        values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn clipping_brings_the_global_norm_down_and_never_up() {
        let model = network();
        let whole = norm(of(&model, 4));
        assert!(whole > 1.0, "{whole}");
        let clipped = norm(of(&model, 4).clip(whole / 3.0));
        assert!((clipped - whole / 3.0).abs() < 1e-4 * whole, "{clipped} of {whole}");
        assert!((norm(of(&model, 4).clip(whole * 2.0)) - whole).abs() < 1e-5 * whole);
    }

    #[test]
    fn a_sum_of_squares_is_the_same_in_parts() {
        let values = Tensor::<1>::ones([(2 << 20) + 7], &Device::flex()) * 2.0;
        assert_eq!(sum_of_squares(&values).into_scalar::<f32>(), 4.0 * ((2 << 20) + 7) as f32);
    }

    #[test]
    fn gradients_add_up_by_name() {
        let model = network();
        let sum = of(&model, 2).plus(of(&model, 2));
        let once = of(&model, 2);
        assert_eq!(sum.0.len(), once.0.len());
        assert!((norm(sum) - 2.0 * norm(once)).abs() < 1e-3);
    }
}
