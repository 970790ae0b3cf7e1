"""Times images through ResNet-18, Kiln and PyTorch in turn, in one run on one machine.

    python3 benchmarks/inference_vs_pytorch.py [--device cpu|cuda] [--compile] [--channels-last] [--tf32] [--bf16]
        [--output benchmarks/results/NAME.json]

Batches (one image unless --batch says otherwise) of 32x32 pixels, in evaluation mode, from numbers in memory to logits in memory: both sides
upload the image and read the answer back. Kiln's figures are the last line of

    kiln bench inference --width W --batch B --runs N --json [--kiln-args]

for the plan that the page runs. As that has its batch norms folded in, so has PyTorch's model. Both
are warmed up; in odd rounds Kiln goes second.
"""

import argparse
import json
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
    times = []
    for run in range(WARMUP_RUNS + args.runs):
        start = time.perf_counter()
        forward(image.to(args.device, memory_format=memory_format(args))).cpu()
        times.append(1000 * (time.perf_counter() - start))
    times = sorted(times[WARMUP_RUNS:])
    return {"p50": times[len(times) // 2], "p90": times[len(times) * 9 // 10]}


def kiln_milliseconds(width, args):
    arguments = ("--width", width, "--batch", args.batch, "--runs", args.runs, "--json")
    return json.loads(kiln(args, "bench", "inference", *arguments, *shlex.split(args.kiln_args)))["milliseconds"]["plan"]


def compare(width, args):
    rounds = []
    say(args, f"width {width}, batch {args.batch}, {args.runs} runs: ms")
    for number in range(args.rounds):
        sides = {"kiln": kiln_milliseconds, "pytorch": pytorch_milliseconds}
        rounds.append({side: sides[side](width, args) for side in sorted(sides, reverse=number % 2 == 1)})
        of = {side: "{p50:.2f} / {p90:.2f}".format(**times) for side, times in rounds[-1].items()}
        say(args, f"  round {number + 1}   kiln p50 / p90 {of['kiln']}   pytorch {of['pytorch']}")
    median = {side: statistics.median(r[side]["p50"] for r in rounds) for side in ("kiln", "pytorch")}
    return {"width": width, "batch": args.batch, "runs": args.runs, "n": args.rounds, "median_p50_ms": median, "rounds": rounds}


def main():
    parser = argparse.ArgumentParser(description="Times Kiln's and PyTorch's inference side by side.")
    add_options(parser)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()
    set_up(args)
    report(args, [compare(width, args) for width in args.widths])


if __name__ == "__main__":
    main()
