"""Times a training step of Kiln and of PyTorch, turn about, in one run on one machine.

    python3 benchmarks/train_vs_pytorch.py [--device cpu|cuda] [--compile] [--channels-last] [--tf32] [--bf16]
        [--image-size 224] [--output benchmarks/results/NAME.json]

Both train the same ResNet-18, with CIFAR's stem or, for images of 64 pixels or more, ImageNet's, on the same random batch: forward, cross-entropy, backward, SGD
with Nesterov momentum, float32, every core. PyTorch runs eagerly, in its default memory format and
without TF32, unless --compile, --channels-last, --tf32 or --bf16 (autocast) say otherwise. Kiln's figure is what

    kiln bench train-step --width W --batch B --steps N --json [--kiln-args]

writes as the last line of its stdout: {"images_per_second": .., ..}. Both sides warm up before the
clock starts; in odd rounds Kiln goes second. Prints each round and the medians; --output keeps all
of it with machine and versions, --json prints that instead.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))
from make_fixtures import Architecture, ResNet  # noqa: E402

WARMUP_STEPS = 3


def machine(device):
    """What a figure needs beside it to mean anything."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    found = {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system(), "device": device}
    return found | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def versions(args):
    found = {"kiln": kiln(args, "--version"), "torch": torch.__version__, "python": platform.python_version()}
    if getattr(args, "onnxruntime", False):
        found["onnxruntime"] = importlib.metadata.version("onnxruntime")
    if args.device == "cuda":
        driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                                capture_output=True, text=True).stdout.strip()
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": driver}
    return found


def add_options(parser):
    """What every comparison with PyTorch can be told."""
    parser.add_argument("--kiln", default="target/release/kiln", help="the binary")
    parser.add_argument("--kiln-args", default="", help="more arguments for `kiln bench`")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="PyTorch's device")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's memory format")
    parser.add_argument("--tf32", action="store_true", help="PyTorch's matrix units round f32 to 10 bits")
    parser.add_argument("--bf16", action="store_true", help="autocast of PyTorch's forward pass")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--json", action="store_true", help="print the report alone, progress on stderr")


def set_up(args):
    torch.set_num_threads(os.cpu_count())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32


def memory_format(args):
    return torch.channels_last if args.channels_last else torch.contiguous_format


def forward_of(model, args):
    """The model as the options run it: images -> float32 logits."""
    model = torch.compile(model) if args.compile else model

    def forward(images):
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            return model(images).float()

    return forward


def say(args, *words):
    print(*words, flush=True, file=sys.stderr if args.json else sys.stdout)


def report(args, results):
    """Everything that a figure needs beside it, to --output and with --json to stdout."""
    text = json.dumps({
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(args.device),
        "versions": versions(args),
        "pytorch": {key: getattr(args, key) for key in ("compile", "channels_last", "tf32", "bf16")},
        "kiln_args": args.kiln_args,
        "results": results,
    }, indent=2)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")
    if args.json:
        print(text)


def pytorch_images_per_second(width, args):
    torch.manual_seed(0)
    layout = memory_format(args)
    stem = "imagenet" if args.image_size >= 64 else "cifar"  # as `kiln bench` does
    model = ResNet(Architecture(18, width, stem)).to(args.device, memory_format=layout).train()
    forward = forward_of(model, args)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = torch.randn(args.batch, 3, args.image_size, args.image_size).to(args.device, memory_format=layout)
    labels = torch.randint(10, (args.batch,)).to(args.device)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            loss = F.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
        return loss.item()  # waits for the device

    steps(WARMUP_STEPS)
    start = time.perf_counter()
    steps(args.steps)
    return args.batch * args.steps / (time.perf_counter() - start)


def kiln(args, *arguments):
    """Runs the binary; the last line of its stdout."""
    command = [args.kiln, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"cannot run {args.kiln}: {error.strerror}. Build it: cargo build --release")
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise SystemExit(f"`{shlex.join(command)}` failed with code {done.returncode}:\n{done.stderr.strip()}")
    return lines[-1]


def kiln_bench(width, args):
    """The bench's JSON object."""
    bench = ("--width", width, "--batch", args.batch, "--image-size", args.image_size, "--steps", args.steps, "--json")
    return json.loads(kiln(args, "bench", "train-step", *bench, *shlex.split(args.kiln_args)))


def compare(width, args):
    rounds = []
    say(args, f"width {width}, batch {args.batch}, {args.image_size} pixels, {args.steps} steps: images/s")
    for number in range(args.rounds):
        sides = {"kiln": lambda: kiln_bench(width, args), "pytorch": lambda: pytorch_images_per_second(width, args)}
        measured = {side: sides[side]() for side in sorted(sides, reverse=number % 2 == 1)}
        ours, theirs = measured["kiln"]["images_per_second"], measured["pytorch"]
        rounds.append({"kiln": ours, "pytorch": theirs, "ratio": ours / theirs, "kiln_bench": measured["kiln"]})
        say(args, f"  round {number + 1}   kiln {ours:9.1f}   pytorch {theirs:9.1f}   ratio {ours / theirs:.3f}")
    median = {key: statistics.median(r[key] for r in rounds) for key in ("kiln", "pytorch", "ratio")}
    say(args, "  median    kiln {kiln:9.1f}   pytorch {pytorch:9.1f}   ratio {ratio:.3f}".format(**median))
    return {"width": width, "batch": args.batch, "image_size": args.image_size, "steps": args.steps, "n": args.rounds, "median": median, "rounds": rounds}


def main():
    parser = argparse.ArgumentParser(description="Times Kiln's and PyTorch's training step side by side.")
    add_options(parser)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    set_up(args)
    report(args, [compare(width, args) for width in args.widths])


if __name__ == "__main__":
    main()
