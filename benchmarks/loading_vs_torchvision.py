#!/usr/bin/env python3
"""How fast a folder of pictures becomes training batches, in Kiln and in torchvision.

    cargo build --release -p kiln-data --example loading
    python3 benchmarks/loading_vs_torchvision.py PHOTOS [--rounds 3] [--workers 2]

PHOTOS is a folder with a folder for each class. Both decode every picture, cut a random part of it (area 0.08 to 1), resize it
to 224 pixels, mirror half of them, normalize, and make batches of 64. They take turns, once each a round; a round counts its
second epoch, when the files are in the system's cache and torchvision's workers are there. Without PHOTOS, 2,000 JPEGs of
500 x 375 are drawn first. Needs torch, torchvision and numpy.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import torch
import torchvision
from PIL import Image
from torchvision import transforms

BATCH = 64


def draw(folder, count=2000):
    """Smooth shapes with grain, of which a JPEG of quality 88 takes as many bytes as of a photograph: about 65 KB."""
    random = numpy.random.default_rng(0)
    for index in range(count):
        small = random.integers(0, 256, (32, 32, 3), dtype=numpy.uint8)
        picture = numpy.asarray(Image.fromarray(small).resize((500, 375), Image.BICUBIC)).astype(numpy.int16)
        picture = picture + random.normal(0, 9, picture.shape)
        path = folder / ("a" if index % 2 else "b") / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(numpy.uint8)).save(path, quality=88)


def torch_rate(loader):
    started = time.perf_counter()
    images = sum(len(labels) for _, labels in loader)
    return images / (time.perf_counter() - started)


def kiln_rate(program, photos):
    command = [program, str(photos), "--batch", str(BATCH), "--epochs", "2"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])["images_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--program", default="target/release/examples/loading")
    arguments = parser.parse_args()
    scratch = tempfile.TemporaryDirectory()
    photos = arguments.photos
    if photos is None:
        photos = pathlib.Path(scratch.name)
        draw(photos)

    transform = transforms.Compose([
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])
    torch.set_num_threads(1)
    pictures = torchvision.datasets.ImageFolder(photos, transform)
    loader = torch.utils.data.DataLoader(
        pictures, BATCH, shuffle=True, num_workers=arguments.workers, persistent_workers=True
    )
    rates = {"kiln": [], "torchvision": []}
    torch_rate(loader)
    for _ in range(arguments.rounds):
        rates["kiln"].append(kiln_rate(arguments.program, photos))
        rates["torchvision"].append(torch_rate(loader))
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    ratio = round(medians["kiln"] / medians["torchvision"], 2)
    print(json.dumps({
        "images": len(pictures), "workers": arguments.workers, "images_per_second": medians, "ratio": ratio, "rounds": rates,
        "torchvision": torchvision.__version__, "pillow": Image.__version__,
    }))


if __name__ == "__main__":
    sys.exit(main())
