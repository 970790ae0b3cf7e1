"""Writes tests/metrics/*.json: what scikit-learn, SciPy, scikit-image and Pillow compute.

    python3 tests/metrics/make_fixtures.py [--output FOLDER]

Needs numpy, scipy, scikit-learn, scikit-image and pillow.

metrics.json is a list of cases. Logits are float32 numbers that are written exactly; everything is
computed from them in float64:

    name, classes, labels [N], logits [N][classes]
    accuracy, top_k_accuracy [up to 5], loss (log_loss), brier (sum over the classes)
    precision, recall, f1, support [classes]; null for a share of nothing
    macro_average, weighted_average: precision, recall and f1 over the classes that have them
    confusion [label][predicted]
    expected_calibration_error and bins [15]: samples, confidence, accuracy
    temperature: with the least loss on the same images; null if there is none

scikit-learn has no calibration error: bins are (lower, upper], as in Guo et al. 2017, and numpy
digitizes into them.

corruptions.json holds a small picture `image` [3,side,side] and, for each corruption but noise, what
the functions of CIFAR-10-C make of it at severities 1 to 5: scikit-image and Pillow, called as the
paper's authors call them, converted to bytes by cutting off.
"""

import argparse
import io
import json
import warnings
from pathlib import Path

import numpy as np
import skimage.color
import skimage.filters
import sklearn.metrics as sk
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS, SIDE = 15, 16
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
QUALITY = (80, 65, 58, 50, 40)


def main():
    parser = argparse.ArgumentParser(description="Writes the fixtures of metrics and corruptions.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    cases = [
        case("ten classes", *drawn(rng, 300, 10, strength=2.0, scale=3.0)),
        case("too timid", *drawn(rng, 120, 4, strength=3.0, scale=0.5)),
        case("two classes", *drawn(rng, 60, 2, strength=1.0, scale=2.0)),
        # Most of a hundred classes have no image, many are never the answer.
        case("a hundred classes", *drawn(rng, 40, 100, strength=4.0, scale=1.5)),
        case("always right", np.arange(6) % 3, np.eye(3)[np.arange(6) % 3] * 5),
        case("one image", np.array([1]), np.array([[0.5, 0.25, 0.125]])),
    ]
    write(args.output / "metrics.json", cases)
    write(args.output / "corruptions.json", corruptions(rng))


def write(path, contents):
    path.write_text(json.dumps(contents, separators=(",", ":")).replace("},{", "},\n{") + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


def drawn(rng, n, classes, strength, scale):
    """Labels and noisy logits that favour them."""
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += strength * rng.random(n)
    return labels, np.round(scale * logits, 3)


def case(name, labels, logits):
    logits = logits.astype(np.float32).astype(np.float64)
    n, classes = logits.shape
    every = np.arange(classes)
    predicted = logits.argmax(1)
    probabilities = softmax(logits, axis=1)
    with warnings.catch_warnings():
        # About classes that never occur.
        warnings.simplefilter("ignore")
        shares = {"labels": every, "zero_division": np.nan}
        by_class = sk.precision_recall_fscore_support(labels, predicted, **shares)
        averages = {
            f"{kind}_average": dict(
                zip(
                    ("precision", "recall", "f1"),
                    sk.precision_recall_fscore_support(labels, predicted, average=kind, **shares)[:3],
                )
            )
            for kind in ("macro", "weighted")
        }
    bins = calibration(labels, predicted, probabilities)
    gaps = [bin["samples"] * abs(bin["confidence"] - bin["accuracy"]) for bin in bins]
    precision, recall, f1, support = ([None if np.isnan(v) else float(v) for v in column] for column in by_class)
    return {
        "name": name,
        "classes": classes,
        "labels": labels.tolist(),
        "logits": [[float(str(np.float32(v))) for v in row] for row in logits],
        "accuracy": sk.accuracy_score(labels, predicted),
        "top_k_accuracy": [top_k(labels, logits, k) for k in range(1, min(5, classes) + 1)],
        "loss": sk.log_loss(labels, probabilities, labels=every),
        "brier": float(((probabilities - np.eye(classes)[labels]) ** 2).sum(1).mean()),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "support": support,
        **averages,
        "confusion": sk.confusion_matrix(labels, predicted, labels=every).tolist(),
        "expected_calibration_error": sum(gaps) / n,
        "bins": bins,
        "temperature": temperature(labels, logits),
    }


def top_k(labels, logits, k):
    """scikit-learn refuses k = classes, where every answer is right."""
    classes = logits.shape[1]
    if k == classes:
        return 1.0
    if classes == 2:
        return sk.accuracy_score(labels, logits.argmax(1))
    return float(sk.top_k_accuracy_score(labels, logits, k=k, labels=np.arange(classes)))


def calibration(labels, predicted, probabilities):
    confidence = probabilities.max(1)
    bin = np.digitize(confidence, np.arange(1, BINS) / BINS, right=True)
    correct = predicted == labels
    return [
        {
            "samples": int((bin == b).sum()),
            "confidence": float(confidence[bin == b].mean()) if (bin == b).any() else 0.0,
            "accuracy": float(correct[bin == b].mean()) if (bin == b).any() else 0.0,
        }
        for b in range(BINS)
    ]


def temperature(labels, logits):
    """With the least mean cross-entropy; None if that is at the edge of 0.01 to 100."""

    def loss(log_temperature):
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean()

    bounds = (np.log(0.01), np.log(100))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12, "maxiter": 1000})
    at_edge = min(abs(found.x - edge) for edge in bounds) < 1e-3 or loss(bounds[0]) <= found.fun
    return None if at_edge else float(np.exp(found.x))


def corruptions(rng):
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    smooth = np.stack([x, y, (x + y) / 2], axis=-1) * 200
    picture = np.clip(smooth + rng.normal(scale=30, size=smooth.shape), 0, 255).astype(np.uint8)
    picture[2:5, 3:9] = (250, 30, 0)
    picture[10:13, 1:4] = 0
    share = picture / 255.0
    return {
        "side": SIDE,
        "image": planar(picture),
        "gaussian_blur": [cut(skimage.filters.gaussian(share, sigma=c, channel_axis=-1)) for c in BLUR],
        "brightness": [cut(brighter(share, c)) for c in BRIGHTNESS],
        "contrast": [cut((share - share.mean((0, 1))) * c + share.mean((0, 1))) for c in CONTRAST],
        "jpeg": [planar(np.asarray(compressed(picture, quality))) for quality in QUALITY],
    }


def brighter(share, more):
    hsv = skimage.color.rgb2hsv(share)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + more, 0, 1)
    return skimage.color.hsv2rgb(hsv)


def compressed(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return Image.open(file)


def cut(share):
    return planar(np.uint8(np.clip(share, 0, 1) * 255))


def planar(picture):
    return picture.transpose(2, 0, 1).ravel().tolist()


if __name__ == "__main__":
    main()
