"""How time and memory of jaxai's methods grow with what they are given, on one network.

    python -m benchmarks.scaling [--network efficientnet_lite0] [--device cpu|gpu|tpu] [--repeats 3]
                                 [--out benchmarks/results]

Each curve varies one size and leaves the others: images, targets, steps, masks, windows, pixels of a side.
Its memory is what XLA plans for a compiled call besides arguments and results (`memory_analysis()`), with the
chunk size held at `--batch-size`. Writes `scaling.md`, `scaling.json` and `scaling.png`.
"""

import argparse
import datetime
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import jaxai

from . import machine, timing


@dataclass(frozen=True)
class Curve:
    """One method with one size that varies.

    Attributes:
        method: Name of the method.
        what: What is varied.
        sizes: Its values, rising.
        count: How many passes of one image a size asks for; the time should follow it.
        call: `call(size, batch_size) -> (function of (model, images), images)`.
    """

    method: str
    what: str
    sizes: tuple[int, ...]
    count: Callable[[int], float]
    call: Callable[[int, int], tuple[Callable[..., Any], Any]]


def curves(layer: str) -> list[Curve]:
    """Return the curves; `layer` is where Grad-CAM looks."""
    import jax
    import jax.numpy as jnp

    key = jax.random.key(0)

    def pictures(batch=1, side=224):
        return jax.random.normal(jax.random.key(1), (batch, side, side, 3))

    def grid(side, cells=7):
        positions = jnp.arange(side) * cells // side
        return (positions[:, None] * cells + positions[None])[None]

    def one(x):
        return jnp.zeros(x.shape[0], jnp.int32)

    def cam_images(n, chunk):
        return lambda m, x: jaxai.grad_cam(m, x, one(x), layer=layer, batch_size=chunk), pictures(n)

    def cam_targets(n, chunk):
        targets = jnp.arange(n)[None]
        return lambda m, x: jaxai.grad_cam(m, x, targets, layer=layer, batch_size=chunk), pictures()

    def cam_pixels(n, chunk):
        return lambda m, x: jaxai.grad_cam(m, x, one(x), layer=layer, batch_size=chunk), pictures(1, n)

    def ig_images(n, chunk):
        run = lambda m, x: jaxai.integrated_gradients(m, x, one(x), steps=8, batch_size=chunk)  # noqa: E731
        return run, pictures(n)

    def ig_steps(n, chunk):
        return lambda m, x: jaxai.integrated_gradients(m, x, one(x), steps=n, batch_size=chunk), pictures()

    def smooth(n, chunk):
        run = lambda m, x: jaxai.smooth_grad(m, x, one(x), key=key, num_samples=n, batch_size=chunk)  # noqa: E731
        return run, pictures()

    def lime(n, chunk):
        x = pictures()
        segments = grid(x.shape[1])
        run = lambda m, x: (  # noqa: E731
            jaxai.lime(
                m, x, one(x), segments=segments, key=key, num_samples=n, num_segments=49, batch_size=chunk
            ).weights
        )
        return run, x

    def rise(n, chunk):
        return lambda m, x: jaxai.rise(m, x, one(x), key=key, num_masks=n, batch_size=chunk), pictures()

    def occlusion(n, chunk):
        stride = 224 // n
        run = lambda m, x: jaxai.occlusion(  # noqa: E731
            m, x, one(x), window=(stride, stride), strides=(stride, stride), batch_size=chunk
        )
        return run, pictures()

    counts = (1, 2, 4, 8, 16, 32)
    many = (32, 64, 128, 256, 512, 1024)
    return [
        Curve("grad_cam", "images", counts, float, cam_images),
        Curve("grad_cam", "targets", (1, 2, 5, 10, 50, 100), lambda n: 1.0, cam_targets),
        Curve("grad_cam", "pixels of a side", (96, 128, 192, 224, 320, 448), lambda n: n * n, cam_pixels),
        Curve("integrated_gradients", "images", counts[:-1], float, ig_images),
        Curve("integrated_gradients", "steps", (8, 16, 32, 64, 128), float, ig_steps),
        Curve("smooth_grad", "samples", (8, 16, 32, 64, 128), float, smooth),
        Curve("lime", "masks", many, float, lime),
        Curve("rise", "masks", many, float, rise),
        Curve("occlusion", "windows of a side", (4, 7, 14, 28), lambda n: n * n, occlusion),
    ]


def measure(curve: Curve, model: Any, *, batch_size: int, repeats: int) -> dict[str, Any]:
    """Compile and time a curve's sizes, in alternation."""
    import jax

    runs, memory, compiling = {}, [], []
    for size in curve.sizes:
        function, images = curve.call(size, batch_size)
        lowered = jax.jit(function).lower(model, images)
        made: list[Any] = []
        compiling.append(timing.seconds(lambda lowered=lowered, made=made: made.append(lowered.compile())))
        memory.append(made[0].memory_analysis().temp_size_in_bytes)
        runs[str(size)] = lambda run=made[0], x=images: jax.block_until_ready(run(model, x))
    times = timing.alternate(runs, repeats=repeats)
    seconds = [statistics.median(times[str(size)]) for size in curve.sizes]
    counts = [curve.count(size) for size in curve.sizes]
    return {
        "method": curve.method,
        "what": curve.what,
        "sizes": list(curve.sizes),
        "work": counts if np.ptp(counts) else list(curve.sizes),
        "seconds": seconds,
        "compile_seconds": compiling,
        "bytes": memory,
        "exponent": exponent(counts, seconds),
    }


def exponent(counts: list[float], seconds: list[float]) -> float | None:
    """Return the slope of log(time) over log(count) in a curve's upper half; None for a constant count."""
    half = len(counts) // 2
    x, y = np.log(counts[half:]), np.log(seconds[half:])
    return float(np.polyfit(x, y, 1)[0]) if np.ptp(x) else None


def markdown(report: dict[str, Any]) -> str:
    """Return the report as a table."""
    lines = [
        "# Time and memory against size",
        "",
        f"{report['date']}; {report['machine']}; load of other programs at the start {report['load']:.1f};"
        f" {', '.join(f'{k} {v}' for k, v in report['versions'].items())};"
        f" `{report['flags'] or 'default flags'}`.",
        f"{report['network']}, 224 x 224 pixels, float32, `batch_size={report['batch_size']}`. *Exponent*:"
        " slope of log(time) over log(work) in a curve's upper half; work is the number of images, steps,"
        " masks, windows or pixels (1: linear). Memory: what the compiled call needs besides arguments and"
        " results.",
        "",
        "![curves](scaling.png)",
        "",
        "| method | varied | sizes | seconds | exponent | memory, MB | compile, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        slope = "constant work" if row["exponent"] is None else f"{row['exponent']:.2f}"
        cells = [
            ", ".join(map(str, row["sizes"])),
            ", ".join(f"{s:.3g}" for s in row["seconds"]),
            slope,
            ", ".join(f"{b / 1e6:.0f}" for b in row["bytes"]),
            f"{min(row['compile_seconds']):.1f}-{max(row['compile_seconds']):.1f}",
        ]
        lines.append(f"| {row['method']} | {row['what']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(report: dict[str, Any], path: Path) -> None:
    """Draw each curve relative to its first size: time, and memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    markers = "osD^vP*Xh"
    for row, marker in zip(report["rows"], markers, strict=False):
        x = np.array(row["work"]) / row["work"][0]
        options = {"marker": marker, "markersize": 4, "linewidth": 1.2}
        left.plot(x, np.array(row["seconds"]) / row["seconds"][0], **options)
        label = f"{row['method']}: {row['what'].removesuffix(' of a side')}"
        right.plot(x, np.array(row["bytes"]) / row["bytes"][0], label=label, **options)
    left.plot([1, 100], [1, 100], color="black", linestyle=":", linewidth=1)
    for axes, title in ((left, "time (dotted: linear)"), (right, "planned memory")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("work (images, targets, steps, masks, windows, pixels) / smallest")
        axes.set_title(f"{title}, relative to the smallest", fontsize=10)
        axes.grid(alpha=0.3)
    right.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure all curves and write table, JSON and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="efficientnet_lite0", choices=("efficientnet_lite0", "vgg16"))
    parser.add_argument("--methods", nargs="+", default=None, help="only these methods")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu", "tpu"))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}[options.device]
    load = os.getloadavg()[0]
    if options.device == "cpu":
        jaxai.configure_cpu()
    import jax

    from . import networks
    from .ours import LAYERS

    model, _ = networks.load(options.network)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine.processor()}, {jax.devices()[0].device_kind}",
        "load": load,
        "versions": machine.versions("jax", "jaxlib"),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "network": options.network,
        "batch_size": options.batch_size,
        "rows": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for curve in curves(LAYERS[options.network]):
        if options.methods and curve.method not in options.methods:
            continue
        row = measure(curve, model, batch_size=options.batch_size, repeats=options.repeats)
        report["rows"].append(row)
        print(row["method"], row["what"], [f"{s:.3g}" for s in row["seconds"]], row["bytes"], flush=True)
    (options.out / "scaling.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "scaling.md").write_text(markdown(report))
    picture(report, options.out / "scaling.png")


if __name__ == "__main__":
    main()
