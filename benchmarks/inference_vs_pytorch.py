"""Times one image through a CIFAR ResNet-18: Kiln's plan, burn's module and PyTorch, turn about.

    python3 benchmarks/inference_vs_pytorch.py [--width 64] [--rounds 3] [--runs 50] [--output NAME.json]

CPU, float32, every core. Kiln's figures are those of `kiln bench inference --json`. Prints the
medians of the rounds' p50 and p90.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "parity"))
sys.dont_write_bytecode = True
from make_fixtures import Architecture, ResNet  # noqa: E402


def quantiles(times):
    times = sorted(times)
    return {"p50": times[len(times) // 2], "p90": times[int(0.9 * (len(times) - 1))]}


def pytorch(width, runs):
    model = ResNet(Architecture(18, width)).eval()
    image = torch.randn(1, 3, 32, 32)
    times = []
    with torch.inference_mode():
        for _ in range(3 + runs):
            start = time.perf_counter()
            model(image)
            times.append(1000 * (time.perf_counter() - start))
    return quantiles(times[3:])


def kiln(width, runs):
    command = [ROOT / "target/release/kiln", "bench", "inference", "--device", "cpu", "--json"]
    command += ["--width", str(width), "--runs", str(runs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["milliseconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rounds = []
    for number in range(args.rounds):
        peers = [lambda: kiln(args.width, args.runs), lambda: {"pytorch": pytorch(args.width, args.runs)}]
        times = {}
        for peer in peers if number % 2 == 0 else reversed(peers):
            times |= peer()
        rounds.append(times)
        print(f"round {number + 1}: {json.dumps(times)}", file=sys.stderr)
    medians = {
        name: {key: round(statistics.median(times[name][key] for times in rounds), 2) for key in ("p50", "p90")}
        for name in ("plan", "burn", "pytorch")
    }
    result = {
        "command": "benchmarks/inference_vs_pytorch.py " + " ".join(sys.argv[1:]),
        "date": date.today().isoformat(),
        "cpu": next((line.split(": ")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "unknown"),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "milliseconds": medians,
        "pytorch_over_plan": round(medians["pytorch"]["p50"] / medians["plan"]["p50"], 2),
    }
    print(json.dumps(result, indent=2))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
