"""Opens a Kiln bundle in PyTorch: proof that its tensors are torchvision's (a transformer's: timm's) by
name and by meaning.

    python3 tests/parity/load_bundle.py model.safetensors [--images FOLDER [--limit N]]

Prints the bundle's metadata (one JSON object: `contents` in the `__metadata__` entry `kiln`), builds
the network that its `architecture` describes and loads the tensors with strict=True: a missing,
additional or misshapen tensor is an error. Weights in int8 are multiplied with their scales first.

With --images, evaluates FOLDER/test/<class>/* (all of one size) as Kiln does: bytes / 255, then the
bundle's `mean` and `std`. Prints one JSON line with accuracy and n.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from make_fixtures import Architecture, VitArchitecture


def read_bundle(path):
    """The network in eval mode, float32, and the bundle's metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("kiln", "{}")).get("contents", {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if "architecture" not in metadata:
        raise SystemExit(f"{path}: no `architecture` in its metadata, so not a Kiln bundle")
    for name in [name for name, tensor in tensors.items() if tensor.dtype == torch.int8]:
        scale = tensors.pop(f"{name}.scale")
        tensors[name] = tensors[name].float() * scale.view(-1, *[1] * (tensors[name].dim() - 1))
    model = architecture(metadata["architecture"]).build()
    model.load_state_dict(tensors, strict=True)
    return model.eval(), metadata


def architecture(kiln):
    """Kiln's description of a network as make_fixtures has it: `shortcut` tells it all of a compact one."""
    if "patch" in kiln:
        return VitArchitecture(**kiln)
    compact = kiln["stem"] == "compact"
    kept = {key: kiln[key] for key in ("depth", "width", "norm", "groups", "shortcut", "classes")}
    return Architecture(stem="cifar" if compact else kiln["stem"], head="conv" if compact else "linear", **kept)


def read_folder(split, classes=None, limit=None):
    """split/<class>/* as (images [N,3,H,W] u8, labels [N] int64, class names), `limit` images spread
    evenly over the classes, in the order of class and file name."""
    found = sorted(p.name for p in split.iterdir() if p.is_dir())
    if not found or not set(found) <= set(classes or found):
        raise SystemExit(f"{split}: expected a folder for each of {classes or 'the classes'}, found {found}")
    classes = classes or found
    images, labels = [], []
    for name in found:
        files = sorted(p for p in (split / name).iterdir() if p.is_file())
        for path in files[: limit and max(1, limit // len(found))]:
            images.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(classes.index(name))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels), classes


def normalized(images, mean, std):
    """[N,3,H,W] u8 -> float32, (bytes / 255 - mean) / std by channel."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    return (images / 255 - mean) / std


@torch.inference_mode()
def accuracy(model, images, labels, mean, std, batch=250):
    """Fraction of `labels` that are the largest logit; `model` in eval mode."""
    batches = zip(images.split(batch), labels.split(batch))
    return sum((model(normalized(x, mean, std)).argmax(1) == y).sum().item() for x, y in batches) / len(labels)


def main():
    parser = argparse.ArgumentParser(description="Loads a Kiln bundle into PyTorch and evaluates it.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, help="folder with test/<class>/*")
    parser.add_argument("--limit", type=int, help="number of images, spread over the classes")
    args = parser.parse_args()

    model, metadata = read_bundle(args.bundle)
    print(json.dumps(metadata, indent=2))
    print(f"loaded strictly: {sum(p.numel() for p in model.parameters()):,} parameters")
    if args.images:
        images, labels, _ = read_folder(args.images / "test", metadata["classes"], args.limit)
        result = accuracy(model, images, labels, metadata["mean"], metadata["std"])
        print(json.dumps({"accuracy": result, "n": len(labels), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
