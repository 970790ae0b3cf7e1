"""Writes tests/parity/*.safetensors: what PyTorch computes for small residual networks and a small transformer.

    python3 tests/parity/make_fixtures.py [--output FOLDER]

Needs torch and safetensors. Everything is computed in float64 from float32 starting values and
stored as float32, so the fixture is the more accurate side. The same is computed in float32, once
as it is and eight times with every parameter four rounding steps away; the table printed holds
||f32 - f64|| / ||f64|| of the worst tensor of each kind, for the plain run and for the worst of
the eight. The script fails if they pass 3e-5 and 1e-4: a correct float32 implementation is well
inside 1e-4.

Why the seeds are chosen and the last norm of each block is damped: a pre-activation within
rounding distance of zero gets another ReLU gradient in another implementation, a jump of 1e-3 to
1 that no tolerance absorbs. These seeds keep clear of that in every run; most others do not.

One file a case. Names are torchvision's, the transformer's timm's; all float32 except `labels`:

    input [N,3,H,W], labels [N] int64
    init/<name>        parameters, running_mean and running_var at the start (norms randomised)
    eval_logits [N,classes], features [N,C] (after the global average pool), both in eval mode
    cam [N,h,w]        sum over c of fc.weight[label_n,c] * feature_map[n,c,h,w], in eval mode
    train_logits, loss (mean cross-entropy), loss_smoothed (the same, label smoothing 0.1)
    grad/<name>        of `loss`, in training mode
    running/<name>     running statistics after that one training forward
    sgd/lr [10], sgd/losses [10], sgd/final/<name>     only in the cases with `sgd: true`

SGD: momentum 0.9, Nesterov, weight decay 5e-4 on every parameter, plain loss. Step t sees `input`
rolled by t pixels along the width (out on the right, in on the left) with `labels` as they are;
rolling along the batch would give every step the same mean loss. `sgd/losses[t]` is the loss
before update t, `sgd/final` what stands after the tenth. To keep the folder below 1.5 MB only the
basic and the compact network and the transformer have the ten steps.

A convolution's bias in front of a batch norm (`conv1.bias` of the compact stem) has a gradient of
exactly zero; both sides hold rounding noise there. Compare every gradient with
||a - b|| <= tolerance * max(||b||, 1e-2 * ||all gradients||), which is what the table does.

`__metadata__["case"]` is a JSON object: name, the fields of the architecture, sgd, torch.
"""

import argparse
import copy
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASE_LR, WARMUP_STEPS, STEPS = 0.05, 3, 10
LAST_NORM_SCALE = 0.3
NUDGES, PLAIN_LIMIT, NUDGED_LIMIT = 8, 3e-5, 1e-4


@dataclass(frozen=True)
class Architecture:
    """The JSON under a bundle's `architecture` key."""

    depth: int
    width: int  # channels of the first stage; 64 at full size
    stem: str = "cifar"  # cifar: 3x3, no pool | imagenet: 7x7 stride 2, max-pool
    norm: str = "batch"  # batch | group
    groups: int = 1  # of group norm
    shortcut: str = "projection_norm"  # | projection: the compact network, see ResNet
    head: str = "linear"  # | conv: a 1x1 convolution, stored as the linear layer it equals
    classes: int = 10

    def build(self):
        return ResNet(self)


@dataclass(frozen=True)
class VitArchitecture:
    """The same of a transformer."""

    image_size: int
    patch: int
    width: int
    depth: int
    heads: int
    classes: int = 10

    def build(self):
        return Vit(self)


class Block(nn.Module):
    """Basic (3x3, 3x3) or bottleneck (1x1, 3x3 with the stride, 1x1) residual block."""

    def __init__(self, inputs, channels, stride, kernels, norm, shortcut):
        super().__init__()
        self.count = len(kernels)
        outputs = channels * (4 if self.count == 3 else 1)
        strided = 2 if self.count == 3 else 1
        width = inputs
        for i, kernel in enumerate(kernels, 1):
            out = outputs if i == self.count else channels
            conv = nn.Conv2d(width, out, kernel, stride if i == strided else 1, kernel // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", norm(out))
            width = out
        self.downsample = None
        if stride != 1 or inputs != outputs:
            layers = [nn.Conv2d(inputs, outputs, 1, stride, bias=False)]
            self.downsample = nn.Sequential(*layers, *([norm(outputs)] if shortcut == "projection_norm" else []))

    def forward(self, x):  # [N,inputs,H,W] -> [N,outputs,H/stride,W/stride]
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's names and arithmetic. `shortcut == "projection"` is the compact network: a stem
    of width/2 channels with bias, stride 2 in every stage, shortcuts without a norm."""

    def __init__(self, arch):
        super().__init__()
        compact, self.pool = arch.shortcut == "projection", arch.stem == "imagenet"
        norm = nn.BatchNorm2d if arch.norm == "batch" else lambda c: nn.GroupNorm(arch.groups, c)
        kernels = (3, 3) if arch.depth < 50 else (1, 3, 1)
        width = arch.width // 2 if compact else arch.width
        kernel, stride = (7, 2) if self.pool else (3, 1)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=compact)
        self.bn1 = norm(width)
        for s, count in enumerate(BLOCKS[arch.depth]):
            channels, blocks = arch.width << s, []
            for b in range(count):
                stride = 2 if b == 0 and (s > 0 or compact) else 1
                blocks.append(Block(width, channels, stride, kernels, norm, arch.shortcut))
                width = channels * (4 if len(kernels) == 3 else 1)
            setattr(self, f"layer{s + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width, arch.classes)

    def feature_map(self, x):  # [N,3,H,W] -> [N,C,h,w]
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.pool else x
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x):  # [N,3,H,W] -> [N,classes]
        return self.fc(self.feature_map(x).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):  # [N,T,C] -> [N,T,C]
        n, t, c = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c))


class TransformerBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x):  # [N,T,C] -> [N,T,C]
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Vit(nn.Module):
    """timm's names and arithmetic of `VisionTransformer(class_token=False, global_pool="avg", fc_norm=False)`."""

    def __init__(self, arch):
        super().__init__()
        self.side = arch.image_size // arch.patch
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, arch.width, arch.patch, arch.patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2, arch.width))
        self.blocks = nn.Sequential(*(TransformerBlock(arch.width, arch.heads) for _ in range(arch.depth)))
        self.norm, self.head = nn.LayerNorm(arch.width, eps=1e-6), nn.Linear(arch.width, arch.classes)

    def feature_map(self, x):  # [N,3,H,W] -> [N,C,h,w]
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(x + self.pos_embed)).transpose(1, 2).unflatten(2, (self.side, self.side))

    def forward(self, x):  # [N,3,H,W] -> [N,classes]
        return self.head(self.feature_map(x).mean((2, 3)))


@dataclass(frozen=True)
class Case:
    name: str
    architecture: Architecture | VitArchitecture
    seed: int
    images: tuple = (8, 32)  # N, H = W
    sgd: bool = False


CASES = [
    Case("resnet18", Architecture(18, 3), seed=9, sgd=True),
    Case("resnet50", Architecture(50, 2), seed=5),
    Case("resnet18_group_norm", Architecture(18, 2, norm="group", groups=2), seed=7),
    Case("resnet18_imagenet_stem", Architecture(18, 2, stem="imagenet"), seed=1, images=(4, 48)),
    Case("resnet18_compact", Architecture(18, 4, shortcut="projection", head="conv", classes=7), seed=1, sgd=True),
    Case("vit", VitArchitecture(image_size=16, patch=4, width=12, depth=2, heads=3), seed=1, images=(8, 16), sgd=True),
]


def randomised(arch, generator):
    """A float32 network: Kaiming normal convolutions, every norm away from the identity."""
    model = arch.build()
    draw = lambda tensor: torch.randn(tensor.shape, generator=generator)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * module.kernel_size[0] ** 2
                module.weight.copy_(draw(module.weight) * math.sqrt(2 / fan_out))
                if module.bias is not None:
                    module.bias.copy_(0.1 * draw(module.bias))
            elif isinstance(module, nn.Linear):
                module.weight.copy_(draw(module.weight) / math.sqrt(module.in_features))
                module.bias.copy_(0.1 * draw(module.bias))
            elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)):
                module.weight.copy_(1 + 0.1 * draw(module.weight))
                module.bias.copy_(0.1 * draw(module.bias))
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(0.1 * draw(module.running_mean))
                module.running_var.copy_((0.1 * draw(module.running_var)).exp())
            elif isinstance(module, Vit):
                module.pos_embed.copy_(0.1 * draw(module.pos_embed))
        for block in model.modules():
            if isinstance(block, Block):
                getattr(block, f"bn{block.count}").weight.mul_(LAST_NORM_SCALE)
    return model


def nudge(model, seed):
    """Moves every parameter by four rounding steps of float32, up or down at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1 + 2**-21 * torch.randn(p.shape, generator=generator).sign())


def state(model, prefix, only=""):
    """Copies of parameters and running statistics whose name contains `only`."""
    named = model.state_dict().items()
    return {prefix + k: v.clone() for k, v in named if only in k and "num_batches_tracked" not in k}


def learning_rates():
    """[STEPS] float32: PyTorch's LinearLR from a third, then a cosine that would reach 0 at STEPS."""
    after = lambda t: 0.5 * (1 + math.cos(math.pi * (t - WARMUP_STEPS) / (STEPS - WARMUP_STEPS)))
    factors = [1 / 3 + 2 / 3 * t / WARMUP_STEPS if t < WARMUP_STEPS else after(t) for t in range(STEPS)]
    return torch.tensor([BASE_LR * factor for factor in factors], dtype=torch.float32)


def ten_steps(model, images, labels):
    """Trains `model` in place."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=BASE_LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    losses = []
    for step, lr in enumerate(learning_rates()):
        optimizer.param_groups[0]["lr"] = lr.item()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images.roll(step, dims=3)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"sgd/lr": learning_rates(), "sgd/losses": torch.stack(losses), **state(model, "sgd/final/")}


def compute(case, dtype, nudged_by=None):
    """Every tensor of the case's file, computed in `dtype`; `nudged_by`: the seed of a nudge."""
    arch, (count, size) = case.architecture, case.images
    generator = torch.Generator().manual_seed(case.seed)
    model = randomised(arch, generator)
    if nudged_by is not None:
        nudge(model, nudged_by)
    model = model.to(dtype)
    images = torch.randn(count, 3, size, size, generator=generator).to(dtype)
    labels = torch.randint(arch.classes, (count,), generator=generator)
    start = copy.deepcopy(model)
    out = {"input": images, "labels": labels, **state(model, "init/")}

    model.eval()
    with torch.no_grad():
        maps = model.feature_map(images)
        out["eval_logits"], out["features"] = model(images), maps.mean((2, 3))
        head = model.fc if isinstance(model, ResNet) else model.head
        out["cam"] = torch.einsum("nc,nchw->nhw", head.weight[labels], maps)

    model.train()
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    out["train_logits"], out["loss"] = logits.detach(), loss.detach()
    out["loss_smoothed"] = F.cross_entropy(logits.detach(), labels, label_smoothing=0.1)
    out |= {f"grad/{name}": p.grad for name, p in model.named_parameters()}
    out |= state(model, "running/", only="running_")
    return out | (ten_steps(start, images, labels) if case.sgd else {})


def differences(single, double):
    """{kind: (relative error of its worst tensor, that tensor's name)}; `grad/` as the docstring says."""
    gradients = [v for k, v in double.items() if k.startswith("grad/")]
    floor = 1e-2 * math.sqrt(sum(g.square().sum().item() for g in gradients))
    worst = {}
    for key, b in double.items():
        if key in ("input", "labels", "sgd/lr") or key.startswith("init/"):
            continue
        kind = "sgd/final" if key.startswith("sgd/final") else key if key.startswith("sgd") else key.split("/")[0]
        scale = max(b.norm().item(), floor) if kind == "grad" else b.norm().item()
        error = (single[key].double() - b).norm().item() / scale
        worst[kind] = max(worst.get(kind, (0.0, "")), (error, key))
    return worst


def main():
    from safetensors.torch import save_file  # not needed by the benchmarks, which import the network alone

    parser = argparse.ArgumentParser(description="Writes the PyTorch parity fixtures.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    output = parser.parse_args().output
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)

    full = ResNet(Architecture(18, 64, shortcut="projection", head="conv"))
    assert sum(p.numel() for p in full.parameters()) == 11_154_890  # the compact network's published count
    full = Vit(VitArchitecture(image_size=32, patch=4, width=192, depth=12, heads=3))
    assert sum(p.numel() for p in full.parameters()) == 5_362_378  # Kiln's vit-tiny

    too_far = []
    for case in CASES:
        double = compute(case, torch.float64)
        description = {"name": case.name, **asdict(case.architecture), "sgd": case.sgd, "torch": torch.__version__}
        stored = {k: (v if k == "labels" else v.float()).contiguous() for k, v in double.items()}
        path = output / f"{case.name}.safetensors"
        save_file(stored, path, metadata={"case": json.dumps(description)})
        print(f"{path.name}  {path.stat().st_size:,} bytes  loss {double['loss']:.4f}")
        plain = differences(compute(case, torch.float32), double)
        nudged = [differences(compute(case, torch.float32, k), double) for k in range(NUDGES)]
        for kind, (error, _) in plain.items():
            worst, key = max(run[kind] for run in nudged)
            print(f"    {kind:14} {error:9.1e} {worst:9.1e}  {key if '/' in key else ''}")
            if not (error <= PLAIN_LIMIT and worst <= NUDGED_LIMIT):
                too_far.append(f"{case.name}: {key} differs by {error:.1e}, nudged by {worst:.1e}")
    if too_far:
        raise SystemExit("float32 is too far from float64, choose another seed:\n" + "\n".join(too_far))


if __name__ == "__main__":
    main()
