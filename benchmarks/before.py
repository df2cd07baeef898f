"""This version beside an older one, in alternation: times, first calls, and whether results are the same.

    python -m benchmarks.before CHECKOUT [--networks ...] [--methods ...] [--quick] [--out DIR] [--update]

CHECKOUT is a working tree of the older version (`git worktree add CHECKOUT COMMIT`), whose own
`benchmarks.worker` runs there with this interpreter. Both get the same weights, photos and samples. A round
runs the older version, then this one; the table holds medians of the ratios of rounds. Writes `before.md` and
`before.json`.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from . import inputs, machine, report, timing
from .cases import NETWORKS, Case, cases
from .client import Worker

# A row that differs by less counts as the same.
SAME = 1.05


def rows_of(network: str, *, quick: bool) -> list[Case]:
    """Return the rows of a network, and forward passes of more images of a large one."""
    extra = [Case("forward", network, 16)] if network == "vgg16" else []
    return [*cases(quick=quick, networks=(network,)), *extra]


def compare(case: Case, older: Worker, newer: Worker, command: dict, folder: Path) -> dict:
    """Time one row in both versions.

    Returns:
        The seconds of both, of their first calls, the ratio, and the largest difference of the results over
        the largest value; or `error`.
    """
    row: dict = {"network": case.network, "name": case.name, "batch": case.batch}
    files = {"older": folder / "older.npy", "newer": folder / "newer.npy"}
    for name, worker in {"older": older, "newer": newer}.items():
        opened = worker.ask("open", **command, tuned=True)
        first = worker.ask("run") if opened.get("offered") else opened
        if not first["ok"] or "seconds" not in first:
            return row | {"error": f"{name}: {first.get('error', 'not offered')}"}
        row[f"{name}_first"] = first["seconds"]
        worker.ask("save", path=str(files[name]))
    was, now = np.load(files["older"]), np.load(files["newer"])
    if was.shape == now.shape:
        row["difference"] = float(np.abs(was - now).max() / max(np.abs(was).max(), 1e-30))
    # Of short runs more, so that the median says something.
    count = max(case.repeats, 5 if row["newer_first"] < 20 else 3)
    pairs = [(older.ask("run")["seconds"], newer.ask("run")["seconds"]) for _ in range(count)]
    row["older"], row["newer"] = (list(times) for times in zip(*pairs, strict=True))
    row["ratio"] = timing.ratio(row["newer"], row["older"])
    row["range"] = timing.spread(row["newer"], row["older"])
    for worker in (older, newer):
        worker.ask("close")
    return row


def write(result: dict, out: Path) -> None:
    """Write the JSON and the table."""
    (out / "before.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "before.md").write_text(table(result))


def table(result: dict) -> str:
    """Return the table as Markdown."""
    timed = [row for row in result["rows"] if "ratio" in row]
    slower = sum(row["ratio"] > SAME for row in timed)
    faster = sum(row["ratio"] < 1 / SAME for row in timed)
    after = " and ".join(dict.fromkeys(row.get("after", result["after"]) for row in result["rows"]))
    lines = [
        f"# Before and after: commit {result['before']} and {after}",
        "",
        f"{result['date']}; {result['machine']}, {result['threads']} threads, load {result['load']:.1f}, jax "
        f"{result['jax']}. Both versions in turn, the same interpreter, weights, photos and samples.",
        "",
        f"Of {len(timed)} rows, {faster} are faster by more than 5 %, {slower} slower. The first call traces "
        "and compiles. The difference is the largest over the largest value of the older version's result.",
        "",
        "| network | row | images | before s | after s | **after / before** (range) | first call before s "
        "| first call after s | difference |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        start = f"| {row['network']} | {row['name']} | {row['batch']} |"
        if "ratio" not in row:
            lines.append(f"{start} {row['error']} | | | | | |")
            continue
        was, now = (float(np.median(row[name])) for name in ("older", "newer"))
        low, high = row["range"]
        difference = f"{row['difference']:.0e}" if "difference" in row else "other shape"
        lines.append(
            f"{start} {was:.3g} | {now:.3g} | **{row['ratio']:.2f}** ({low:.2f}-{high:.2f}) "
            f"| {row['older_first']:.1f} | {row['newer_first']:.1f} | {difference} |"
        )
    return "\n".join(lines) + "\n"


def merged(old: dict, new: dict) -> dict:
    """Return a result with the rows of an earlier one that it has not measured."""
    measured = {_key(row) for row in new["rows"]}
    kept = [{"after": old["after"]} | row for row in old["rows"] if _key(row) not in measured]
    rows = sorted([*kept, *new["rows"]], key=lambda row: NETWORKS.index(row["network"]))
    return new | {"rows": rows, "load": max(old["load"], new["load"])}


def _key(row: dict) -> tuple:
    return row["network"], row["name"], row["batch"]


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Time all rows in both versions, and write the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="a working tree of the older version")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--methods", nargs="+", default=None, help="only these methods")
    parser.add_argument("--quick", action="store_true", help="the cheap rows only")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--update", action="store_true", help="keep the other rows that the file has")
    options = parser.parse_args()
    checkout = options.checkout.absolute()
    if not (checkout / "benchmarks" / "worker.py").is_file():
        parser.error(f"{options.checkout} holds no benchmarks/worker.py")
    threads = len(os.sched_getaffinity(0))
    kept = options.out / "before.json"
    old = json.loads(kept.read_text()) if options.update and kept.exists() else None
    result = {
        "before": _commit(checkout),
        "after": _commit(Path(__file__).parent),
        "date": datetime.date.today().isoformat(),
        "machine": machine.processor(),
        "threads": threads,
        "load": os.getloadavg()[0],
        "jax": machine.versions("jax")["jax"],
        "rows": [],
    }
    if old:
        report.check_conditions(old, result, ("before", "machine", "threads", "jax"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        older, newer = (
            Worker(sys.executable, "jaxai", threads=threads, log=folder / f"{name}.log", root=root)
            for name, root in (("older", checkout), ("newer", None))
        )
        for network in options.networks:
            chosen = [
                case
                for case in rows_of(network, quick=options.quick)
                if options.methods is None or case.method in options.methods
            ]
            most = max((case.options.get("samples", 1) for case in chosen), default=1)
            given = inputs.ask(network, scratch, batch=16, samples=most)
            given.pop("where")
            for case in chosen:
                command = given | {"case": case.message(), "precision": "float32"}
                row = compare(case, older, newer, command, folder) | {"after": result["after"]}
                result["rows"].append(row)
                print(row["name"], row.get("ratio", row.get("error")), row.get("difference"), flush=True)
                write(merged(old, result) if old else result, options.out)
        for worker in (older, newer):
            worker.close()


if __name__ == "__main__":
    main()
