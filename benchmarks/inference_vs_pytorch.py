"""Times images through ResNet-18, Kiln, PyTorch and, if asked, onnxruntime in turn, in one run on one machine.

    python3 benchmarks/inference_vs_pytorch.py [--device cpu|cuda] [--compile] [--channels-last] [--tf32] [--bf16]
        [--onnxruntime] [--output benchmarks/results/NAME.json]

Batches (one image unless --batch says otherwise) of 32x32 pixels, in evaluation mode, from numbers in memory to logits
in memory: all sides upload the image and read the answer back. Kiln's figures are the last line of

    kiln bench inference --width W --batch B --runs N --json [--kiln-args]

for the plan that the page runs. As that has its batch norms folded in, so have the others' models. onnxruntime, on the
CPU in f32, needs the packages onnxruntime and onnx. All are warmed up, and each round starts with another side.
"""

import argparse
import functools
import json
import os
import shlex
import statistics
import time

import torch

from train_vs_pytorch import add_options, forward_of, kiln, memory_format, report, say, set_up

from make_fixtures import Architecture, ResNet  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval

WARMUP_RUNS = 10


def folded(model):
    """Batch norms folded into the convolutions before them, which stand next to them in every module."""
    for module in list(model.modules()):
        names = list(module._modules)
        for first, second in zip(names, names[1:]):
            conv, norm = module._modules[first], module._modules[second]
            if isinstance(conv, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                module._modules[first] = fuse_conv_bn_eval(conv, norm)
                module._modules[second] = torch.nn.Identity()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    return model


@torch.inference_mode()
def pytorch_milliseconds(width, args):
    torch.manual_seed(0)
    model = folded(ResNet(Architecture(18, width)).eval()).to(args.device, memory_format=memory_format(args))
    forward = forward_of(model, args)
    image = torch.randn(args.batch, 3, 32, 32)
    return milliseconds(lambda: forward(image.to(args.device, memory_format=memory_format(args))).cpu(), args)


@functools.cache
def onnxruntime_session(width):
    import onnxruntime
    from make_onnx import model_of

    torch.manual_seed(0)
    state = {name: values.numpy() for name, values in ResNet(Architecture(18, width)).eval().state_dict().items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    return onnxruntime.InferenceSession(
        model_of(state, 32, 10).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def onnxruntime_milliseconds(width, args):
    session = onnxruntime_session(width)
    image = torch.randn(args.batch, 3, 32, 32).numpy()
    return milliseconds(lambda: session.run(["logits"], {"images": image}), args)


def milliseconds(run, args):
    times = []
    for _ in range(WARMUP_RUNS + args.runs):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    times = sorted(times[WARMUP_RUNS:])
    return {"p50": times[len(times) // 2], "p90": times[len(times) * 9 // 10]}


def kiln_milliseconds(width, args):
    arguments = ("--width", width, "--batch", args.batch, "--runs", args.runs, "--json")
    return json.loads(kiln(args, "bench", "inference", *arguments, *shlex.split(args.kiln_args)))["milliseconds"]["plan"]


def compare(width, args):
    rounds = []
    say(args, f"width {width}, batch {args.batch}, {args.runs} runs: ms")
    sides = {"kiln": kiln_milliseconds, "pytorch": pytorch_milliseconds}
    if args.onnxruntime:
        sides["onnxruntime"] = onnxruntime_milliseconds
    names = list(sides)
    for number in range(args.rounds):
        first = number % len(names)
        rounds.append({side: sides[side](width, args) for side in names[first:] + names[:first]})
        of = ["{} {p50:.2f} / {p90:.2f}".format(side, **rounds[-1][side]) for side in names]
        say(args, f"  round {number + 1}   p50 / p90   {'   '.join(of)}")
    median = {side: statistics.median(r[side]["p50"] for r in rounds) for side in names}
    return {"width": width, "batch": args.batch, "runs": args.runs, "n": args.rounds, "median_p50_ms": median, "rounds": rounds}


def main():
    parser = argparse.ArgumentParser(description="Times Kiln's inference beside PyTorch's and onnxruntime's.")
    add_options(parser)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--onnxruntime", action="store_true", help="a third side, on the CPU")
    args = parser.parse_args()
    set_up(args)
    report(args, [compare(width, args) for width in args.widths])


if __name__ == "__main__":
    main()
