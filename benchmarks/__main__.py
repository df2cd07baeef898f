"""jaxai against its peers, in alternation, each side in a process of its own.

    python -m benchmarks --peer-python PYTHON [--quick] [--full] [--networks ...] [--peers ...]
                         [--precision float32] [--device cpu|gpu] [--methods ...] [--huge-pages]
                         [--out benchmarks/results/peers.json] [--update]

PYTHON is an interpreter with the dependency group `reference`. Both sides get the same weights,
photos, superpixels, masks, number of samples, precision and threads. A round runs jaxai, then the peer; the
table holds medians of the ratios of rounds. The first run, with compilation, is the cold time.
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

PEERS = (
    "pytorch",
    "torch.compile",
    "captum",
    "pytorch-grad-cam",
    "zennit",
    "lime",
    "shap",
    "torch-lucent",
    "xplique",
)


def agreement(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the correlation of two results, the mean over images; None if their shapes differ."""
    if a.shape != b.shape:
        return None
    pairs = [
        (x.reshape(-1).astype(np.float64), y.reshape(-1).astype(np.float64))
        for x, y in zip(a, b, strict=True)
    ]
    found = [np.corrcoef(x, y)[0, 1] for x, y in pairs if x.std() and y.std()]
    return float(np.mean(found)) if found else None


def compare(case: Case, workers: dict[str, Worker], command: dict, folder: Path) -> list[dict]:
    """Time one case on jaxai and on every peer that offers it, as shipped and tuned."""
    ours = workers["jaxai"]
    opened = ours.ask("open", **command, tuned=True)
    if not opened.get("offered"):
        return [{"case": case.message(), "name": case.name, "error": opened.get("error", "not offered")}]
    cold = ours.ask("run")
    if not cold["ok"]:
        return [{"case": case.message(), "name": case.name, "error": cold["error"]}]
    base = {"case": case.message(), "name": case.name, "jaxai_cold": cold["seconds"]}
    saved = folder / "ours.npy"
    memory = ours.ask("save", path=str(saved))["peak_memory"]
    rows = []
    for side, worker in workers.items():
        for tuned in (False, True) if side != "jaxai" else ():
            answer = worker.ask("open", **command, tuned=tuned)
            if answer["ok"] and not answer["offered"]:
                break
            note = answer.get("note", "")
            answer = worker.ask("run") if answer["ok"] else answer
            row = base | {"peer": side, "tuned": tuned, "jaxai_peak_memory": memory, "note": note}
            if not answer["ok"]:
                rows.append(row | {"error": answer["error"]})
                continue
            theirs = folder / "theirs.npy"
            row["peer_cold"] = answer["seconds"]
            row["peer_peak_memory"] = worker.ask("save", path=str(theirs))["peak_memory"]
            row["agreement"] = agreement(np.load(saved), np.load(theirs))
            pairs = [(ours.ask("run")["seconds"], worker.ask("run")["seconds"]) for _ in range(case.repeats)]
            row["jaxai"], row["peer_seconds"] = (list(times) for times in zip(*pairs, strict=True))
            row["ratio"] = timing.ratio(row["peer_seconds"], row["jaxai"])
            row["range"] = timing.spread(row["peer_seconds"], row["jaxai"])
            rows.append(row)
            worker.ask("close")
    if not rows:
        times = [ours.ask("run")["seconds"] for _ in range(case.repeats)]
        rows.append(base | {"peer": None, "jaxai": times, "jaxai_peak_memory": memory})
    ours.ask("close")
    return rows


def matrix_peak(python: str, size: int = 2048) -> float:
    """Return the GFLOP/s of a float32 matrix product in jaxai's interpreter, the best of several."""
    code = (
        "import jaxai; jaxai.configure_cpu()\n"
        "import jax, jax.numpy as jnp, time\n"
        f"a = jax.random.normal(jax.random.key(0), ({size}, {size})); f = jax.jit(jnp.matmul)\n"
        "best = 1e9\n"
        "for _ in range(12):\n"
        "    start = time.perf_counter(); f(a, a).block_until_ready()\n"
        "    best = min(best, time.perf_counter() - start)\n"
        f"print(2 * {size}**3 / best / 1e9)\n"
    )
    root = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, cwd=root)
    return float(done.stdout.strip())


def main() -> int:
    """Run the comparison and write table, picture and JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", default=None, help="interpreter with the peers; none: jaxai alone")
    parser.add_argument("--quick", action="store_true", help="the cheap rows only")
    parser.add_argument("--full", action="store_true", help="as many samples and images as papers use")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--methods", nargs="+", default=None, help="only these methods")
    parser.add_argument(
        "--peers", nargs="*", default=None, choices=PEERS, help="these alone, all of which must start"
    )
    parser.add_argument("--precision", default="float32", choices=("float32", "tf32", "bfloat16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu", "tpu"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--huge-pages", action="store_true", help="both sides with GLIBC_TUNABLES=glibc.malloc.hugetlb=1"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peers.json")
    parser.add_argument("--update", action="store_true", help="keep the other rows that the file has")
    options = parser.parse_args()
    old = json.loads(options.out.read_text()) if options.update and options.out.exists() else None
    if options.huge_pages:  # The workers inherit it; it counts from a process's start only.
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.environ["JAXAI_BENCHMARK_DEVICE"] = options.device
    os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}[options.device]
    if options.device == "gpu":
        rounded = options.precision == "tf32"
        os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "tensorfloat32" if rounded else "highest"
        os.environ |= {"JAXAI_BENCHMARK_TF32": "1"} if rounded else {}
    elif options.precision == "tf32":
        parser.error("--precision tf32 is a GPU's: add --device gpu")
    conditions = {
        "machine": machine.processor(),
        "precision": options.precision,
        "threads": options.threads,
        "huge_pages": options.huge_pages,
    }
    if old:
        report.check_conditions(old, conditions)
    named = options.peers is not None
    if options.peers and not options.peer_python:
        parser.error("--peers needs --peer-python, the interpreter that they run in")
    peers = (options.peers if named else PEERS) if options.peer_python else []
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        peak = matrix_peak(sys.executable)
        workers = {
            side: Worker(
                sys.executable if side == "jaxai" else options.peer_python,
                side,
                threads=options.threads,
                log=folder / f"{side}.log",
            )
            for side in ("jaxai", *peers)
        }
        about = {}
        for side in list(workers):
            answer = workers[side].ask("about")
            about[side] = answer
            if not answer["ok"]:
                workers.pop(side).close()
                if side == "jaxai" or named:
                    for worker in workers.values():
                        worker.close()
                    parser.error(f"{side} does not start, nothing was measured: {answer['error']}")
                print(f"{side} is left out: {answer['error']}", flush=True)
        where = {}
        for network in options.networks:
            chosen = [
                case
                for case in cases(quick=options.quick, full=options.full, networks=(network,))
                if options.methods is None or case.method in options.methods
            ]
            most = max((case.options.get("samples", 1) for case in chosen), default=1)
            given = inputs.ask(network, scratch, batch=16, samples=most)
            where[network] = given.pop("where")
            for case in chosen:
                stored = "bfloat16" if options.precision == "bfloat16" else "float32"
                command = given | {"case": case.message(), "precision": stored}
                new = compare(case, workers, command, folder)
                rows += new
                for row in new:
                    print(report.line(row), flush=True)
                result = conditions | {
                    "date": datetime.date.today().isoformat(),
                    "load": load,
                    "matrix_peak_gflops": peak,
                    "weights": where,
                    "sides": about,
                    "rows": rows,
                }
                report.write(report.merge(old, result) if old else result, options.out)
        for worker in workers.values():
            worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
