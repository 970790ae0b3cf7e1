"""PyTorch's side of Kiln's `quick` recipe: a narrow CIFAR ResNet-18 trained on an image folder.

    python3 benchmarks/pytorch_quick.py FOLDER [--epochs 10] [--output benchmarks/results/NAME.json]

FOLDER holds train/<class>/* and test/<class>/*, all images of one size. Crop with padding 4 and flip
on every training image, SGD with Nesterov momentum, weight decay on every parameter, a one-cycle
rate (linear up to --lr at --peak of the run, linear down to 0), label smoothing, float32 on the
CPU. Whole batches only. Nothing is chosen on the test set: it is read once, after the last epoch.

Prints an epoch a line and at the end one JSON line: test accuracy with n, times (training only and
with reading the files), options, machine, version; --output writes it as well.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from train_vs_pytorch import machine  # also puts tests/parity on the path

from load_bundle import accuracy, normalised, read_folder  # noqa: E402
from make_fixtures import Architecture, ResNet  # noqa: E402

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # CIFAR-10's


def augmented(images, generator, padding=4):
    """Random crop of the padded image and horizontal flip. [N,3,H,W] -> the same shape."""
    count, channels, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    top, left = (torch.randint(2 * padding + 1, (count, 1), generator=generator) for _ in range(2))
    rows = top + torch.arange(height)  # [N,H]
    columns = left + torch.arange(width)  # [N,W]
    flip = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    index = torch.arange(count)
    return padded[index[:, None, None, None], torch.arange(channels)[:, None, None],
                  rows[:, None, :, None], columns[:, None, None, :]]


def one_cycle(step, total, peak):
    """Factor of the peak rate at `step` of `total`: linear from 0 to 1 at `peak` * total, then to 0."""
    at = (step + 1) / (total + 1)
    return at / peak if at < peak else (1 - at) / (1 - peak)


def train(model, images, labels, args):
    """Trains `model` in place and returns the seconds of each epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, nesterov=True,
                                weight_decay=args.weight_decay)
    generator = torch.Generator().manual_seed(args.seed)
    batches = len(labels) // args.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: one_cycle(step, args.epochs * batches, args.peak))
    seconds = []
    for epoch in range(args.epochs):
        start, loss_sum = time.perf_counter(), 0.0
        order = torch.randperm(len(labels), generator=generator)
        model.train()
        for batch in order[: batches * args.batch].split(args.batch):
            # Normalised first, so that the crop's border is the mean colour.
            inputs = augmented(normalised(images[batch], MEAN, STD), generator)
            loss = F.cross_entropy(model(inputs), labels[batch], label_smoothing=args.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item()
        seconds.append(time.perf_counter() - start)
        rate = batches * args.batch / seconds[-1]
        print(f"epoch {epoch + 1:3}/{args.epochs}   {seconds[-1]:6.1f} s   {rate:7.0f} images/s   "
              f"train loss {loss_sum / batches:.4f}", flush=True)
    return seconds


def main():
    parser = argparse.ArgumentParser(description="Trains a narrow ResNet-18 in PyTorch.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.2, help="the peak of the one-cycle")
    parser.add_argument("--peak", type=float, default=0.3, help="where in the run the peak is, above 0 and below 1")
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="images of each split, spread over the classes")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    start = time.perf_counter()
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(args.seed)
    images, labels, classes = read_folder(args.folder / "train", limit=args.limit)
    if len(labels) < args.batch:
        sys.exit(f"{len(labels)} training images do not fill one batch of {args.batch}")
    model = ResNet(Architecture(18, args.width, classes=len(classes)))
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    seconds = train(model, images, labels, args)

    images, labels, _ = read_folder(args.folder / "test", classes, args.limit)
    result = {
        "test_accuracy": accuracy(model.eval(), images, labels, MEAN, STD),
        "n": len(labels),
        "train_seconds": sum(seconds),
        "total_seconds": time.perf_counter() - start,
        "options": {k: v for k, v in vars(args).items() if k not in ("folder", "output")},
        "machine": machine("cpu"),
        "torch": torch.__version__,
    }
    print(json.dumps(result))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
