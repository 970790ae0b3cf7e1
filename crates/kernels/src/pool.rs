use burn::tensor::Tensor;

/// Mean over each map: `[N, C, H, W]` -> `[N, C]`.
pub fn global_average_pool(x: Tensor<4>) -> Tensor<2> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c, h * w]).mean_dim(2).reshape([n, c])
}
