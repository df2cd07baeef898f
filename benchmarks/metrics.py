"""What scoring maps costs, beside Quantus 0.6: EfficientNet-Lite0, four photographs of 224 x 224 pixels.

    python -m benchmarks.metrics --peer-python PYTHON [--repeats 5] [--out DIR]

PYTHON is an interpreter with the packages of the dependency group `quantus`. Both sides have the same
weights, photographs, classes and maps. A round runs, one after the other, jaxai's metric, the same metric
around a model (or a method) that costs nothing, the bare passes of the network that the definition needs, and
the peer, so that a slow spell of the machine hits all of them. The time in the network is the first less the
second; its ratio to the third, and the peer's time over jaxai's, are medians of the rounds' ratios. Writes
`metrics.md` and `metrics.json`.
"""

import argparse
import datetime
import json
import os
import statistics
import tempfile
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.tree_util import Partial  # noqa: E402

from . import inputs, machine, networks, timing  # noqa: E402
from .client import Worker  # noqa: E402

NETWORK = "efficientnet_lite0"
STEPS, DRAWS, SUBSETS = 224, 10, 100
# Peers that take more seconds than this run twice; they compile nothing, so that the first run counts.
SLOW, SLOW_ROUNDS = 30, 2
KEY = jax.random.key(0)


@jax.jit
def forward(model, images):
    """Return the scores of images."""
    return model(images)


def free_model(weights, images):
    """Return scores that cost nothing, of images all of whose pixels are made."""
    images = jax.lax.optimization_barrier(images)
    return images[:, ::56, ::56].mean((1, 2)) @ weights


@jax.jit
def _free_map(images):
    return jax.lax.optimization_barrier(images)[..., 0]


def free_method(model, images, targets):
    """Return maps that cost nothing."""
    return _free_map(images)


def saliency(model, images, targets):
    """Return the sum of the gradient's magnitudes, the method that both sides run."""
    return jaxai.saliency(model, images, targets)


class Case:
    """One metric: jaxai's run with any model and method, and the bare passes that its definition needs.

    Attributes:
        name: The metric's name.
        peer: Which library the peer's run is of.
        runs: Forward passes, or runs of the method, of all images that the definition needs.
        explains: Whether the passes are runs of the method.
        run: `run(model, method) -> scores`.
    """

    def __init__(self, name, peer, runs, explains, run, **options):
        self.name, self.peer, self.runs, self.explains, self.run = name, peer, runs, explains, run
        self.options = options


def cases(model, images, classes, maps):
    """Return the metrics, their passes and jaxai's calls."""
    from jaxai import metrics
    from jaxai.metrics import _parameters

    layers = len(_parameters.layers(model, images))
    common = {"key": KEY}
    return [
        Case(
            "pixel_flipping",
            "Quantus",
            STEPS + 1,
            False,
            lambda model, method: (
                metrics.pixel_flipping(model, images, maps, classes, steps=STEPS, probability=True).curve
            ),
            steps=STEPS,
        ),
        Case(
            "mprt",
            "Quantus",
            layers + 1,
            True,
            lambda model, method: metrics.mprt(method, model, images, classes, **common).similarity,
        ),
        Case(
            "road",
            "pytorch-grad-cam",
            18,
            False,
            lambda model, method: metrics.road(model, images, maps, classes, **common).gain / 2,
        ),
        Case(
            "max_sensitivity",
            "Quantus",
            DRAWS + 1,
            True,
            lambda model, method: metrics.max_sensitivity(
                method, model, images, classes, num_samples=DRAWS, **common
            ),
            draws=DRAWS,
        ),
        Case(
            "faithfulness_correlation",
            "Quantus",
            SUBSETS + 1,
            False,
            lambda model, method: (
                metrics.faithfulness_correlation(
                    model, images, maps, classes, num_samples=SUBSETS, **common
                ).correlation
            ),
            draws=SUBSETS,
        ),
        Case(
            "emprt",
            "Quantus",
            2,
            True,
            lambda model, method: metrics.emprt(method, model, images, classes, **common),
        ),
    ]


def measure(case, worker, paths, model, images, classes, *, repeats):
    """Return a case's row: seconds of each round of the four runs, and their ratios."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1000)), jnp.float32)
    # The parameters go along: drawing them anew is a metric's own arithmetic.
    free = model if case.explains else Partial(free_model, weights)

    def bare():
        for _ in range(case.runs):
            if case.explains:
                jax.block_until_ready(saliency(model, images, classes))
            else:
                jax.block_until_ready(forward(model, images))

    mine = {
        "jaxai": lambda: np.asarray(case.run(model, saliency)),
        "own": lambda: np.asarray(case.run(free, free_method)),
        "bare": bare,
    }
    command = {"case": {"method": case.name, "network": NETWORK, "batch": len(images), **case.options}}
    answer = worker.ask("open", tuned=False, precision="float32", **command, **paths)
    cold = timing.seconds(mine["jaxai"])
    warm = timing.seconds(mine["jaxai"])
    for name in ("own", "bare"):
        mine[name]()
    answer = worker.ask("run") if answer["ok"] else answer
    if not answer["ok"]:
        raise RuntimeError(f"{case.peer}, {case.name}: {answer['error']}")
    slow = answer["seconds"] > SLOW
    pairs = min(repeats, SLOW_ROUNDS) if slow else repeats
    times = {name: [] for name in (*mine, "peer", "passes")}
    for index in range(repeats):
        for name, run in mine.items():
            times[name].append(timing.seconds(run))
        times["passes"].append(timing.seconds(lambda: jax.block_until_ready(forward(model, images))))
        if index < pairs:
            first = slow and index == 0
            times["peer"].append(answer["seconds"] if first else worker.ask("run")["seconds"])
    inside = [a - b for a, b in zip(times["jaxai"], times["own"], strict=True)]
    row = {
        "metric": case.name,
        "peer": case.peer,
        "runs": case.runs,
        "of": "maps" if case.explains else "passes",
        "network": timing.ratio(inside, times["bare"]),
        "network_range": timing.spread(inside, times["bare"]),
        "faster": timing.ratio(times["peer"], times["jaxai"][:pairs]),
        "faster_range": timing.spread(times["peer"], times["jaxai"][:pairs]),
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "cold": cold,
        "warm": warm,
        "rounds": [repeats, pairs],
        "load": os.getloadavg()[0],
        "times": times,
    }
    print({k: v for k, v in row.items() if k != "times"}, flush=True)
    return row


def markdown(report):
    """Return the report as a table."""
    lines = [
        "# Metrics: what scoring maps costs",
        "",
        f"{report['date']}; {report['machine']}; load of the machine in each row (this benchmark included).",
        f"{', '.join(f'{name} {version}' for name, version in report['versions'].items())};"
        f" peers: {', '.join(f'{name} {version}' for name, version in report['peer_versions'].items())}.",
        "EfficientNet-Lite0, four photographs of 224 x 224 pixels, the same weights, classes and maps. jaxai,"
        " its own arithmetic, the bare passes and the peer in turn; medians of the rounds' ratios.",
        "",
        "| metric | the definition needs | jaxai s | own arithmetic s | in the network / bare passes (range)"
        " | peer | peer s | peer / jaxai (range) | first call s | rounds / with the peer | load |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        seconds = row["seconds"]
        lines.append(
            f"| `{row['metric']}` | {row['runs']} {row['of']} | {seconds['jaxai']:.2f} | {seconds['own']:.2f}"
            f" | **{row['network']:.2f}** ({_range(row['network_range'])}) | {row['peer']}"
            f" | {seconds['peer']:.2f} | **{row['faster']:.1f}** ({_range(row['faster_range'], 1)})"
            f" | {row['cold']:.1f} | {row['rounds'][0]} / {row['rounds'][1]} | {row['load']:.1f} |"
        )
    if report.get("note"):
        lines += ["", report["note"]]
    return "\n".join(lines) + "\n"


def _range(values, digits=2):
    return "-".join(f"{value:.{digits}f}" for value in values)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="interpreter with quantus and grad-cam")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--only", default="", help="metrics to measure anew, with commas between; the table's other rows stay"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--note", default="", help="a remark to print below the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = inputs.ask(NETWORK, scratch, batch=4, samples=1)
        model = networks.read(NETWORK, paths["weights"])
        images, classes = (jnp.asarray(np.load(paths[name])) for name in ("images", "classes"))
        maps = np.asarray(saliency(model, images, classes).sum(-1), np.float32)
        np.save(folder / "maps.npy", maps)
        paths = {name: paths[name] for name in ("images", "classes", "weights")}
        paths["maps"] = str(folder / "maps.npy")
        worker = Worker(
            options.peer_python, "quantus", threads=len(os.sched_getaffinity(0)), log=folder / "peer.log"
        )
        about = worker.ask("about")
        if not about["ok"]:
            raise SystemExit(f"the peer does not run: {about['error']}")
        rows = [
            measure(case, worker, paths, model, images, classes, repeats=options.repeats)
            for case in cases(model, images, classes, maps)
            if not options.only or case.name in options.only.split(",")
        ]
        worker.close()
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine.processor()}, {jax.default_backend()}",
        "versions": machine.versions("jax", "jaxlib", "numpy"),
        "peer_versions": about["versions"],
        "note": options.note,
        "rows": rows,
    }
    before = options.out / "metrics.json"
    if options.only and before.exists():
        new = {row["metric"]: row for row in rows}
        report["rows"] = [new.pop(row["metric"], row) for row in json.loads(before.read_text())["rows"]]
        report["rows"] += new.values()
    machine.write(options.out, "metrics", report, markdown(report))


if __name__ == "__main__":
    main()
