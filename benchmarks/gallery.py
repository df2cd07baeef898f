"""Make the gallery of docs/gallery on real weights, and the table of its numbers.

    python -m benchmarks.gallery docs/gallery [--parts channels,classes,dreams,recipes] [--steps 512]

Every picture and number comes from the program; classes are drawn by a fixed seed over all 1000. Each part
writes its sheet and its part of gallery.json, from which README.md is written.
"""

import argparse
import json
import platform
import time
from pathlib import Path

from jaxai import configure_cpu

configure_cpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import jaxai  # noqa: E402
from jaxai import features  # noqa: E402
from jaxai.cli.sheets import contact_sheet  # noqa: E402
from jaxai.features.report import resized  # noqa: E402

KEY = jax.random.key(0)
CHANNELS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
OTHERS = ("efficientnet_lite1", "efficientnet_lite2")
NATURALNESS = ("slope", "variation", "clipped", "saturation")


def photos():
    """Return the photographs that come with scikit-image, as the networks take them."""
    from skimage import data

    return [np.asarray(getattr(data, name)()) for name in ("chelsea", "coffee", "rocket", "astronaut")]


def save(folder, name, images, labels, columns):
    sheet = contact_sheet([np.asarray(i, np.float32) for i in images], labels, columns=columns)
    sheet.save(folder / f"{name}.jpg", quality=85, optimize=True)


def channels(folder, steps):
    """Two channels of each block of the VGG16 convolutions, drawn by a fixed seed."""
    net = jaxai.models.load("vgg16_features", dtype="bfloat16")
    rng = np.random.default_rng(0)
    widths = {"conv1_2": 64, "conv2_2": 128, "conv3_3": 256, "conv4_3": 512, "conv5_3": 512}
    images, labels, rows = [], [], []
    for layer in CHANNELS:
        wanted = [f"{layer}:{c}" for c in sorted(rng.choice(widths[layer], 2, replace=False))]
        found = jaxai.visualize(
            net.model, wanted, key=KEY, size=128, steps=min(steps, 256), normalize=net.normalize
        )
        measured = features.report(
            net.model,
            found.images,
            wanted,
            key=KEY,
            normalize=net.normalize,
            photos=resized(net.crop(photos()), 128),
        )
        images.extend(found.images)
        labels.extend(wanted)
        rows.extend(measured.as_rows(wanted))
    # First channels above, second below.
    order = [*range(0, 10, 2), *range(1, 10, 2)]
    save(folder, "channels", [images[i] for i in order], [labels[i] for i in order], 5)
    return {"rows": rows}


def drawn_classes():
    return [int(c) for c in np.random.default_rng(0).choice(1000, 10, replace=False)]


def judged(net, images, numbers, real):
    """Return the report of class images, and each class's rank in the other networks."""
    others = {name: jaxai.models.load(name) for name in OTHERS}
    wanted = [f"logits:{c}" for c in numbers]
    found = features.report(
        net.model,
        images,
        wanted,
        key=KEY,
        normalize=net.normalize,
        photos=real,
        classes=numbers,
        others={name: (o.model, o.normalize, o.input_size) for name, o in others.items()},
    )
    rows = found.as_rows([f"{net.labels[c]} ({c})" for c in numbers])
    for name, other in others.items():
        x = other.normalize(resized(images, other.input_size))
        scores = np.asarray(jax.jit(lambda m, x: m(x))(other.model, x))
        own = scores[np.arange(len(numbers)), numbers]
        for row, rank in zip(rows, 1 + (scores > own[:, None]).sum(1), strict=True):
            row[f"rank_{name}"] = int(rank)
    return rows


def classes(folder, steps):
    """Ten classes of EfficientNet-Lite0 by the default recipe, judged by Lite1 and Lite2."""
    net = jaxai.models.load("efficientnet_lite0")
    numbers = drawn_classes()
    begin = time.perf_counter()
    found = jaxai.visualize(
        net.model,
        [f"logits:{c}" for c in numbers],
        key=KEY,
        size=224,
        steps=steps,
        normalize=net.normalize,
        batch_size=5,
    )
    found.images.block_until_ready()
    seconds = time.perf_counter() - begin
    rows = judged(net, found.images, numbers, net.crop(photos()))
    save(folder, "classes", resized(found.images, 192), [row["image"] for row in rows], 5)
    both = sum(all(row[f"rank_{name}"] == 1 for name in OTHERS) for row in rows)
    return {"rows": rows, "steps": steps, "recognised_by_both": both, "seconds": seconds}


def dreams(folder, steps):
    """The poster's figures: dreams from a photo and from noise."""
    net = jaxai.models.load("vgg16_features", dtype="bfloat16")
    cat = net.crop(photos()[0])
    starts = {"cat": cat, "noise": jaxai.noise(KEY, (1, 224, 224, 3))}
    images, labels = [], []
    for layer in ("conv4_3", "conv5_1"):
        for name, start in starts.items():
            found = jaxai.deep_dream(net.model, start, layer=layer, key=KEY, normalize=net.normalize)
            images.append(found[0])
            labels.append(f"{layer} from {name}")
    save(folder, "dreams", images, labels, 4)
    return {}


def recipes(folder, steps):
    """The same classes in pixels without transforms, in Fourier space with them, and by MACO."""
    net = jaxai.models.load("efficientnet_lite0")
    numbers, size, steps = drawn_classes()[:4], 160, min(steps, 256)
    wanted = [f"logits:{c}" for c in numbers]
    shared = {"key": KEY, "size": size, "steps": steps, "normalize": net.normalize}
    made = {
        "pixels": jaxai.visualize(net.model, wanted, parametrization="pixels", transforms=None, **shared),
        "fourier and transforms": jaxai.visualize(net.model, wanted, **shared),
        "maco, 6 crops": jaxai.maco(net.model, wanted, crops=6, **shared),
    }
    real = resized(net.crop(photos()), size)
    tables = {"real photos": {name: float(np.mean(value)) for name, value in measures(real).items()}}
    images, labels = [], []
    for name, found in made.items():
        rows = judged(net, found.images, numbers, real)
        kept = (*NATURALNESS, "activation", "held_out")
        tables[name] = {key: float(np.mean([row[key] for row in rows])) for key in kept}
        tables[name]["transfer"] = float(np.mean([row["transfer"] for row in rows]))
        images.extend(found.images)
        labels.extend(f"{name}: {net.labels[c]}" for c in numbers)
    save(folder, "recipes", images, labels, len(numbers))
    return {"table": tables, "size": size, "steps": steps}


def measures(images):
    from jaxai.features.report import spectral_slope, variation

    return {
        "slope": spectral_slope(images),
        "variation": variation(images),
        "clipped": ((images < 0.02) | (images > 0.98)).mean((1, 2, 3)),
        "saturation": (jnp.max(images, -1) - jnp.min(images, -1)).mean((1, 2)),
    }


PARTS = {"channels": channels, "classes": classes, "dreams": dreams, "recipes": recipes}


def page(numbers):
    """Return README.md."""
    lines = [
        "# Gallery",
        "",
        "Made by `python -m benchmarks.gallery docs/gallery`; nothing is chosen by hand.",
        "",
    ]
    if "dreams" in numbers:
        lines += ["## Dreams", "", "DeepDream on the VGG16 convolutions, default options, bfloat16.", ""]
        lines += ["![Dreams](dreams.jpg)", ""]
    if "channels" in numbers:
        lines += ["## Channels of VGG16", "", "Two channels a block, drawn by a fixed seed. Percentile: real"]
        lines += [
            "photos (four) with a smaller activation; held out: activation kept under other transforms.",
            "",
        ]
        lines += [
            "![Channels](channels.jpg)",
            "",
            "| channel | percentile | held out | slope |",
            "|---|---|---|---|",
        ]
        for row in numbers["channels"]["rows"]:
            lines.append(
                f"| {row['image']} | {row['percentile']:.0f} | {row['held_out']:.2f} | {row['slope']:.2f} |"
            )
        lines.append("")
    if "classes" in numbers:
        part = numbers["classes"]
        lines += [
            "## Classes of EfficientNet-Lite0",
            "",
            f"Default recipe, {part['steps']} steps, classes drawn",
        ]
        lines += [f"by a fixed seed. Lite1 and Lite2 both name {part['recognised_by_both']} of 10 first.", ""]
        lines += ["![Classes](classes.jpg)", "", "| class | rank, p in Lite1 | rank, p in Lite2 | held out |"]
        lines.append("|---|---|---|---|")
        for row in part["rows"]:
            ranks = [row[f"rank_{name}"] for name in OTHERS]
            cells = [f"{r}, {p:.2f}" for r, p in zip(ranks, row["transfer"], strict=True)]
            lines.append(f"| {row['image']} | {cells[0]} | {cells[1]} | {row['held_out']:.2f} |")
        lines.append("")
    if "recipes" in numbers:
        part = numbers["recipes"]
        lines += [
            "## Three recipes",
            "",
            f"Means over four classes, {part['size']} pixels, {part['steps']} steps.",
        ]
        lines += ["", "![Recipes](recipes.jpg)", ""]
        lines += [
            "| | slope | variation | clipped | saturation | transfer | held out |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in part["table"].items():
            cells = [
                f"{row[key]:.3f}" if key in row else "" for key in (*NATURALNESS, "transfer", "held_out")
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--steps", type=int, default=512)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    record = options.folder / "gallery.json"
    for name in options.parts.split(","):
        begin = time.perf_counter()
        found = PARTS[name](options.folder, options.steps)
        # Read late, so that parts made at the same time do not lose each other's numbers.
        numbers = json.loads(record.read_text()) if record.exists() else {}
        numbers[name] = found
        numbers["versions"] = {"jax": jax.__version__, "python": platform.python_version()}
        record.write_text(json.dumps(numbers, indent=1) + "\n")
        (options.folder / "README.md").write_text(page(numbers))
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
