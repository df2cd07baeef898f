"""Networks from ONNX files beside ONNX Runtime, PyTorch and torch.compile: forward passes and saliency.

    python -m benchmarks.imported --peer-python PYTHON [--repeats 7] [--out DIR]

PYTHON is an interpreter with the packages of the dependency group `reference`. timm's ResNet50 and ViT-S with
random weights are exported by PyTorch and read by `jaxai.models.from_onnx`; ONNX Runtime runs the same file,
PyTorch the network itself. All sides get the same four images and as many threads, and run in turn; the
table holds medians of the ratios of neighbours, theirs over ours. Results are compared, and the machine's
load is written down. Writes `imported.md` and `imported.json`. On two cores with a load of 14 it took ten
minutes, most of them PyTorch's.
"""

import argparse
import datetime
import os
import statistics
import tempfile
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from . import machine, timing  # noqa: E402
from .client import Worker  # noqa: E402

NETWORKS = ("resnet50", "vit_small_patch16_224")
PEERS = ("ONNX Runtime", "torch.compile", "PyTorch")
SIZE, BATCH, CLASS = 224, 4, 3


def asked(worker, **fields):
    """Send a command to the peers' process and return its answer.

    Raises:
        RuntimeError: If it failed.
    """
    answer = worker.ask(fields.pop("op"), **fields)
    if not answer["ok"]:
        raise RuntimeError(answer["error"])
    return answer


def rows(worker, name, images, folder, *, repeats):
    """Time one network's forward pass and saliency, ours and the peers' in turn."""
    path, given = folder / f"{name}.onnx", folder / "images.npy"
    np.save(given, np.asarray(images))
    common = {"network": name, "file": str(path), "images": str(given), "size": SIZE, "class": CLASS}
    asked(worker, op="open", case={"method": "export"}, **common)
    asked(worker, op="run")
    model = jaxai.models.from_onnx(path).model
    forward = jax.jit(lambda model, x: model(x))
    ours = {
        "forward": lambda: np.asarray(forward(model, images)),
        "saliency": lambda: np.asarray(jaxai.saliency(model, images, CLASS)),
    }
    found = []
    for what, run in ours.items():
        wanted = run()
        names, differences = [], {}
        for peer in PEERS:
            # A first run, which compiles, and whose result is compared.
            if not asked(worker, op="open", case={"method": f"{peer} {what}"}, **common)["offered"]:
                continue
            asked(worker, op="run")
            asked(worker, op="save", path=str(folder / "result.npy"))
            theirs = np.load(folder / "result.npy")
            names.append(peer)
            differences[peer] = float(np.abs(theirs - wanted).max() / np.abs(wanted).max())
        times = {name: [] for name in ("jaxai", *names)}
        for _ in range(repeats):
            times["jaxai"].append(timing.seconds(run))
            for peer in names:
                asked(worker, op="open", case={"method": f"{peer} {what}"}, **common)
                times[peer].append(asked(worker, op="run")["seconds"])
        found.append({"network": name, "what": what, "seconds": times, "difference": differences})
        print(f"{name} {what}: " + ", ".join(f"{n} {1e3 * min(t):.0f} ms" for n, t in times.items()))
    return found


def table(record):
    """Return the record as Markdown."""
    lines = [
        "# Imported networks",
        "",
        f"{record['machine']}; load {record['load'][0]} before and {record['load'][1]} after, of one minute."
        f" {BATCH} images of {SIZE} x {SIZE}, {record['repeats']} rounds in turn. {record['about']}.",
        "",
        "| network | run | jaxai, ms | peer | peer, ms | peer / jaxai, median (range) | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        own = row["seconds"]["jaxai"]
        for peer, difference in row["difference"].items():
            theirs = row["seconds"][peer]
            low, high = timing.spread(theirs, own)
            lines.append(
                f"| {row['network']} | {row['what']} | {1e3 * statistics.median(own):.0f} | {peer} |"
                f" {1e3 * statistics.median(theirs):.0f} | {timing.ratio(theirs, own):.2f}"
                f" ({low:.2f} to {high:.2f}) | {difference:.0e} |"
            )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join([*lines, "", f"{record['date']}; {versions}", ""])


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imported")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3)), jnp.float32)
    before = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "peers.log")
        worker = Worker(options.peer_python, "imported", threads=threads, log=log)
        try:
            found = [
                row
                for name in options.networks
                for row in rows(worker, name, images, Path(folder), repeats=options.repeats)
            ]
            about = asked(worker, op="about")
        finally:
            worker.close()
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.processor(),
        "load": [before, round(os.getloadavg()[0], 1)],
        "repeats": options.repeats,
        "versions": {**machine.versions("jax", "flax"), **about["versions"]},
        "about": about["about"],
        "rows": found,
    }
    machine.write(options.out, "imported", record, table(record))


if __name__ == "__main__":
    main()
