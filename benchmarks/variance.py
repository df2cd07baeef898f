"""Error of sampled explanations to their limit at equal model calls: jaxai against lime, shap and Captum.

    python -m benchmarks.variance --peer-python PYTHON [--seeds 40] [--out benchmarks/results]

PYTHON is an interpreter with the packages of the dependency group `reference`. EfficientNet-Lite0 scores all
2^S coalitions of the S = 12 superpixels of two photographs once; every estimator then reads its scores from
that table, so the limits (the exact Shapley values; LIME with infinitely many masks) are known and many runs
cost nothing. The peers run their own code. Writes `variance.md` and `variance.json`.
"""

import argparse
import datetime
import os
import tempfile
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.tree_util import Partial  # noqa: E402

from . import machine  # noqa: E402
from .client import Worker  # noqa: E402

PLAYERS = 12
PHOTOS = ("chelsea", "coffee")
CALLS = (100, 300, 1000)

# (name in the table, side, estimator); the first of each list is the reference.
LIME = (
    ("lime: `lime_image` (fair coins, all-on first)", "peer", "lime"),
    ("Captum: `Lime` with lime's kernel and ridge (fair coins)", "peer", "captum-lime"),
    ("jaxai `sampling='lime'` (lime_image's law)", "jaxai", "lime"),
    ("jaxai `sampling='uniform'`", "jaxai", "uniform"),
    ("jaxai `sampling='paired'`", "jaxai", "paired"),
    ("jaxai `sampling='stratified'`", "jaxai", "stratified"),
    ("jaxai `sampling='glime'`", "jaxai", "glime"),
)
SHAP = (
    ("shap: `KernelExplainer`, `l1_reg=False`", "peer", "shap-kernel"),
    ("shap: `KernelExplainer` as shipped (ten features)", "peer", "shap-kernel-default"),
    ("Captum: `KernelShap`", "peer", "captum-kernel-shap"),
    ("shap: `Permutation`", "peer", "shap-permutation"),
    ("jaxai `kernel_shap`, `sampling='kernel'`", "jaxai", "kernel"),
    ("jaxai `kernel_shap`, `sampling='leverage'` (default)", "jaxai", "leverage"),
    ("jaxai `permutation_shapley`", "jaxai", "permutation"),
)


def _look_up(table, images):
    """Return scores [n, 1] of images [n, 1, S, 1] that show a superpixel where they are 1."""
    shown = (images[:, 0, :, 0] > 0.5).astype(jnp.int32)
    return table[shown @ (1 << jnp.arange(shown.shape[1]))][:, None]


def _first(scores):
    return scores[:, 0]


def coalitions(count):
    """Return all masks float32 [2^count, count] in the order of the table."""
    return (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(np.float32)


def superpixels(photo):
    """Return labels [1, height, width] with exactly `PLAYERS` superpixels by SLIC."""
    for wanted in range(PLAYERS, 3 * PLAYERS):
        segments = jaxai.segment(photo[None], method="slic", n_segments=wanted)
        if int(segments.max()) + 1 == PLAYERS:
            return segments
    raise ValueError(f"SLIC never cuts the photograph into {PLAYERS} superpixels")


def score_table(network, photo):
    """Return the top class's probability for all coalitions, hidden superpixels in their mean colour."""
    photo = jnp.asarray(photo)
    e = jaxai.lime(
        network.model,
        network.normalize(photo[None]),
        segments=superpixels(photo),
        masks=coalitions(PLAYERS),
        fill="mean",
    )
    return np.asarray(e.predictions[0]), network.labels[int(e.targets[0])]


def limits(table):
    """Return the weights of LIME with infinitely many masks and the Shapley values of a table."""
    count = int(np.log2(len(table)))
    masks = coalitions(count).astype(np.float64)
    values = table.astype(np.float64)
    distance = 1 - np.sqrt(masks.mean(1))
    root = np.exp(-(distance**2) / (4 * 0.25**2))[:, None]
    design = np.column_stack([np.ones(len(masks)), masks])
    lime = np.linalg.lstsq(design * root, values * root[:, 0], rcond=None)[0][1:]
    model = Partial(_look_up, jnp.asarray(table))
    image, segments = _picture(count)
    return {
        "lime": lime,
        "shap": np.asarray(jaxai.exact_shapley(model, image, _first, segments=segments).values[0]),
    }


def _picture(count):
    return jnp.ones((1, 1, count, 1)), jnp.arange(count)[None, None]


def ours(table, estimator, *, calls, seeds, alpha):
    """Return values [seeds, S] of one of jaxai's estimators, and its model calls a run."""
    count = int(np.log2(len(table)))
    model, (image, segments) = Partial(_look_up, jnp.asarray(table)), _picture(count)
    common = {"segments": segments, "fill": 0.0, "batch_size": 4096}
    rounds = (calls - 2) // (2 * (count - 1))
    spent = {
        "permutation": 2 + 2 * rounds * (count - 1),
        "kernel": calls // 2 * 2,
        "leverage": calls // 2 * 2,
    }
    rows = []
    for seed in range(seeds):
        key = jax.random.key(seed)
        if estimator == "permutation":
            e = jaxai.permutation_shapley(model, image, _first, key=key, num_permutations=rounds, **common)
            rows.append(e.values[0])
        elif estimator in ("kernel", "leverage"):
            e = jaxai.kernel_shap(
                model, image, _first, key=key, num_samples=calls - 2, sampling=estimator, **common
            )
            rows.append(e.values[0])
        else:
            e = jaxai.lime(
                model, image, _first, key=key, num_samples=calls, sampling=estimator, alpha=alpha, **common
            )
            rows.append(e.weights[0])
    return np.array(rows), spent.get(estimator, calls)


def theirs(worker, folder, estimator, path, *, calls, seeds, alpha):
    """Return values [seeds, S] of a peer's estimator, and its model calls a run."""
    command = {"estimator": estimator, "table": str(path), "calls": calls, "seeds": seeds, "alpha": alpha}
    saved = folder / "theirs.npy"
    for op, fields in (("open", command), ("run", {}), ("save", {"path": str(saved)})):
        answer = worker.ask(op, **fields)
        if not answer["ok"]:
            raise RuntimeError(f"{estimator}: {answer['error']}")
    found = np.load(saved).astype(np.float64)
    return found[:, :-1], int(round(found[:, -1].mean()))


def measure(tables, worker, folder, *, seeds):
    """Return a row for each kind, estimator and number of calls."""
    rows = []
    kinds = [("lime", LIME, 1.0), ("lime without penalty", LIME, 1e-3), ("shap", SHAP, 1.0)]
    truths = [limits(table) for table in tables]
    paths = [folder / f"table-{i}.npy" for i in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        np.save(path, table)
    for kind, estimators, alpha in kinds:
        for name, side, estimator in estimators:
            for calls in CALLS:
                errors = []
                for table, path, truth in zip(tables, paths, truths, strict=True):
                    run = {"calls": calls, "seeds": seeds, "alpha": alpha}
                    if side == "jaxai":
                        values, spent = ours(table, estimator, **run)
                    else:
                        values, spent = theirs(worker, folder, estimator, path, **run)
                    limit = truth[kind.split()[0]]
                    errors.append(np.square(values - limit).sum(1) / np.square(limit).sum())
                rows.append(row(kind, name, side, calls, spent, np.array(errors)))
                print(f"{kind:22} {name:58} {calls:5} {spent:5} {rows[-1]['error']:.4f}", flush=True)
    return rows


def row(kind, name, side, calls, spent, squares):
    """Return a row from squared relative errors [photos, seeds].

    The seeds of a photo are independent runs; the standard error is that of the root of their mean, to first
    order.
    """
    error = float(np.sqrt(squares.mean()))
    deviation = np.sqrt((squares.var(1, ddof=1) / squares.shape[1]).mean() / squares.shape[0])
    return {
        "kind": kind,
        "estimator": name,
        "side": side,
        "calls": calls,
        "spent": spent,
        "error": error,
        "standard_error": float(deviation / (2 * error)) if error else 0.0,
        "per_photo": [float(e) for e in np.sqrt(squares.mean(1))],
    }


TITLES = {
    "lime": "## LIME, ridge with alpha = 1 as lime_image has it",
    "lime without penalty": "## LIME, alpha = 0.001: the sampling alone",
    "shap": "## Shapley values",
}
NOTES = {
    "lime": "The limit is the weighted regression on all masks; every law below has it. The penalty shrinks"
    " weights alike on both sides, and is part of the error at few masks.",
    "lime without penalty": "The same without the shrinkage, which hides part of the differences.",
    "shap": "The limit is the exact Shapley values. shap's default keeps ten of the twelve superpixels, so"
    " its values do not tend to them.",
}


def markdown(report):
    """Return the report as tables."""
    lines = [
        "# Error to the limit at equal model calls",
        "",
        f"{report['date']}; EfficientNet-Lite0 ({report['weights']}), the photographs"
        f" {' and '.join(report['photos'])}, {PLAYERS} superpixels (SLIC), {report['seeds']} seeds each.",
        f"{', '.join(f'{name} {version}' for name, version in report['versions'].items())};"
        f" peers: {', '.join(f'{name} {version}' for name, version in report['peer_versions'].items())}.",
        "Root of the mean over seeds and photographs of |estimate - limit|^2 / |limit|^2, with its standard"
        " error. In brackets the model calls where they are not the number above.",
        "",
    ]
    for kind, title in TITLES.items():
        some = [row for row in report["rows"] if row["kind"] == kind]
        names = list(dict.fromkeys(row["estimator"] for row in some))
        found = {(row["estimator"], row["calls"]): row for row in some}
        lines += [title, "", NOTES[kind], "", f"| estimator | {' | '.join(f'{c} calls' for c in CALLS)} |"]
        lines.append("|---" * (1 + len(CALLS)) + "|")
        for name in names:
            cells = [cell(found[name, calls], [r for r in some if r["calls"] == calls]) for calls in CALLS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
        lines += verdicts(some)
        lines.append("")
    return "\n".join(lines)


def cell(row, column):
    """Return the text of an error; the lowest of the column is bold."""
    best = min(r["error"] for r in column)
    digits = f"{row['error']:.4f}"
    text = f"**{digits}**" if row["error"] == best else digits
    spent = "" if row["spent"] == row["calls"] else f" ({row['spent']})"
    return f"{text} ± {row['standard_error']:.4f}{spent}"


def verdicts(rows):
    """Return, for each number of calls, the best peer against jaxai's estimators."""
    lines = []
    for calls in CALLS:
        column = [row for row in rows if row["calls"] == calls]
        peer = min((row for row in column if row["side"] == "peer"), key=lambda row: row["error"])
        lines.append(f"{calls} calls, error relative to the best peer ({peer['estimator']}): ")
        parts = []
        for row in column:
            if row["side"] == "peer":
                continue
            apart = row["error"] - peer["error"]
            noise = 2 * np.hypot(row["standard_error"], peer["standard_error"])
            word = "lower" if apart < -noise else "HIGHER" if apart > noise else "no different"
            short = row["estimator"].removeprefix("jaxai ")
            parts.append(f"{short} {row['error'] / peer['error']:.2f} ({word})")
        lines[-1] += "; ".join(parts) + "."
        lines.append("")
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="interpreter with lime, shap and captum")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    from skimage import data

    network = jaxai.models.load("efficientnet_lite0")
    photos = network.crop([getattr(data, name)() for name in PHOTOS])
    scored = [score_table(network, photo) for photo in photos]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        threads = len(os.sched_getaffinity(0))
        worker = Worker(options.peer_python, "variance", threads=threads, log=folder / "peer.log")
        about = worker.ask("about")
        if not about["ok"]:
            raise SystemExit(
                f"the peers do not run: {about['error']} {(folder / 'peer.log').read_text()[-500:]}"
            )
        rows = measure([table for table, _ in scored], worker, folder, seeds=options.seeds)
        worker.close()
    report = {
        "date": datetime.date.today().isoformat(),
        "weights": "pretrained",
        "photos": [f"{name} ({label})" for name, (_, label) in zip(PHOTOS, scored, strict=True)],
        "seeds": options.seeds,
        "versions": machine.versions("jax", "jaxlib", "numpy"),
        "peer_versions": about["versions"],
        "rows": rows,
    }
    machine.write(options.out, "variance", report, markdown(report))


if __name__ == "__main__":
    main()
