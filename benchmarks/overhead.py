"""What explaining costs apart from the model: a network that costs nothing, 1000 masks on 224 x 224 pixels.

    python -m benchmarks.overhead --peer-python PYTHON [--samples 1000] [--repeats 5] [--out DIR]

PYTHON is an interpreter with the packages of the dependency group `reference`. The model is the mean of
sixteen pixels, so the time is that of drawing masks, making the changed images, and the fit. Both sides get
the same photograph and quickshift's superpixels. jaxai's model holds a barrier, so that every changed image
is really made; its Python form (`black_box`) gets the images as NumPy arrays. jaxai and the peer run in turn;
the table holds medians of the ratios of neighbours. Writes `overhead.md` and `overhead.json`.
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
from jax.tree_util import Partial  # noqa: E402

from . import machine, timing  # noqa: E402
from .client import Worker  # noqa: E402

# (jaxai's run, peer's run, peer, the peer's images a call; Captum ships with one, which takes longer)
PAIRS = (
    ("lime", "lime", "lime_image", (10, 100)),
    ("lime, black_box", "lime", "lime_image", (10,)),
    ("lime", "captum-lime", "Captum Lime", (100,)),
    ("kernel_shap", "shap", "shap KernelExplainer", (16,)),
    ("kernel_shap", "captum-kernel-shap", "Captum KernelShap", (100,)),
)


# Peers that take more seconds than this run once after the warm-up.
SLOW = 20


def model(images):
    """Return the mean of sixteen pixels of each image, all of whose pixels are made."""
    images = jax.lax.optimization_barrier(images)
    return images[:, ::56, ::56].mean((1, 2))


def runs(image, segments, samples):
    """Return jaxai's runs by name; each waits for its result."""
    x, labels = jnp.asarray(image)[None], jnp.asarray(segments)[None]
    key = jax.random.key(0)
    compiled, host = Partial(model), jaxai.perturbation.black_box(lambda x: x[:, ::56, ::56].mean((1, 2)))
    common = {"segments": labels, "key": key, "num_samples": samples}
    return {
        "lime": lambda: np.asarray(jaxai.lime(compiled, x, 0, **common).weights),
        "lime, black_box": lambda: np.asarray(jaxai.lime(host, x, 0, **common).weights),
        "kernel_shap": lambda: np.asarray(jaxai.kernel_shap(compiled, x, 0, **common).values),
        "rise": lambda: np.asarray(jaxai.rise(compiled, x, 0, key=key, num_masks=samples)),
    }


def measure(ours, worker, folder, image, segments, *, samples, repeats):
    """Return a row for each pair of runs."""
    paths = {"image": str(folder / "image.npy"), "segments": str(folder / "segments.npy")}
    np.save(paths["image"], image)
    np.save(paths["segments"], segments)
    rows = []
    for name, method, peer, sizes in PAIRS:
        for at_once in sizes:
            answer = worker.ask("open", method=method, samples=samples, at_once=at_once, **paths)
            answer = worker.ask("run") if answer["ok"] else answer
            if not answer["ok"]:
                raise RuntimeError(f"{peer}: {answer['error']}")
            ours[name]()
            mine, other = [], []
            for _ in range(repeats if answer["seconds"] < SLOW else 1):
                mine.append(timing.seconds(ours[name]))
                other.append(worker.ask("run")["seconds"])
            rows.append(
                {
                    "jaxai": name,
                    "peer": peer,
                    "at_once": at_once,
                    "ratio": timing.ratio(other, mine),
                    "range": timing.spread(other, mine),
                    "pairs": len(mine),
                    "milliseconds": [1e3 * statistics.median(mine), 1e3 * statistics.median(other)],
                    "load": os.getloadavg()[0],
                }
            )
            print(rows[-1], flush=True)
    return rows


def alone(ours, *, repeats):
    """Return jaxai's times in seconds, and those of the first call, which compiles."""
    times = {}
    for name, run in ours.items():
        first = timing.seconds(run)
        times[name] = {"first": first, "warm": [timing.seconds(run) for _ in range(repeats)]}
    return times


def markdown(report):
    """Return the report as tables."""
    lines = [
        "# Overhead: what explaining costs apart from the model",
        "",
        f"{report['date']}; {report['machine']}; load of the machine in each row (this benchmark included).",
        f"{', '.join(f'{name} {version}' for name, version in report['versions'].items())};"
        f" peers: {', '.join(f'{name} {version}' for name, version in report['peer_versions'].items())}.",
        f"{report['samples']} masks, 224 x 224 pixels, {report['segments']} superpixels, a model that is the"
        " mean of sixteen pixels. Medians of the ratios of neighbouring runs.",
        "",
        "| jaxai | peer | peer's images a call | peer / jaxai | range | pairs | ms | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        low, high = row["range"]
        mine, other = row["milliseconds"]
        lines.append(
            f"| {row['jaxai']} | {row['peer']} | {row['at_once']} | **{row['ratio']:.1f}**"
            f" | {low:.1f}-{high:.1f} | {row['pairs']} | {mine:.0f} / {other:.0f} | {row['load']:.1f} |"
        )
    if report.get("note"):
        lines += ["", report["note"]]
    lines += ["", "jaxai alone, and its first call with compilation:", "", "| method | ms | first call ms |"]
    lines.append("|---|---|---|")
    for name, times in report["alone"].items():
        lines.append(
            f"| {name} | {1e3 * statistics.median(times['warm']):.0f} | {1e3 * times['first']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="interpreter with lime, shap and captum")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--note", default="", help="a remark to print below the table")
    options = parser.parse_args()
    from skimage import data, transform

    photo = transform.resize(data.chelsea()[:, 75:375], (224, 224), anti_aliasing=True).astype(np.float32)
    segments = np.asarray(jaxai.segment(photo[None])[0])
    ours = runs(photo, segments, options.samples)
    times = alone(ours, repeats=options.repeats)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        threads = len(os.sched_getaffinity(0))
        worker = Worker(options.peer_python, "overhead", threads=threads, log=folder / "peer.log")
        about = worker.ask("about")
        if not about["ok"]:
            raise SystemExit(f"the peers do not run: {about['error']}")
        rows = measure(
            ours, worker, folder, photo, segments, samples=options.samples, repeats=options.repeats
        )
        worker.close()
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine.processor()}, {jax.default_backend()}",
        "versions": machine.versions("jax", "jaxlib", "numpy"),
        "peer_versions": about["versions"],
        "samples": options.samples,
        "segments": int(segments.max()) + 1,
        "note": options.note,
        "rows": rows,
        "alone": times,
    }
    machine.write(options.out, "overhead", report, markdown(report))


if __name__ == "__main__":
    main()
