#!/usr/bin/env python3
"""Writes a Kiln bundle of basic blocks as ONNX, batch norm folded, for onnxruntime.

    python3 benchmarks/make_onnx.py runs/quick-1/model.safetensors model.onnx

Needs numpy, safetensors and onnx.
"""

import json
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

EPSILON = 1e-5


def model_of(state, size, classes):
    """An ONNX model `images [N, 3, size, size] -> logits [N, classes]`; `state` holds arrays by torchvision's names."""
    nodes, constants = [], []

    def constant(name, values):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def conv(x, name, norm, stride, relu=False):
        weight = state[f"{name}.weight"]
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + np.float32(EPSILON))
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        inputs = [x, constant(f"{name}.w", weight * scale[:, None, None, None]), constant(f"{name}.b", bias)]
        kernel = weight.shape[2]
        nodes.append(
            helper.make_node(
                "Conv", inputs, [name], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4
            )
        )
        return activate(name) if relu else name

    def activate(x):
        nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"]))
        return f"{x}.relu"

    x = conv("images", "conv1", "bn1", 1, relu=True)
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            name = f"layer{stage}.{block}"
            stride = 2 if block == 0 and stage > 1 else 1
            y = conv(x, f"{name}.conv1", f"{name}.bn1", stride, relu=True)
            y = conv(y, f"{name}.conv2", f"{name}.bn2", 1)
            if f"{name}.downsample.0.weight" in state:
                x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            nodes.append(helper.make_node("Add", [y, x], [f"{name}.sum"]))
            x = activate(f"{name}.sum")
            block += 1
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    head = ["features", constant("fc.w", state["fc.weight"]), constant("fc.b", state["fc.bias"])]
    nodes.append(helper.make_node("Gemm", head, ["logits"], transB=1))

    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])
    graph = helper.make_graph(nodes, "resnet", [images], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def main(bundle, output):
    with safe_open(bundle, "numpy") as file:
        metadata = json.loads(file.metadata()["kiln"])["contents"]
        state = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    onnx.save(model_of(state, metadata["image_size"], len(metadata["classes"])), output)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
