//! A network's parameters to the host and back.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use crate::{ResNet, StateDict, StateError, StateTensor};

impl StateTensor {
    /// Copies a tensor to the host. Waits for the device.
    pub fn read<const D: usize>(tensor: Tensor<D>) -> Self {
        Self::of(tensor.into_data())
    }

    /// Copies a tensor to the host, for callers that must not block, such as a page.
    ///
    /// # Panics
    /// If the device is lost, as burn's own reads do.
    pub async fn read_async<const D: usize>(tensor: Tensor<D>) -> Self {
        Self::of(tensor.into_data_async().await.unwrap_or_else(|error| panic!("{error}")))
    }

    fn of(data: TensorData) -> Self {
        let shape = data.shape().to_vec();
        Self { shape, values: data.convert::<f32>().try_into_vec().expect("converted to f32 just now") }
    }
}

impl ResNet {
    /// Copies every parameter and running statistic to the host. Waits for the device.
    pub fn state_dict(&self) -> StateDict {
        read(self)
    }

    /// Takes every parameter and running statistic from `state`.
    ///
    /// # Errors
    /// When a name is missing or unknown or a shape differs; the network is then lost, `state` not.
    pub fn load_state_dict(self, state: &StateDict) -> Result<Self, StateError> {
        load(self, state)
    }
}

pub(crate) fn read(module: &impl Module) -> StateDict {
    // `valid` folds pending updates into the running statistics; visiting alone would not.
    let mut reader = Reader::default();
    module.valid().visit(&mut reader);
    reader.state
}

/// As [`read`], without blocking.
pub(crate) async fn read_async(module: &impl Module) -> StateDict {
    let mut collector = Collector::default();
    module.valid().visit(&mut collector);
    let mut state = StateDict::new();
    for (name, shape, values) in collector.tensors {
        state.insert(name, StateTensor { shape, ..StateTensor::read_async(values).await });
    }
    state
}

pub(crate) fn load<M: Module>(module: M, state: &StateDict) -> Result<M, StateError> {
    let mut writer =
        Writer { path: ParameterPath::default(), state, seen: BTreeSet::new(), missing: vec![], shape: None };
    let loaded = module.map(&mut writer);
    if let Some(error) = writer.shape {
        return Err(error);
    }
    if !writer.missing.is_empty() {
        return Err(StateError::Missing(writer.missing));
    }
    let unexpected: Vec<_> = state.keys().filter(|name| !writer.seen.contains(*name)).cloned().collect();
    if !unexpected.is_empty() {
        return Err(StateError::Unexpected(unexpected));
    }
    Ok(loaded)
}

/// Where a walk over the module tree stands, in torchvision's names, or timm's for a transformer.
#[derive(Default)]
pub struct ParameterPath(Vec<String>);

impl ParameterPath {
    pub fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub fn exit(&mut self) {
        self.0.pop();
    }

    /// `layer2.0.downsample.0.weight`: torchvision numbers the parts of a shortcut.
    pub fn name(&self) -> String {
        // burn also enters the variant of an enum.
        let parts: Vec<&str> = self.0.iter().map(String::as_str).filter(|part| !FAMILIES.contains(part)).collect();
        parts.join(".").replace("downsample.conv", "downsample.0").replace("downsample.norm", "downsample.1")
    }
}

/// The variants of [`Network`](crate::Network).
const FAMILIES: [&str; 2] = ["ResNet", "Vit"];

#[derive(Default)]
struct Reader {
    path: ParameterPath,
    state: StateDict,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.state.insert(self.path.name(), StateTensor::read(param.val()));
    }
}

/// Parameters and running statistics on the device: name, shape, flattened values.
#[derive(Default)]
struct Collector {
    path: ParameterPath,
    tensors: Vec<(String, Vec<usize>, Tensor<1>)>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        self.tensors.push((self.path.name(), value.dims().to_vec(), value.reshape([-1])));
    }
}

struct Writer<'a> {
    path: ParameterPath,
    state: &'a StateDict,
    seen: BTreeSet<String>,
    missing: Vec<String>,
    shape: Option<StateError>,
}

impl ModuleMapper for Writer<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some(tensor) = self.state.get(&name) else {
            self.missing.push(name);
            return param;
        };
        let expected = param.shape().to_vec();
        if tensor.shape != expected {
            self.shape.get_or_insert(StateError::Shape { name, expected, found: tensor.shape.clone() });
            return param;
        }
        self.seen.insert(name);
        let data = TensorData::new(tensor.values.clone(), tensor.shape.clone());
        param.map(|old| {
            let requires_grad = old.is_require_grad();
            Tensor::from_data(data, &old.device()).set_require_grad(requires_grad)
        })
    }
}
