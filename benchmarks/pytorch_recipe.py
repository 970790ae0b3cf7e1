"""Trains what a Kiln recipe describes in PyTorch, on the same folder of images: time and accuracy beside Kiln's.

    python3 benchmarks/pytorch_recipe.py crates/train/recipes/compact-plain.toml FOLDER [--epochs N] [--seed N]
        [--output benchmarks/results/NAME.json]

FOLDER holds train/<class>/* and test/<class>/*, all images of one size. Network, initialisation, batches,
optimizer, schedule, label smoothing, crop and mirror images are the recipe's; a field of it that this script
does not have and that is switched on is an error. float32 on the CPU, or bf16 autocast where the recipe says
bf16. As many images are left out as Kiln keeps for validation; the last epoch's weights are tested, once.

Prints an epoch a line and at the end one JSON line: test accuracy with n, times (training only, and with
reading the files), options, machine, version; --output writes it as well.
"""

import argparse
import json
import math
import os
import sys
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F

from train_vs_pytorch import machine  # also puts tests/parity on the path

from load_bundle import accuracy, normalised, read_folder  # noqa: E402
from make_fixtures import Architecture, VitArchitecture  # noqa: E402


def refuse_what_is_missing(recipe):
    training, augment = recipe["training"], recipe["augment"]
    missing = {
        "model.init": recipe["model"].get("init") == "whitening",
        "training.micro_batches": training["micro_batches"] != 1,
        "training.clip_norm": training["clip_norm"] > 0,
        "training.ema_decay": training["ema_decay"] > 0,
        "training.precision": training["precision"] == "f16",
        "training.class_weights": training.get("class_weights", "none") != "none",
        "training.sampling": training.get("sampling", "shuffled") != "shuffled",
        "training.freeze": training.get("freeze", "none") != "none",
        "optimizer.head_lr_factor": recipe["optimizer"].get("head_lr_factor", 1) != 1,
        "optimizer.layer_decay": recipe["optimizer"].get("layer_decay", 1) != 1,
        "augment.cutout": augment["cutout"] > 0,
        "augment.final_share": augment["final_share"] > 0,
        "augment.affine": augment["affine"]["chance"] > 0,
        "augment.color": any(augment["color"].values()),
        "augment.mix": augment["mix"]["mixup_chance"] > 0 or augment["mix"]["cutmix_chance"] > 0,
    }
    used = [name for name, is_used in missing.items() if is_used]
    if used:
        sys.exit(f"{recipe['name']}: this script does not have {', '.join(used)}")


def network(recipe, classes, image_size):
    model = recipe["model"]
    if model["preset"] == "vit-tiny":
        net = VitArchitecture(image_size, model["patch"], model["width"], model["depth"], model["heads"], classes).build()
        for name, parameter in net.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(parameter)
        return net
    compact = model["preset"] == "resnet18-compact"
    depth = 18 if compact else int(model["preset"].removeprefix("resnet"))
    net = Architecture(
        depth, model["width"], "cifar" if compact else model["stem"], model["norm"], model["groups"],
        "projection" if compact else "projection_norm", "conv" if compact else "linear", classes,
    ).build()
    # As crates/model/src/init.rs draws them.
    mode = model["init"].removeprefix("kaiming_")
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
    if mode == "fan_in":
        torch.nn.init.kaiming_normal_(net.fc.weight, mode=mode, nonlinearity="relu")
    else:
        torch.nn.init.normal_(net.fc.weight, std=0.01)
    for bias in (net.fc.bias, net.conv1.bias):
        if bias is not None:
            torch.nn.init.zeros_(bias)
    return net


def optimizer_of(recipe, net):
    options = recipe["optimizer"]
    decayed = [p for p in net.parameters() if p.dim() > 1 or options["decay_norms_and_biases"]]
    others = [p for p in net.parameters() if p.dim() == 1 and not options["decay_norms_and_biases"]]
    groups = [{"params": decayed, "weight_decay": options["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]], lr=options["lr"], momentum=options["momentum"],
        nesterov=options["nesterov"],
    )


def factor(schedule, step, total):
    """Of the rate at `step` of `total`, as crates/train/src/schedule.rs has it."""
    warmup = round(schedule["warmup"] * total)
    if step < warmup:
        return schedule["start_factor"] + (1 - schedule["start_factor"]) * step / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    span = 1 - schedule["final_factor"]
    match schedule["kind"]:
        case "constant":
            return 1.0
        case "cosine":
            return schedule["final_factor"] + span * 0.5 * (1 + math.cos(math.pi * progress))
        case "one_cycle":
            return 1 - span * progress
        case "multi_step":
            return schedule["gamma"] ** sum(step >= round(share * total) for share in schedule["milestones"])
    raise ValueError(f"no schedule is called {schedule['kind']}")


def augmented(images, mirrored, padding, generator):
    """Random crop of the padded image, then mirror images where `mirrored` [N] says so. [N,3,H,W] -> the same shape."""
    count, channels, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    top, left = (torch.randint(2 * padding + 1, (count, 1), generator=generator) for _ in range(2))
    rows = top + torch.arange(height)  # [N,H]
    columns = left + torch.arange(width)  # [N,W]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    index = torch.arange(count)
    return padded[index[:, None, None, None], torch.arange(channels)[:, None, None],
                  rows[:, None, :, None], columns[:, None, None, :]]


def train(net, images, labels, mean, std, recipe, epochs, seed):
    """Trains `net` in place and returns the seconds of each epoch."""
    training, augment = recipe["training"], recipe["augment"]
    optimizer = optimizer_of(recipe, net)
    generator = torch.Generator().manual_seed(seed)
    size = training["batch_size"]
    batches = len(labels) // size
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: factor(recipe["schedule"], step, epochs * batches))
    # Kiln's alternating flip: half of the images in even epochs, the other half in odd ones.
    first_half = torch.rand(len(labels), generator=generator) < 0.5
    seconds = []
    for epoch in range(epochs):
        start, loss_sum = time.perf_counter(), 0.0
        order = torch.randperm(len(labels), generator=generator)
        mirrored = {
            "none": torch.zeros(len(labels), dtype=torch.bool),
            "random": torch.rand(len(labels), generator=generator) < augment["flip_chance"],
            "alternating": first_half ^ (epoch % 2 == 1),
        }[augment["flip"]]
        net.train()
        for batch in order[: batches * size].split(size):
            # Padded before it is normalised, as Kiln does it.
            inputs = augmented(images[batch], mirrored[batch], augment["crop_padding"], generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=training["precision"] == "bf16"):
                logits = net(normalised(inputs, mean, std))
            loss = F.cross_entropy(logits.float(), labels[batch], label_smoothing=training["label_smoothing"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item()
        seconds.append(time.perf_counter() - start)
        rate = batches * size / seconds[-1]
        print(f"epoch {epoch + 1:3}/{epochs}   {seconds[-1]:6.1f} s   {rate:7.0f} images/s   "
              f"train loss {loss_sum / batches:.4f}", flush=True)
    return seconds


def main():
    parser = argparse.ArgumentParser(description="Trains a Kiln recipe in PyTorch.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--limit", type=int, help="images of each split, spread over the classes")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    recipe = tomllib.loads(args.recipe.read_text())
    if "base" in recipe:
        sys.exit(f"{args.recipe} has a base: print the whole recipe with kiln recipes {recipe['name']}, and pass that file")
    refuse_what_is_missing(recipe)
    epochs = args.epochs or recipe["training"]["epochs"]
    seed = recipe["training"]["seed"] if args.seed is None else args.seed
    start = time.perf_counter()
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(seed)
    images, labels, classes = read_folder(args.folder / "train", limit=args.limit)
    mean, std = (getattr(images.float() / 255, name)((0, 2, 3)).tolist() for name in ("mean", "std"))
    kept = torch.randperm(len(labels))[round(recipe["training"]["validation"] * len(labels)):]
    images, labels = images[kept], labels[kept]
    if len(labels) < recipe["training"]["batch_size"]:
        sys.exit(f"{len(labels)} training images do not fill one batch of {recipe['training']['batch_size']}")
    net = network(recipe, len(classes), images.shape[-1])
    seconds = train(net, images, labels, mean, std, recipe, epochs, seed)

    images, labels, _ = read_folder(args.folder / "test", classes, args.limit)
    result = {
        "recipe": recipe["name"],
        "test_accuracy": accuracy(net.eval(), images, labels, mean, std),
        "n": len(labels),
        "epochs": epochs,
        "seed": seed,
        "train_images": len(kept),
        "train_seconds": sum(seconds),
        "total_seconds": time.perf_counter() - start,
        "machine": machine("cpu"),
        "torch": torch.__version__,
    }
    print(json.dumps(result))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
