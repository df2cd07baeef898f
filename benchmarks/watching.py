"""What a progress bar and Ctrl-C within a twentieth of a second cost a long run.

    python -m benchmarks.watching [--repeats 9] [--out DIR]

The pure functions are called as they are, and as the command calls them: in a thread beside the one that
watches for Ctrl-C and draws the bar on a terminal. EfficientNet-Lite0, one photograph. Both ways in turn; the
ratios are medians over neighbouring runs. Writes `watching.md` and `watching.json`.
"""

import argparse
import datetime
import os
import pty
import statistics
import threading
import time
from contextlib import redirect_stderr, suppress
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402
import skimage.data  # noqa: E402

from jaxai.report._progress import Progress  # noqa: E402
from jaxai.report._waiting import patiently  # noqa: E402

from . import machine, timing  # noqa: E402

TARGET, KEY = 285, jax.random.key(0)


def runs():
    """Return long runs by name; each waits for its own result."""
    net = jaxai.models.load("efficientnet_lite0")
    photo = net.crop(skimage.data.cat())
    x, segments = net.normalize(photo), jaxai.segment(photo)
    common = {"key": KEY}

    def lime():
        return jaxai.lime(net.model, x, TARGET, segments=segments, num_samples=1000, **common).weights

    def rise():
        return jaxai.rise(net.model, x, TARGET, num_masks=1000, **common)

    def gradients():
        return jaxai.integrated_gradients(net.model, x, TARGET, steps=128)

    def visualize():
        options = {"size": 224, "steps": 128, "normalize": net.normalize}
        return jaxai.visualize(net.model, [f"logits:{TARGET}"], **options, **common).images

    found = {
        "LIME, 1000 masks": lime,
        "RISE, 1000 masks": rise,
        "integrated gradients, 128 steps": gradients,
        "visualize, 128 steps": visualize,
    }
    return {name: lambda run=run: jax.block_until_ready(run()) for name, run in found.items()}


def watched(run, screen):
    """Return a run as the command does it, under a bar from the start."""

    def beside():
        with redirect_stderr(screen), Progress(clock=_later()) as progress:
            progress.expect(1, {"run": 1000.0})
            progress.calibrate(1000.0, 5.0)
            with progress.step("run", 1):
                return patiently(run, tick=progress.tick)

    return beside


def _later():
    """Return a clock that jumps after its first look, so that the bar's two seconds have passed."""
    begin = []

    def clock():
        begin.append(time.monotonic())
        return begin[-1] + (2.0 if len(begin) > 2 else 0.0)

    return clock


def terminal():
    """Return a terminal that nobody looks at."""
    reader, writer = pty.openpty()

    def swallow():
        with suppress(OSError):  # Closed at the end.
            while os.read(reader, 65536):
                pass

    threading.Thread(target=swallow, daemon=True).start()
    return os.fdopen(writer, "w", buffering=1)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    screen, rows = terminal(), []
    for name, run in runs().items():
        times = timing.alternate({"alone": run, "watched": watched(run, screen)}, repeats=args.repeats)
        rows.append(
            {
                "run": name,
                "ratio": timing.ratio(times["watched"], times["alone"]),
                "range": timing.spread(times["watched"], times["alone"]),
                "seconds": {way: statistics.median(values) for way, values in times.items()},
                "load": os.getloadavg()[0],
            }
        )
        print(rows[-1], flush=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.processor(),
        "versions": machine.versions("jax", "jaxlib", "numpy", "rich"),
        "repeats": args.repeats,
        "rows": rows,
    }
    machine.write(args.out, "watching", report, markdown(report))


def markdown(report):
    """Return the report as a table."""
    lines = [
        "# Watching: what a bar and Ctrl-C cost a long run",
        "",
        f"{report['date']}; {report['machine']};"
        f" {', '.join(f'{name} {version}' for name, version in report['versions'].items())}.",
        f"EfficientNet-Lite0, one photograph; medians of {report['repeats']} ratios of neighbouring runs.",
        "",
        "| run | watched / alone | range | s | load |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        low, high = row["range"]
        lines.append(
            f"| {row['run']} | **{row['ratio']:.3f}** | {low:.2f}-{high:.2f}"
            f" | {row['seconds']['watched']:.2f} / {row['seconds']['alone']:.2f} | {row['load']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
