#!/usr/bin/env python3
"""Compares Kiln with PyTorch and onnxruntime in both directions, from a file and a picture to the logits.

    python3 tests/convert/check.py target/release/kiln [resnet18 resnet34 resnet50]

Needs torch, torchvision, onnx, onnxruntime, safetensors and pillow. Weights and statistics are random with seeds, and the
20 pictures are drawn here. Prints a line a check, with the largest difference relative to the largest logit, and ends with 1
if one is above its limit.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms import functional as F

KILN = os.path.abspath(sys.argv[1])
NAMES = sys.argv[2:] or ["resnet18", "resnet34", "resnet50"]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CIFAR = [[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]]
SIZES = [(480, 320), (320, 480), (640, 427), (224, 224), (256, 256), (300, 200), (1000, 700), (257, 255), (400, 225), (225, 400)]
failures = []


def kiln(*arguments):
    result = subprocess.run([KILN, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"kiln {' '.join(map(str, arguments))}: {result.stderr}")
    return result.stdout


def logits_of_kiln(model, pictures):
    lines = kiln("predict", "--json", "--model", model, *pictures).splitlines()
    return np.array([json.loads(line)["logits"] for line in lines])


def check(what, found, expected, limit):
    difference = np.abs(np.asarray(found) - np.asarray(expected)).max() / np.abs(expected).max()
    is_good = found.shape == expected.shape and difference <= limit
    print(f"{what:<58} {difference:.1e}  {'ok' if is_good else f'ABOVE {limit:.0e}'}", flush=True)
    if not is_good:
        failures.append(what)


def draw(folder, ending, sizes=SIZES, count=20):
    """Smooth shapes and some noise, so that a wrong resize shows."""
    random, paths = np.random.default_rng(0), []
    for index in range(count):
        width, height = sizes[index % len(sizes)]
        x, y = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
        waves = [np.sin(6 * x * (index + 1) + 3 * y), np.cos(9 * y * (index + 1) - x), np.sin(20 * x * y + index)]
        pixels = np.stack(waves, -1) * 110 + 128 + random.normal(0, 8, (height, width, 3))
        paths.append(os.path.join(folder, f"{index}.{ending}"))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def randomize(model):
    """Statistics and norms away from the identity, as training leaves them."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return model.eval()


def to_input(path, resize=256, crop=224, mode="bilinear"):
    image = Image.open(path).convert("RGB")
    mode = torchvision.transforms.InterpolationMode(mode)
    return F.normalize(F.to_tensor(F.center_crop(F.resize(image, resize, mode), crop)), MEAN, STD)


def forms(name, model, folder):
    """The model in the files that people have: path, and the state dict that it holds."""
    state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    cast = lambda kind: {k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}
    path = lambda ending: os.path.join(folder, name + ending)
    files = {".safetensors": state, "-f16.safetensors": cast(torch.float16), "-bf16.safetensors": cast(torch.bfloat16)}
    for ending, contents in files.items():
        save_file(contents, path(ending))
        yield path(ending), contents
    save_file({f"module.{key}": value for key, value in state.items()}, path("-module.safetensors"))
    torch.save(state, path(".pth"))
    torch.save(state, path("-legacy.pth"), _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"lr": 0.1}}, path("-wrapped.pth"))
    lightning = {"state_dict": {f"model.{k}": v for k, v in state.items()}, "pytorch-lightning_version": "2.0"}
    torch.save(lightning, path("-lightning.ckpt"))
    channels_last = {k: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in state.items()}
    torch.save(channels_last, path("-channels-last.pth"))
    torch.save(model, path("-whole-model.pt"))
    example = (torch.zeros(1, 3, 224, 224),)
    for folded in [True, False]:
        training = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
        ending = ".onnx" if folded else "-unfolded.onnx"
        torch.onnx.export(model, example, path(ending), dynamo=False, training=training, do_constant_folding=folded)
    for ending in ["-module.safetensors", ".pth", "-legacy.pth", "-wrapped.pth", "-lightning.ckpt", "-channels-last.pth",
                   "-whole-model.pt", ".onnx", "-unfolded.onnx"]:
        yield path(ending), state


def imports(name, folder, pictures):
    torch.manual_seed(0)
    model = randomize(getattr(torchvision.models, name)(weights=None))
    inputs = torch.stack([to_input(path) for path in pictures])
    for path, contents in forms(name, model, folder):
        other = randomize(getattr(torchvision.models, name)(weights=None))
        other.load_state_dict({key: value.float() for key, value in contents.items()})
        with torch.no_grad():
            expected = other(inputs).numpy()
        output = path + ".kiln"
        kiln("import", path, "-o", output, "--force")
        check(f"import {os.path.basename(path)}", logits_of_kiln(output, pictures), expected, 1e-4)
    check(f"predict --model {name}.pth", logits_of_kiln(os.path.join(folder, f"{name}.pth"), pictures), expected, 1e-4)
    return os.path.join(folder, f"{name}.safetensors.kiln")


def peak(*arguments):
    """Largest resident memory of a call of kiln, in bytes."""
    program = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
               "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    result = subprocess.run([sys.executable, "-c", program, KILN, *arguments], capture_output=True, text=True, check=True)
    return int(result.stdout) * 1024


def peak_memory(folder, name):
    program = peak("--version")
    for ending in [".safetensors", "-f16.safetensors", ".pth", "-legacy.pth", ".onnx"]:
        path = os.path.join(folder, name + ending)
        size, total = os.path.getsize(path), peak("import", path, "-o", path + ".kiln", "--force")
        times = (total - program) / size
        print(f"peak memory of importing {os.path.basename(path):<33} {total / size:.2f} times the file, "
              f"{times:.2f} without the program's own {program / 1e6:.0f} MB", flush=True)
        if times >= 3:
            failures.append(f"memory of {path}")


def exports(bundle, folder, pictures, preprocess):
    """What onnxruntime makes of an exported bundle, against Kiln's own answers."""
    expected = logits_of_kiln(bundle, pictures)
    inputs = np.stack([preprocess(path) for path in pictures])
    for flags in [[], ["--unfolded"], ["--softmax"]]:
        path = os.path.join(folder, "exported.onnx")
        result = subprocess.run([KILN, "export", bundle, "--format", "onnx", "--output", path, "--force", *flags], capture_output=True, text=True)
        if "--unfolded" in flags and "batch norm" in result.stderr:
            continue
        if result.returncode != 0:
            raise SystemExit(result.stderr)
        onnx.checker.check_model(onnx.load(path), full_check=True)
        found = onnxruntime.InferenceSession(path).run(None, {"input": inputs.astype(np.float32)})[0]
        wanted = expected
        if flags == ["--softmax"]:
            powers = np.exp(expected - expected.max(1, keepdims=True))
            wanted = powers / powers.sum(1, keepdims=True)
        check(f"onnxruntime {os.path.basename(bundle)} {' '.join(flags)}", found, wanted, 1e-5)


def decoder_and_resize(bundle, name, folder):
    """What JPEG decoders make of the same files, and a bicubic resize of PNG files, whose pixels are the same on both sides."""
    model = getattr(torchvision.models, name)(weights=None)
    model.load_state_dict(load_file(os.path.join(folder, f"{name}.safetensors")))
    model.eval()
    with torch.no_grad():
        expect = lambda paths, **options: model(torch.stack([to_input(path, **options) for path in paths])).numpy()
        photos = draw(folder, "jpg")
        check("20 JPEG files, each side with its own decoder", logits_of_kiln(bundle, photos), expect(photos), 2e-2)
        pictures = draw(folder, "png")
        bicubic = os.path.join(folder, "bicubic.kiln")
        kiln("import", os.path.join(folder, f"{name}.pth"), "-o", bicubic, "--preprocess", "resize=235,crop=224,interpolation=bicubic",
             "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)))
        expected = expect(pictures, resize=235, mode="bicubic")
        check("Resize(235, bicubic)", logits_of_kiln(bicubic, pictures), expected, 1e-4)


def small_networks(folder):
    """Every kind of network, built by what tests/parity compares Kiln with: in from PyTorch, out to onnxruntime."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))
    from make_fixtures import Architecture, VitArchitecture
    common = dict(width=16, stem="cifar", norm="batch", groups=4, shortcut="projection_norm", classes=10)
    of = lambda depth, **other: Architecture(**{**common, "depth": depth, **other})
    networks = {
        "basic": (of(18), []),
        "bottleneck": (of(50), []),
        "compact": (of(18, shortcut="projection"), []),
        "imagenet stem, 10 classes": (of(18, stem="imagenet"), []),
        "group norm": (of(18, norm="group"), ["--groups", 4]),
        "vit": (VitArchitecture(image_size=32, patch=4, width=48, depth=3, heads=3, classes=10), ["--heads", 3]),
    }
    # Pictures of the network's size are not resized by either side.
    pictures = draw(folder, "png", [(32, 32)], 8)
    preprocess = lambda path: F.normalize(F.to_tensor(Image.open(path).convert("RGB")), *CIFAR)
    for name, (architecture, hints) in networks.items():
        torch.manual_seed(1)
        model = randomize(architecture.build())
        path = os.path.join(folder, name.replace(" ", "-").replace(",", "") + ".safetensors")
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
        bundle = path.replace(".safetensors", ".kiln")
        kiln("import", path, "-o", bundle, "--preprocess", "cifar10", *hints)
        with torch.no_grad():
            expected = model(torch.stack([preprocess(picture) for picture in pictures])).numpy()
        check(f"import {name}", logits_of_kiln(bundle, pictures), expected, 1e-4)
        exports(bundle, folder, pictures, lambda picture: preprocess(picture).numpy())
        out = os.path.join(folder, "plain.safetensors")
        kiln("export", bundle, "--format", "pytorch", "--output", out, "--force")
        model.load_state_dict(load_file(out), strict=True)
        if name in ["basic", "bottleneck", "imagenet stem, 10 classes"]:
            subprocess.run([sys.executable, "-c", program_of_the_guide(), out], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([sys.executable, "-c", program_of_the_guide(), bundle], check=True, stdout=subprocess.DEVNULL)
        # int8 weights come out in f32 as what they are.
        small = os.path.join(folder, "small.kiln")
        kiln("export", bundle, "--no-accuracy", "--output", small, "--force")
        exports(small, folder, pictures, lambda picture: preprocess(picture).numpy())


def program_of_the_guide():
    """The program under "In PyTorch", as it stands there."""
    guide = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "guide.md")
    with open(guide, encoding="utf-8") as file:
        return file.read().split("## In PyTorch", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]


def main():
    with tempfile.TemporaryDirectory() as folder:
        pictures = draw(folder, "png")
        for name in NAMES:
            bundle = imports(name, folder, pictures)
            exports(bundle, folder, pictures[:4], lambda path: to_input(path).numpy())
            peak_memory(folder, name)
            if name == NAMES[0]:
                decoder_and_resize(bundle, name, folder)
        small_networks(folder)
    if failures:
        raise SystemExit(f"{len(failures)} checks failed: {', '.join(failures)}")
    print(f"all checks passed; torch {torch.__version__}, torchvision {torchvision.__version__}, onnxruntime {onnxruntime.__version__}")


if __name__ == "__main__":
    main()
