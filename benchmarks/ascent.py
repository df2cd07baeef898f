"""Feature visualization against PyTorch: steps a second, in alternation, each side in a process of its own.

    python -m benchmarks.ascent --peer-python PYTHON [--networks ...] [--batches 1 16] [--steps 8]
                                [--precisions float32 bfloat16] [--repeats 3] [--out benchmarks/results]
                                [--update]

PYTHON is an interpreter with the dependency group `reference`. The tuned loop has the same recipe: Fourier
coefficients, one affine resampling an image, Adam, the network cut after the layer, frozen and channels-last.
torch-lucent runs as shipped, in float32. Also printed: jaxai's step over the bare gradient of the network, as
what everything around the network costs. Writes `ascent.md` and `ascent.json`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from . import inputs, machine, timing
from .cases import NETWORKS, Case
from .client import Worker

_FLOORS = {"loop": 1.3, "lucent": 2.0}


def times_of(workers, commands, repeats):
    """Return the seconds of rounds by name, alternating; None if a side does not offer its case."""
    for name, command in commands.items():
        answer = workers[name].ask("open", **command)
        if not answer.get("offered"):
            print(f"  {name}: {answer.get('error', 'not offered')}", flush=True)
            return None
        warm = workers[name].ask("run")
        if not warm["ok"]:
            print(f"  {name}: {warm['error']}", flush=True)
            return None
    rounds = {name: [] for name in commands}
    for _ in range(repeats):
        for name in commands:
            rounds[name].append(workers[name].ask("run")["seconds"])
    return rounds


def rows_of(workers, base, network, batch, precision, steps, repeats):
    """Return the rows of one size: both peers, and jaxai's own overhead."""

    def command(tuned=True, **options):
        case = Case("visualize", network, batch, options).message()
        return base | {"case": case, "precision": precision, "tuned": tuned}

    rows = []
    start = {"network": network, "batch": batch, "precision": precision, "steps": steps}
    for peer in ("loop", "lucent"):
        if peer == "lucent" and precision != "float32":
            continue
        both = {"jaxai": command(steps=steps), "torch": command(peer == "loop", steps=steps, peer=peer)}
        found = times_of(workers, both, repeats)
        if found:
            ratio = timing.ratio(found["torch"], found["jaxai"])
            rows.append(start | {"against": peer, "ratio": ratio, "floor": _FLOORS[peer], "seconds": found})
    short, long = command(steps=steps), command(steps=3 * steps)
    bare = command(bare=True)
    lengths = []
    for one in (short, long, bare):
        found = times_of(workers, {"jaxai": one}, repeats)
        if not found:
            return rows
        lengths.append(sorted(found["jaxai"])[len(found["jaxai"]) // 2])
    step = (lengths[1] - lengths[0]) / (2 * steps)
    rows.append(start | {"against": "bare gradient", "ratio": step / lengths[2], "step_seconds": step})
    return rows


def _size(row):
    return row["network"], row["batch"], row["precision"]


def table(result):
    """Return the table as Markdown."""
    names = {
        "loop": "tuned PyTorch loop / jaxai",
        "lucent": "torch-lucent / jaxai",
        "bare gradient": "jaxai's step / the network's gradient alone",
    }
    versions = {k: v for side in result["versions"].values() for k, v in side.items() if k != "python"}
    lines = [
        "# Feature visualization: a step of the optimisation",
        "",
        f"{result['machine']}; load of other programs at the start {result['load']:.1f};"
        f" {', '.join(f'{k} {v}' for k, v in versions.items())}.",
        "Medians of neighbouring runs; 224 pixels, Fourier parameters, jitter, scale and rotation, Adam.",
        "",
        "| network | images | precision | what | ratio | aim |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        aim = f"at least {row['floor']}" if "floor" in row else "at most 1.15"
        cells = (row["network"], row["batch"], row["precision"], names[row["against"]])
        lines.append(f"| {' | '.join(map(str, cells))} | **{row['ratio']:.2f}** | {aim} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--update", action="store_true", help="keep the other rows that the file has")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "ascent.json"
    old = json.loads(path.read_text())["rows"] if options.update and path.exists() else []
    result = {"machine": machine.processor(), "load": os.getloadavg()[0], "rows": old}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workers = {
            "jaxai": Worker(
                sys.executable, "jaxai-ascent", threads=options.threads, log=folder / "jaxai.log"
            ),
            "torch": Worker(
                options.peer_python, "pytorch-ascent", threads=options.threads, log=folder / "torch.log"
            ),
        }
        result["versions"] = {name: worker.ask("about").get("versions") for name, worker in workers.items()}
        for network in options.networks:
            base = inputs.ask(network, scratch, batch=max(options.batches), samples=1)
            base.pop("where")
            for precision in options.precisions:
                for batch in options.batches:
                    new = rows_of(workers, base, network, batch, precision, options.steps, options.repeats)
                    measured = {_size(row) for row in new}
                    kept = [row for row in result["rows"] if _size(row) not in measured]
                    result["rows"] = sorted(kept + new, key=_size)
                    for row in new:
                        print(
                            f"{network} {batch} {precision} / {row['against']}: {row['ratio']:.2f}",
                            flush=True,
                        )
                    path.write_text(json.dumps(result, indent=1) + "\n")
                    (options.out / "ascent.md").write_text(table(result))
        for worker in workers.values():
            worker.close()


if __name__ == "__main__":
    main()
