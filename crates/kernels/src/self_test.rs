//! Every operator on a device, with the answers of its reference in double precision: what `kiln doctor` runs. A new
//! operator gets a function here and a line in [`cases`].

use std::error::Error;
use std::time::Instant;

use crate::conv2d::Geometry;
use crate::device::{OperatorPath, SelectedDevice, multiplies};
use crate::{Precision, add_relu, conv2d};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_infer::check::noise;
use kiln_infer::{Conv2d, CpuExecutor, GpuExecutor, Norm, Operator, Plan, Step, Value};

/// Runs that are timed, after one that is not.
const RUNS: usize = 5;
/// As in training.
const EPSILON: f64 = 1e-5;
/// The most that a result may be off, over the largest value of its reference.
pub const LIMIT: f64 = 1e-5;
/// The same where every step rounds its result to f16.
pub const F16_LIMIT: f64 = 1e-2;

/// What a driver or burn says when it does not give an answer.
pub type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// An operator on one set of inputs.
pub struct Case {
    pub name: String,
    /// What comes out by the reference: `forward`, further outputs, then the gradients, by name.
    pub expected: Vec<(&'static str, Vec<f64>)>,
    /// The most that a result may be off.
    pub limit: f64,
    run: Run,
}

type Run = Box<dyn Fn(&SelectedDevice) -> Result<Found>>;

/// What a device made of a case.
pub struct Found {
    /// In the order of [`Case::expected`].
    pub values: Vec<Vec<f32>>,
    /// Milliseconds of the first call of everything, compilation included.
    pub first: f64,
    /// Milliseconds of the forward pass.
    pub forward: f64,
    /// Milliseconds of the backward pass, all gradients together.
    pub backward: Option<f64>,
}

impl Case {
    pub fn run(&self, chosen: &SelectedDevice) -> Result<Found> {
        (self.run)(chosen)
    }

    /// Without anything to run.
    #[doc(hidden)]
    pub fn answering(name: &str, expected: Vec<f64>) -> Self {
        let run = Box::new(|_: &SelectedDevice| Err("nothing to run".into()));
        Self { name: name.to_owned(), expected: vec![("forward", expected)], limit: LIMIT, run }
    }
}

/// Every case for a device.
pub fn cases(chosen: &SelectedDevice) -> Vec<Case> {
    let mut cases = vec![
        convolution([1, 3, 9, 7], 4, 3, 1, Precision::F32),
        convolution([3, 5, 9, 9], 7, 3, 2, Precision::F32),
        convolution([2, 16, 32, 32], 16, 3, 1, Precision::F32),
        convolution([8, 33, 8, 8], 40, 3, 1, Precision::F32),
        convolution([2, 24, 7, 5], 8, 1, 1, Precision::F32),
        convolution([5, 24, 8, 8], 33, 1, 2, Precision::F32),
        convolution([1, 3, 23, 23], 4, 7, 2, Precision::F32),
        convolution([8, 1, 32, 32], 2, 3, 2, Precision::F32),
        batch_normalization([3, 5, 7, 5], false),
        batch_normalization([3, 5, 7, 5], true),
        batch_normalization([8, 16, 16, 16], true),
        fixed_batch_normalization([3, 5, 7, 5]),
        group_normalization([3, 6, 7, 5], 3, true),
        sum_with_relu([3, 5, 7, 9]),
        average_pool([3, 5, 7, 9]),
        average_pool([1, 64, 4, 4]),
    ];
    for precision in [Precision::Bf16, Precision::F16] {
        if multiplies(&chosen.device, precision) {
            cases.push(convolution([3, 17, 9, 9], 18, 3, 2, precision));
            cases.push(convolution([2, 16, 32, 32], 80, 3, 1, precision));
        }
    }
    if let Some(adapter) = &chosen.adapter {
        let stores = |precision: &Precision| adapter.for_inference().stores(*precision);
        cases.extend([Precision::F32, Precision::F16].into_iter().filter(stores).map(plan_on_gpu));
    } else if OperatorPath::of(&chosen.device) == OperatorPath::Cpu {
        cases.push(plan_on_cpu());
    }
    cases
}

fn convolution(shape: [usize; 4], out: usize, kernel: usize, stride: usize, precision: Precision) -> Case {
    use kiln_infer::conv2d::reference::{backward_data, backward_weight, forward};

    let (weight_shape, padding) = ([out, shape[1], kernel, kernel], kernel / 2);
    let geometry = Geometry::new(shape, weight_shape, stride, padding);
    // What is exact in bf16 and f16 has the same answers in every precision.
    let exact = |value: f32| if precision == Precision::F32 { value } else { (value * 128.0).round() / 128.0 };
    let [x, weight, grad] = [(len(shape), 1), (len(weight_shape), 2), (len(geometry.output()), 3)]
        .map(|(len, seed)| noise(len, seed).into_iter().map(exact).collect::<Vec<f32>>());
    Case {
        name: format!("conv2d{} {kernel}x{kernel} stride {stride}, {} -> {out}", suffix(precision), sizes(shape)),
        expected: vec![
            ("forward", forward(&geometry, &x, &weight)),
            ("gradient of x", backward_data(&geometry, &weight, &grad)),
            ("gradient of weight", backward_weight(&geometry, &x, &grad)),
        ],
        limit: LIMIT,
        run: differentiable(vec![x, weight], grad, move |inputs| {
            let [x, weight] = take(inputs);
            vec![conv2d(x.reshape(shape), weight.reshape(weight_shape), stride, padding, precision).reshape([-1])]
        }),
    }
}

fn batch_normalization(shape: [usize; 4], relu: bool) -> Case {
    let (gamma, beta, grad) = (wave(shape[1], 1.0), wave(shape[1], 0.1), noise(len(shape), 3));
    let train =
        |x: &[f32], relu| kiln_infer::batch_norm::reference::train(shape, x, &gamma, &beta, &grad, EPSILON, relu);
    let x = clear_of_zero(len(shape), |x| train(x, false).output);
    let made = train(&x, relu);
    Case {
        name: format!("batch_norm_train{}, {}", with_relu(relu), sizes(shape)),
        expected: vec![
            ("forward", made.output),
            ("mean", made.mean),
            ("variance", made.variance),
            ("gradient of x", made.x_grad),
            ("gradient of gamma", made.gamma_grad),
            ("gradient of beta", made.beta_grad),
        ],
        limit: LIMIT,
        run: differentiable(vec![x, gamma, beta], grad, move |inputs| {
            let [x, gamma, beta] = take(inputs);
            let made = crate::batch_norm_train(x.reshape(shape), gamma, beta, EPSILON, relu);
            vec![made.output.reshape([-1]), made.mean, made.variance]
        }),
    }
}

fn fixed_batch_normalization(shape: [usize; 4]) -> Case {
    let channels = shape[1];
    let [gamma, beta, mean, variance] =
        [wave(channels, 1.0), wave(channels, 0.1), wave(channels, 0.3), wave(channels, 2.0)];
    let x = noise(len(shape), 1);
    let expected =
        kiln_infer::batch_norm::reference::fixed(shape, &x, [&gamma, &beta, &mean, &variance], EPSILON, true);
    Case {
        name: format!("batch_norm, ReLU, {}", sizes(shape)),
        expected: vec![("forward", expected)],
        limit: LIMIT,
        run: forward_only(vec![x, gamma, beta, mean, variance], move |inputs| {
            let [x, gamma, beta, mean, variance] = take(inputs);
            vec![crate::batch_norm(x.reshape(shape), gamma, beta, mean, variance, EPSILON, true).reshape([-1])]
        }),
    }
}

fn group_normalization(shape: [usize; 4], groups: usize, relu: bool) -> Case {
    let (gamma, beta, grad) = (wave(shape[1], 1.0), wave(shape[1], 0.1), noise(len(shape), 3));
    let train = |x: &[f32], relu| {
        kiln_infer::batch_norm::reference::group(shape, groups, x, [&gamma, &beta], &grad, EPSILON, relu)
    };
    let x = clear_of_zero(len(shape), |x| train(x, false).output);
    let made = train(&x, relu);
    Case {
        name: format!("group_norm{}, {groups} groups, {}", with_relu(relu), sizes(shape)),
        expected: vec![
            ("forward", made.output),
            ("gradient of x", made.x_grad),
            ("gradient of gamma", made.gamma_grad),
            ("gradient of beta", made.beta_grad),
        ],
        limit: LIMIT,
        run: differentiable(vec![x, gamma, beta], grad, move |inputs| {
            let [x, gamma, beta] = take(inputs);
            vec![crate::group_norm(x.reshape(shape), gamma, beta, groups, EPSILON, relu).reshape([-1])]
        }),
    }
}

fn sum_with_relu(shape: [usize; 4]) -> Case {
    let (x, y, grad) = (noise(len(shape), 1), noise(len(shape), 2), noise(len(shape), 3));
    let gradient = add_relu::reference::backward(&x, &y, &grad);
    Case {
        name: format!("add_relu, {}", sizes(shape)),
        expected: vec![
            ("forward", add_relu::reference::forward(&x, &y)),
            ("gradient of x", gradient.clone()),
            ("gradient of y", gradient),
        ],
        limit: LIMIT,
        run: differentiable(vec![x, y], grad, move |inputs| {
            let [x, y] = take(inputs);
            vec![add_relu(x.reshape(shape), y.reshape(shape)).reshape([-1])]
        }),
    }
}

fn average_pool(shape: [usize; 4]) -> Case {
    let area = shape[2] * shape[3];
    let (x, grad) = (noise(len(shape), 1), noise(shape[0] * shape[1], 3));
    Case {
        name: format!("global_average_pool, {}", sizes(shape)),
        expected: vec![
            ("forward", kiln_infer::pool::reference::forward(area, &x)),
            ("gradient of x", kiln_infer::pool::reference::backward(area, &grad)),
        ],
        limit: LIMIT,
        run: differentiable(vec![x], grad, move |inputs| {
            let [x] = take(inputs);
            vec![crate::global_average_pool(x.reshape(shape)).reshape([-1])]
        }),
    }
}

fn plan_on_cpu() -> Case {
    let (plan, image) = plan();
    Case {
        name: format!("inference::cpu, {} steps, 3x23x21", plan.steps.len()),
        expected: vec![("forward", kiln_infer::reference::run(&plan, &image))],
        limit: LIMIT,
        run: Box::new(move |_| {
            let start = Instant::now();
            let mut executor = CpuExecutor::new(plan.clone())?;
            let (made, [first, later]) = timed(start, || Ok(executor.run(&image)))?;
            Ok(Found { values: vec![made], first, forward: later, backward: None })
        }),
    }
}

fn plan_on_gpu(precision: Precision) -> Case {
    let (plan, image) = plan();
    Case {
        name: format!("inference::gpu{}, {} steps, 3x23x21", suffix(precision), plan.steps.len()),
        expected: vec![("forward", kiln_infer::reference::run(&plan, &image))],
        limit: if precision == Precision::F32 { LIMIT } else { F16_LIMIT },
        run: Box::new(move |chosen| {
            let adapter = chosen.adapter.as_ref().ok_or("the device has no adapter")?.for_inference();
            let start = Instant::now();
            let executor = pollster::block_on(GpuExecutor::new(&adapter, &plan, precision))?;
            let (made, [first, later]) = timed(start, || Ok(pollster::block_on(executor.run(&image))?.0))?;
            Ok(Found { values: vec![made], first, forward: later, backward: None })
        }),
    }
}

/// Every kind of step, odd sizes, residual sums, and an image for it.
fn plan() -> (Plan, Vec<f32>) {
    let conv = |[channels, out]: [usize; 2], kernel: usize, stride: usize| {
        let patch = channels * kernel * kernel;
        // Keeps values near one from step to step.
        let scale = 3.0 * (2.0 / patch as f32).sqrt();
        let weight = noise(out * patch, 7).iter().map(|weight| weight * scale).collect();
        Operator::Conv2d(Conv2d { weight, bias: noise(out, 5), channels, kernel, stride, padding: kernel / 2 })
    };
    let norm = |groups, per_pixel| {
        let (weight, bias, epsilon) = (wave(18, 1.0), wave(18, 0.1), EPSILON as f32);
        Operator::Norm(Norm { weight, bias, groups, per_pixel, epsilon })
    };
    let pool = Operator::MaxPool { kernel: 3, stride: 2, padding: 1 };
    let step = |input: Value, operator, residual, relu| Step { input, operator, residual, relu };
    let steps = vec![
        step(0, conv([3, 8], 7, 2), None, true),
        step(1, pool, None, false),
        step(2, conv([8, 18], 1, 2), None, false),
        step(2, conv([8, 18], 3, 2), None, true),
        step(4, conv([18, 18], 3, 1), Some(3), true),
        step(5, norm(3, false), Some(3), true),
        step(6, Operator::Position { embedding: noise(18 * 3 * 3, 6) }, None, false),
        step(7, norm(1, true), None, false),
        step(8, conv([18, 54], 1, 1), None, false),
        step(9, Operator::Attention { heads: 2 }, Some(7), false),
        step(10, Operator::Gelu, None, false),
    ];
    (Plan { input: [3, 23, 21], steps }, noise(3 * 23 * 21, 1))
}

/// Runs something that began to be made at `start`: its last value, and milliseconds of the first
/// call and of a later one.
fn timed<T>(start: Instant, mut run: impl FnMut() -> Result<T>) -> Result<(T, [f64; 2])> {
    let mut value = run()?;
    let first = milliseconds(start);
    let mut times = vec![];
    for _ in 0..RUNS {
        let start = Instant::now();
        value = run()?;
        times.push(milliseconds(start));
    }
    Ok((value, [first, median(times)]))
}

/// An operator of burn's tensors, run and differentiated as training does. Tensors come and go flat.
/// `grad` is the first output's gradient; every input gets one.
fn differentiable(
    inputs: Vec<Vec<f32>>,
    grad: Vec<f32>,
    forward: impl Fn(Vec<Tensor<1>>) -> Vec<Tensor<1>> + 'static,
) -> Run {
    Box::new(move |chosen| {
        let device = chosen.device.clone().autodiff();
        let inputs: Vec<_> = inputs.iter().map(|values| tensor(values, &device).require_grad()).collect();
        let grad = tensor(&grad, &device);
        let (mut forwards, mut backwards, mut first, mut made) = (vec![], vec![], 0.0, vec![]);
        for run in 0..=RUNS {
            device.sync()?;
            let start = Instant::now();
            let outputs = forward(inputs.clone());
            device.sync()?;
            let forward = milliseconds(start);
            let start = Instant::now();
            let grads = (outputs[0].clone() * grad.clone()).sum().backward();
            let gradients: Option<Vec<_>> = inputs.iter().map(|input| input.grad(&grads)).collect();
            device.sync()?;
            let backward = milliseconds(start);
            made = outputs.into_iter().map(Tensor::inner).collect();
            made.extend(gradients.ok_or("burn gave no gradient")?);
            if run == 0 {
                first = forward + backward;
            } else {
                forwards.push(forward);
                backwards.push(backward);
            }
        }
        let values = made.into_iter().map(read).collect::<Result<_>>()?;
        Ok(Found { values, first, forward: median(forwards), backward: Some(median(backwards)) })
    })
}

/// As [`differentiable`], without gradients.
fn forward_only(inputs: Vec<Vec<f32>>, forward: impl Fn(Vec<Tensor<1>>) -> Vec<Tensor<1>> + 'static) -> Run {
    Box::new(move |chosen| {
        let device = &chosen.device;
        let inputs: Vec<_> = inputs.iter().map(|values| tensor(values, device)).collect();
        device.sync()?;
        let (made, [first, later]) = timed(Instant::now(), || {
            let made = forward(inputs.clone());
            device.sync()?;
            Ok(made)
        })?;
        let values = made.into_iter().map(read).collect::<Result<_>>()?;
        Ok(Found { values, first, forward: later, backward: None })
    })
}

fn tensor(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

fn read(tensor: Tensor<1>) -> Result<Vec<f32>> {
    let values = tensor.into_data().try_into_vec::<f32>();
    values.map_err(|error| format!("the device's answer is not f32: {error:?}").into())
}

fn take<const N: usize>(inputs: Vec<Tensor<1>>) -> [Tensor<1>; N] {
    inputs.try_into().expect("as many inputs as the case has")
}

fn len(shape: [usize; 4]) -> usize {
    shape.iter().product()
}

fn sizes(shape: [usize; 4]) -> String {
    shape.map(|size| size.to_string()).join("x")
}

/// What a name says of a precision.
fn suffix(precision: Precision) -> String {
    if precision == Precision::F32 { String::new() } else { format!(" {precision}") }
}

fn with_relu(relu: bool) -> &'static str {
    if relu { ", ReLU" } else { "" }
}

/// Near `level`, different in every channel.
fn wave(channels: usize, level: f32) -> Vec<f32> {
    (0..channels).map(|channel| level * (1.0 + 0.5 * (channel as f32).sin())).collect()
}

/// Noise that makes no output so near zero that rounding decides what a ReLU does with it. Its mean
/// is far from zero too, so that an error relative to it says something.
fn clear_of_zero(len: usize, output: impl Fn(&[f32]) -> Vec<f64>) -> Vec<f32> {
    let drawn = |seed| noise(len, seed).iter().map(|value| value + 0.5).collect::<Vec<_>>();
    let clear = |x: &Vec<f32>| output(x).iter().all(|output| output.abs() > 1e-5);
    (1..).map(drawn).find(clear).expect("most noise is")
}

fn milliseconds(start: Instant) -> f64 {
    1000.0 * start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
