"""Make the gallery of docs/gallery on real weights, and the table of its numbers.

    python -m benchmarks.gallery docs/gallery [--parts channels,classes,dreams,recipes,large] [--steps 512]

Every picture and number comes from the program; classes are drawn by a fixed seed over all 1000. Each part
writes its sheet and its part of gallery.json, from which README.md is written.
"""

import argparse
import json
import platform
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from jaxai import configure_cpu

configure_cpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.tree_util import Partial  # noqa: E402

import jaxai  # noqa: E402
from jaxai import features  # noqa: E402
from jaxai.cli.sheets import contact_sheet  # noqa: E402
from jaxai.features._dream import octave_steps  # noqa: E402
from jaxai.features._report import resized, spectral_slope, variation  # noqa: E402
from jaxai.features.parametrize import Fourier  # noqa: E402
from jaxai.features.transforms import LUCID  # noqa: E402

from .gallery_page import NATURALNESS, NETWORKS, OTHERS, page  # noqa: E402

KEY = jax.random.key(0)
CHANNELS = {"conv1_2": 64, "conv2_2": 128, "conv3_3": 256, "conv4_3": 512, "conv5_3": 512}
# Views of an image a step; the paper has 32.
CROPS = 6
# How many classes are drawn, and how many of them, the first, are shown.
CLASSES, SHOWN = 50, 10


def photos():
    """Return the photographs that come with scikit-image, as the networks take them."""
    from skimage import data

    return [np.asarray(getattr(data, name)()) for name in ("chelsea", "coffee", "rocket", "astronaut")]


def cuttings(size):
    """Return 36 squares of the photographs, nine of each, float32 [36, size, size, 3] in [0, 1]."""
    squares = []
    for photo in photos():
        side = round(0.6 * min(photo.shape[:2]))
        rows, columns = (np.linspace(0, length - side, 3).astype(int) for length in photo.shape[:2])
        squares += [photo[i : i + side, j : j + side] for i in rows for j in columns]
    return jnp.concatenate([resized(jnp.asarray(x[None] / 255, jnp.float32), size) for x in squares])


def save(folder, name, images, labels, columns):
    sheet = contact_sheet([np.asarray(i, np.float32) for i in images], labels, columns=columns)
    sheet.save(folder / f"{name}.jpg", quality=85, optimize=True)


def channels(folder, steps):
    """Channels of each block of the VGG16 convolutions, drawn by a fixed seed, a block a column."""
    net = jaxai.models.load("vgg16_features")
    rng = np.random.default_rng(0)
    each, size, steps = 3, 128, min(steps, 256)
    columns, names, rows = [], [], []
    for layer, width in CHANNELS.items():
        wanted = [f"{layer}:{c}" for c in sorted(rng.choice(width, each, replace=False))]
        found = jaxai.visualize(net.model, wanted, key=KEY, size=size, steps=steps, normalize=net.normalize)
        measured = features.report(
            net.model,
            found.images,
            wanted,
            key=KEY,
            normalize=net.normalize,
            photos=cuttings(size),
            batch_size=8,
        )
        columns.append(np.asarray(found.images))
        names.append(wanted)
        rows.extend(measured.as_rows(wanted))
        print(layer, flush=True)
    pairs = list(zip(columns, names, strict=True))
    images = [column[i] for i in range(each) for column, _ in pairs]
    labels = [wanted[i] for i in range(each) for _, wanted in pairs]
    save(folder, "channels", images, labels, len(pairs))
    return {"rows": rows, "each": each, "size": size, "steps": steps}


def drawn_classes(number=CLASSES):
    return [int(c) for c in np.random.default_rng(0).permutation(1000)[:number]]


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
    for name, other in {"efficientnet_lite0": net, **others}.items():
        x = other.normalize(resized(images, other.input_size))
        scores = np.asarray(jax.jit(lambda m, x: m(x))(other.model, x))
        own = scores[np.arange(len(numbers)), numbers]
        for row, rank in zip(rows, 1 + (scores > own[:, None]).sum(1), strict=True):
            row[f"rank_{name}"] = int(rank)
    return rows


def classes(folder, steps):
    """Classes of EfficientNet-Lite0 by the default recipe, judged by Lite1 and Lite2; the first are shown."""
    net = jaxai.models.load("efficientnet_lite0")
    numbers = drawn_classes()
    stops = sorted({max(1, steps // 8), max(1, steps // 4), max(1, steps // 2), steps})
    begin = time.perf_counter()
    found = jaxai.visualize(
        net.model,
        [f"logits:{c}" for c in numbers],
        key=KEY,
        size=224,
        steps=steps,
        normalize=net.normalize,
        snapshots=stops,
        batch_size=5,
    )
    found.images.block_until_ready()
    seconds = time.perf_counter() - begin
    labels = [f"{net.labels[c]} ({c})" for c in numbers[:SHOWN]]
    save(folder, "classes", resized(found.images[:SHOWN], 192), labels, 5)
    real = cuttings(224)
    # A shorter run of the same key is the beginning of a longer one.
    by_steps = {
        stop: judged(net, shown, numbers, real) for stop, shown in zip(stops, found.snapshots, strict=True)
    }
    return {
        "rows": by_steps[steps],
        "shown": SHOWN,
        "steps": steps,
        "recognised": {str(stop): recognised(rows) for stop, rows in by_steps.items()},
        "seconds": seconds,
    }


def recognised(rows):
    """Return how many images each network, and all of them, name first."""
    counts = {name: sum(row[f"rank_{name}"] == 1 for row in rows) for name in NETWORKS}
    others = [all(row[f"rank_{name}"] == 1 for name in OTHERS) for row in rows]
    return {**counts, "both others": sum(others), "of": len(rows)}


def dreams(folder, steps):
    """The poster's figures: dreams from a photo and from noise."""
    net = jaxai.models.load("vgg16_features", dtype="bfloat16")
    cat = net.crop(photos()[0])
    starts = {"cat": cat, "noise": jaxai.features.noise(KEY, (1, 224, 224, 3))}
    images, labels = [], []
    for layer in ("conv4_3", "conv5_1"):
        for name, start in starts.items():
            found = jaxai.deep_dream(net.model, start, layer=layer, key=KEY, normalize=net.normalize)
            images.append(found[0])
            labels.append(f"{layer} from {name}")
    save(folder, "dreams", images, labels, 4)
    return {}


def recipes(folder, steps):
    """The same classes in pixels and in Fourier space, without transforms and with, by Lucid and by MACO."""
    net = jaxai.models.load("efficientnet_lite0")
    numbers, size, steps = drawn_classes(5), 160, min(steps, 256)
    wanted = [f"logits:{c}" for c in numbers]
    shared = {"key": KEY, "size": size, "steps": steps, "normalize": net.normalize}
    plain, lucid = {"transforms": None, **shared}, Fourier(decay=1.0)
    makers = {
        "pixels": partial(jaxai.visualize, parametrization="pixels", **plain),
        "pixels, transforms": partial(jaxai.visualize, parametrization="pixels", **shared),
        "fourier": partial(jaxai.visualize, **plain),
        "Lucid": partial(jaxai.visualize, parametrization=lucid, transforms=LUCID, **shared),
        "fourier, transforms": partial(jaxai.visualize, **shared),
        "maco": partial(jaxai.maco, crops=CROPS, batch_size=5 * CROPS, **shared),
    }
    real = cuttings(size)
    tables = {"photographs": {name: float(np.mean(value)) for name, value in measures(real).items()}}
    images = []
    for name, make in makers.items():
        found = make(net.model, wanted)
        rows = judged(net, found.images, numbers, real)
        kept = (*NATURALNESS, "activation", "held_out", "transfer")
        tables[name] = {key: float(np.mean([row[key] for row in rows])) for key in kept}
        tables[name].update(recognised(rows))
        images.append(found.images)
        print(name, flush=True)
    # A class a row, a recipe a column.
    rows = [image for row in zip(*images, strict=True) for image in row]
    named = [net.labels[c] for c in numbers]
    # The first of a row says whose it is.
    first = next(iter(makers))
    labels = [f"{name}: {made}" if made == first else made for name in named for made in makers]
    save(folder, "recipes", rows, labels, len(makers))
    return {"table": tables, "size": size, "steps": steps, "classes": named, "crops": CROPS}


def large(folder, steps):
    """A dream of eight million pixels, in a process of its own, whose peak is the dream's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(large_dream).result()


def large_dream(layer="conv3_3", octaves=1, steps=1):
    net = jaxai.models.load("vgg16_features")
    photo = jnp.asarray(photos()[3][None] / 255, jnp.float32)
    photo = jax.image.resize(photo, (1, 2448, 3264, 3), "linear").block_until_ready()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin = time.perf_counter()
    found = jaxai.deep_dream(
        net.model, photo, layer=layer, key=KEY, normalize=net.normalize, octaves=octaves, steps=steps
    ).block_until_ready()
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert found.shape == photo.shape
    return {
        "height": 2448,
        "width": 3264,
        "layer": layer,
        "octaves": octaves,
        "steps": steps,
        "before_mib": before,
        "peak_mib": peak,
        "seconds": seconds,
        "program_mib": {
            "tiles of 512, 8 million pixels": program_mib(net, layer, (2448, 3264), 512),
            "tiles of 512, 2 million pixels": program_mib(net, layer, (1224, 1632), 512),
            "whole, 2 million pixels": program_mib(net, layer, (1224, 1632), None),
        },
    }


def program_mib(net, layer, size, tile):
    """Return the scratch memory of the compiled steps at one size, beside what goes in and comes out."""
    lowered = octave_steps.lower(
        net.model,
        Partial(net.normalize),
        jax.ShapeDtypeStruct((1, *size, 3), jnp.float32),
        jax.random.split(KEY, 1),
        features=None,
        step_size=jnp.float32(1.5 / 255),
        layer=layer,
        steps=1,
        jitter=32,
        tile=tile,
        batch_size=None,
    )
    return lowered.compile().memory_analysis().temp_size_in_bytes / 2**20


def measures(images):
    return {
        "slope": spectral_slope(images),
        "variation": variation(images),
        "clipped": ((images < 0.02) | (images > 0.98)).mean((1, 2, 3)),
        "saturation": (jnp.max(images, -1) - jnp.min(images, -1)).mean((1, 2)),
    }


PARTS = {"channels": channels, "classes": classes, "dreams": dreams, "recipes": recipes, "large": large}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--steps", type=int, default=512)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    record = options.folder / "gallery.json"
    for name in filter(None, options.parts.split(",")):
        begin = time.perf_counter()
        found = PARTS[name](options.folder, options.steps)
        # Read late, so that parts made at the same time do not lose each other's numbers.
        numbers = json.loads(record.read_text()) if record.exists() else {}
        numbers[name] = found
        numbers["versions"] = {"jax": jax.__version__, "python": platform.python_version()}
        record.write_text(json.dumps(numbers, indent=1) + "\n")
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
    (options.folder / "README.md").write_text(page(json.loads(record.read_text())))


if __name__ == "__main__":
    main()
