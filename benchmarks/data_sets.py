"""What a data set costs: CPU seconds per image beside the sum of the parts, memory, bytes, worker processes.

    python -m benchmarks.data_sets [--images 50000] [--photos 2000] [--folder FOLDER] [--out FOLDER]

Two data sets: generated pictures of 28 pixels through a small CNN, and cuts of scikit-image's photographs
through EfficientNet-Lite0; saliency and Grad-CAM of each. The parts are measured alone in one process, the
run in another, both in CPU seconds (user and system, all threads), since other programs share the cores.
What starts a process (imports, loading, compiling) is a row of its own. Writes `data_sets.md` and `.json`.
"""

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxai
from jaxai.dataset import _layout, _run, _shards

from . import machine

METHODS = ("grad_cam", "saliency")
SMALL, PHOTOS = "benchmarks.data_sets:small", "efficientnet_lite0"
OPTIONS = {
    SMALL: {"input_size": 28, "batch_size": 128, "shard_size": 512},
    PHOTOS: {"batch_size": 32, "shard_size": 256},
}
SAMPLE = {SMALL: 4096, PHOTOS: 256}


def small():
    """Return a CNN of two convolutions for pictures of 28 pixels and ten classes."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((3, 3, 3, 16), (3, 3, 16, 32), (32 * 49, 10))
    weights = [
        jax.random.normal(k, s) * (2 / np.prod(s[:-1])) ** 0.5 for k, s in zip(keys, shapes, strict=True)
    ]
    partial = jax.tree_util.Partial
    features = partial(_features, *weights[:2])
    return jaxai.chain({"features": features, "logits": partial(_head, weights[2])})


def _features(first, second, x):
    for kernel in (first, second):
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x


def _head(weights, x):
    return x.reshape(len(x), -1) @ weights


def pictures(folder, count):
    """Write pictures of ten classes: stripes of ten directions, under noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28]
    for number in range(count):
        kind = number % 10
        angle, phase = np.pi * kind / 10, rng.uniform(0, 6.3)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.9 + phase)
        pixels = 127 + 80 * wave + rng.normal(0, 20, (28, 28))
        path = folder / f"class {kind}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def photographs(folder, count):
    """Write cuts of four photographs, turned, 320 to 448 pixels a side."""
    from skimage import data

    rng = np.random.default_rng(0)
    sources = [
        Image.fromarray(getattr(data, name)()) for name in ("chelsea", "coffee", "rocket", "astronaut")
    ]
    folder.mkdir(parents=True)
    for number in range(count):
        source = sources[number % 4].rotate(float(rng.uniform(-15, 15)), Image.Resampling.BILINEAR)
        side = int(min(source.size) * rng.uniform(0.5, 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in source.size)
        cut = source.crop((left, top, left + side, top + side))
        size = int(rng.integers(320, 449))
        cut.resize((size, size)).save(folder / f"{number:05d}.jpg", quality=90)


def cpu():
    """Return the CPU seconds of this process so far, all threads."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime


def resident():
    """Return the resident bytes of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(store):
    """Fill a store in this process; return CPU seconds and memory on the way."""
    told = []

    def note(found):
        told.append((found.explained, cpu(), resident(), time.time()))

    begin = time.time()
    found = jaxai.dataset.run(store, told=note)
    total = len(jaxai.dataset.open(store))
    first, last = next(one for one in told if one[0]), next(one for one in told if one[0] == total)
    return {
        "images": found.explained,
        "failed": found.failed,
        "waited": found.waited / found.seconds,
        "wall": time.time() - begin,
        "cpu": cpu(),
        "cpu_per_image": (last[1] - first[1]) / (last[0] - first[0]),
        "start": first[1] - first[0] * (last[1] - first[1]) / (last[0] - first[0]),
        "memory": [[done, size] for done, _, size, _ in told if done],
        "peak": machine.peak_memory(),
    }


def parts(store):
    """Return the CPU seconds per image of each part of a run, measured alone."""
    plan = jaxai.dataset.Plan.read(Path(store))
    count = min(len(plan), SAMPLE[plan.model]) // plan.batch_size * plan.batch_size
    net = _run.network_of(plan, None)
    found = {}

    def timed(name, work, images=count):
        begin = cpu()
        value = work()
        found[name] = (cpu() - begin) / images
        return value

    with ThreadPoolExecutor(4) as pool:
        explainer = _shards.Explainer(plan, net, pool)
        explainer.read(0)
        photos = timed("read, digest, decode, crop", lambda: list(pool.map(explainer.read, range(count))))
    batches = [
        np.stack([photo.pixels for photo in photos[at : at + plan.batch_size]])
        for at in range(0, count, plan.batch_size)
    ]

    scores_of = jax.jit(lambda model, x: model(x))

    def scores():
        return [
            np.asarray(scores_of(net.model, net.normalize(jnp.asarray(one)))).argmax(1) for one in batches
        ]

    def saliency():
        pairs = zip(batches, classes, strict=True)
        return [
            np.asarray(jaxai.saliency(net.model, net.normalize(jnp.asarray(x)), jnp.asarray(t)).sum(-1))
            for x, t in pairs
        ]

    def cams():
        pairs = zip(batches, classes, strict=True)
        return [
            np.asarray(
                jaxai.grad_cam(net.model, net.normalize(jnp.asarray(x)), jnp.asarray(t), upsample=False)
            )
            for x, t in pairs
        ]

    classes = scores()
    timed("scores", scores)
    whole = {}
    for name, work in (("saliency", saliency), ("grad_cam", cams)):
        work()  # Compiled.
        whole[name] = np.concatenate(timed(name, work))

    def written():
        with tempfile.TemporaryDirectory(dir=Path(store).parent) as folder:
            for at in range(0, count, plan.shard_size):
                for name, maps in whole.items():
                    some = maps[at : at + plan.shard_size].astype(plan.maps[name][1])
                    _, content = _layout.encoded(some, len(plan), plan.maps[name][1], plan.shard_size, 0)
                    digest = _layout.digest(content)
                    jaxai._files.write(Path(folder) / f"{name}{at}{digest[:4]}", [content])

    written()
    timed("compress, digest, write maps", written)
    if plan.thumbnails:
        from jaxai.dataset import _thumbnails

        def tiles():
            for at in range(0, count, plan.shard_size):
                some = [
                    _thumbnails.tile(p.pixels, plan.thumbnails) for p in photos[at : at + plan.shard_size]
                ]
                _thumbnails.sheet(some, plan.thumbnails)

        timed("thumbnails", tiles)
    return found


def sizes(store):
    """Return the bytes of each part of a store."""
    found = {}
    for part in ("plan.json", "maps/grad_cam", "maps/saliency", "rows", "thumbnails", "done"):
        place = Path(store) / part
        files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
        found[part] = {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
    return found


def expected(plan):
    """Return the bytes of raw maps by calculation."""
    return {
        name: len(plan) * int(np.prod(shape)) * np.dtype(dtype).itemsize
        for name, (shape, dtype) in plan.maps.items()
    }


def workers(store, count):
    """Fill a store with worker processes; return wall seconds and all their CPU seconds."""
    begin = time.time()
    code = f"import jaxai; jaxai.dataset.run({str(store)!r}, workers={count})"
    guarded = f"if __name__ == '__main__':\n    {code}\n"
    script = Path(store).parent / f"workers{count}.py"
    script.write_text(guarded)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, str(script)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"workers": count, "wall": time.time() - begin, "cpu": used}


def in_a_process(part, store):
    """Return what a part finds in a process of its own."""
    call = [sys.executable, "-m", "benchmarks.data_sets", "--part", part, "--store", str(store)]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(model, photos, folder):
    """Plan, run and measure a data set."""
    store = folder / f"store of {photos.name}"
    plan = jaxai.dataset.plan(model, photos, store, methods=list(METHODS), **OPTIONS[model])
    alone, ran = in_a_process("parts", store), in_a_process("run", store)
    total = sum(alone.values())
    return {
        "model": model,
        "images": len(plan),
        "parts": alone,
        "sum_of_parts": total,
        "run": ran,
        "ratio": ran["cpu_per_image"] / total,
        "sizes": sizes(store),
        "raw_maps": expected(plan),
        "shapes": {name: list(shape) for name, (shape, _) in plan.maps.items()},
    }


def text(record):
    """Return the tables."""
    lines = [
        "# Data sets",
        "",
        f"{record['machine']}, jax {record['versions'].get('jax', '')}, {record['date']}. CPU seconds (user"
        " and system, all threads) per image; the cores were shared with other programs.",
    ]
    for one in record["sets"]:
        ran = one["run"]
        lines += ["", f"## {one['images']:,} images through {one['model'].rpartition(':')[2]}", ""]
        lines += ["| part, measured alone | CPU ms per image |", "|---|---|"]
        lines += [f"| {name} | {1e3 * value:.2f} |" for name, value in one["parts"].items()]
        lines += [f"| **sum of parts** | **{1e3 * one['sum_of_parts']:.2f}** |"]
        lines += [f"| **`jaxai.dataset.run`** | **{1e3 * ran['cpu_per_image']:.2f}** |", ""]
        lines += [
            f"Run by sum of parts: **{one['ratio']:.2f}**. Starting (imports, weights, compiling) takes"
            f" {ran['start']:.1f} CPU seconds once; the whole run took {ran['wall']:.0f} s. The device waited"
            f" for images {ran['waited']:.0%} of the time; {ran['failed']} images failed.",
            "",
        ]
        marks = [one["images"] * share // 100 for share in (2, 20, 50, 100)]
        at = [min(ran["memory"], key=lambda pair, mark=mark: abs(pair[0] - mark)) for mark in marks]
        lines += ["Resident memory: " + ", ".join(f"{size / 2**20:.0f} MiB at {n:,}" for n, size in at) + "."]
        lines += ["", "| part of the store | files | bytes | raw maps by calculation |", "|---|---|---|---|"]
        for name, size in one["sizes"].items():
            raw = one["raw_maps"].get(name.rpartition("/")[2])
            lines.append(f"| {name} | {size['files']:,} | {size['bytes']:,} | {f'{raw:,}' if raw else ''} |")
    lines += ["", f"## {record['scaling']['images']:,} of the small images, worker processes", ""]
    lines += [
        "| workers | wall s | CPU s | images per CPU second | images per second |",
        "|---|---|---|---|---|",
    ]
    count = record["scaling"]["images"]
    for one in record["scaling"]["runs"]:
        rates = f"{count / one['cpu']:.0f} | {count / one['wall']:.0f}"
        lines.append(f"| {one['workers']} | {one['wall']:.1f} | {one['cpu']:.1f} | {rates} |")
    same = "byte for byte the same" if record["scaling"]["same"] else "NOT the same"
    lines += ["", f"The stores are {same}."]
    return "\n".join(lines) + "\n"


def contents(store):
    """Return the bytes of all results of a store."""
    found = {}
    for part in ("maps", "rows", "thumbnails"):
        for path in sorted((store / part).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(store))] = _layout.digest(path.read_bytes())
    return found


def scaling(photos, folder):
    """Fill the same store with 1, 2 and 4 worker processes."""
    runs, found = [], []
    for count in (1, 2, 4):
        store = folder / f"store of {count} workers"
        plan = jaxai.dataset.plan(SMALL, photos, store, methods=list(METHODS), **OPTIONS[SMALL])
        runs.append(workers(store, count))
        found.append(contents(store))
    return {"images": len(plan), "runs": runs, "same": found[0] == found[1] == found[2]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--photos", type=int, default=2_000)
    parser.add_argument("--scaling", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--part", choices=("parts", "run"))
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    if given.part:
        jaxai.configure_cpu()
        print(json.dumps({"parts": parts, "run": run}[given.part](given.store)))
        return
    jaxai.configure_cpu()
    with tempfile.TemporaryDirectory() as own:
        folder = given.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        for name, make, count in (
            ("pictures", pictures, given.images),
            ("photographs", photographs, given.photos),
        ):
            if not (folder / name).exists():
                make(folder / name, count)
        if not (folder / "some").exists():
            pictures(folder / "some", given.scaling)
        record = {
            "machine": machine.processor(),
            "versions": machine.versions("jax", "numpy", "pillow", "tensorstore", "pyarrow"),
            "date": datetime.date.today().isoformat(),
            "sets": [
                measured(SMALL, folder / "pictures", folder),
                measured(PHOTOS, folder / "photographs", folder),
            ],
            "scaling": scaling(folder / "some", folder),
        }
        machine.write(given.out, "data_sets", record, text(record))


if __name__ == "__main__":
    main()
