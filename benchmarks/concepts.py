"""Concepts and their peers: TCAV (Captum), CRAFT (Xplique), TopK autoencoders (overcomplete).

    python -m benchmarks.concepts --peer-python PYTHON [--xplique-python PYTHON] [--repeats 5]
        [--only tcav,craft,craft_documented,sae] [--out DIR]

PYTHON is an interpreter with torch, captum and overcomplete, and with xplique and tensorflow.
Both sides have the same weights of EfficientNet-Lite0, the same images and, for the autoencoder, the same
activations. A round runs jaxai and then the peer, each as its documentation calls it; *faster* is the median
of the rounds' ratios. Writes `concepts.md` and `concepts.json`.
"""

import argparse
import datetime
import json
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from . import inputs, machine, networks, timing  # noqa: E402
from .client import Worker  # noqa: E402

NETWORK, LAYER = "efficientnet_lite0", "conv_head"
TESTS, CONCEPT, RANDOM = 4, 10, 24
# Images of a class, concepts and side of the crops in the example of Xplique's page on CRAFT.
IMAGES = 50
TARGET = 285
KEY = jax.random.key(0)
CASES = {
    "tcav": {
        "side": "concepts",
        "peer": "Captum",
        "what": "4 images, a concept of 10, 24 random images, 3 draws of chance",
        "options": {"draws": 3, "target": TARGET},
    },
    "craft": {
        "side": "craft",
        "peer": "Xplique",
        "what": "4 images, 20 concepts, 32 designs, 64 crops of 64 pixels",
        "options": {"concepts": 20, "designs": 32, "crop": 64, "target": TARGET},
    },
    "craft_documented": {
        "side": "craft",
        "peer": "Xplique",
        "what": "the example of its page: 50 images, 10 concepts, 32 designs, 450 crops of 80 pixels",
        "images": IMAGES,
        "options": {"concepts": 10, "designs": 32, "crop": 80, "target": TARGET},
    },
    "sae": {
        "side": "concepts",
        "peer": "overcomplete",
        "what": "100 steps of 512 activations, 384 features, 2048 codes, k = 32",
        "options": {"steps": 100, "examples": 512, "codes": 2048, "k": 32},
    },
}


def calls(model, data):
    """Return jaxai's calls by case."""
    options = {name: case["options"] for name, case in CASES.items()}
    images, x = jnp.asarray(data["images"]), jnp.asarray(data["images"][:TESTS])
    concept, random, acts = (jnp.asarray(data[name]) for name in ("concept", "random", "acts"))

    def tcav():
        found = jaxai.concepts.tcav(
            model,
            x,
            TARGET,
            layer=LAYER,
            concept=concept,
            random=random,
            key=KEY,
            num_draws=options["tcav"]["draws"],
        )
        return np.concatenate([np.atleast_1d(found.score), found.null])

    def craft(name, x):
        wanted = options[name]
        found = jaxai.concepts.craft(
            model,
            x,
            TARGET,
            layer=LAYER,
            key=KEY,
            num_concepts=wanted["concepts"],
            crop=wanted["crop"],
            num_designs=wanted["designs"],
        )
        jax.block_until_ready(found)
        return np.asarray(found.importance)

    def sae():
        wanted = options["sae"]
        found = jaxai.concepts.sae(
            acts,
            num_codes=wanted["codes"],
            k=wanted["k"],
            key=KEY,
            steps=wanted["steps"],
            examples=wanted["examples"],
        )
        return np.asarray([found.r2])

    return {
        "tcav": tcav,
        "craft": partial(craft, "craft", x),
        "craft_documented": partial(craft, "craft_documented", images),
        "sae": sae,
    }


def planted(rows, features, entries, active):
    """Return activations that are made of `active` of the entries of a dictionary each."""
    rng = np.random.default_rng(0)
    dictionary = rng.normal(size=(entries, features)).astype(np.float32)
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    chosen = rng.random((rows, entries)).argsort(1)[:, :active]
    amounts = rng.gamma(2.0, size=(rows, active, 1)).astype(np.float32)
    return (amounts * dictionary[chosen]).sum(1)


def measure(name, call, worker, paths, repeats):
    """Return a case's row."""
    case = CASES[name]
    batch = case.get("images", TESTS)
    fields = {"case": {"method": name, "network": NETWORK, "batch": batch, **case["options"]}, **paths}
    answer = worker.ask("open", tuned=False, precision="float32", **fields)
    answer = worker.ask("run") if answer["ok"] else answer
    if not answer["ok"]:
        raise RuntimeError(f"{case['peer']}, {name}: {answer['error']}")
    cold = timing.seconds(call)
    times = {"jaxai": [], "peer": []}
    for _ in range(repeats):
        times["jaxai"].append(timing.seconds(call))
        times["peer"].append(worker.ask("run")["seconds"])
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        worker.ask("save", path=file.name)
        theirs = np.load(file.name)
    row = {
        "case": name,
        "peer": case["peer"],
        "what": case["what"],
        "faster": timing.ratio(times["peer"], times["jaxai"]),
        "range": timing.spread(times["peer"], times["jaxai"]),
        "seconds": {side: statistics.median(values) for side, values in times.items()},
        "cold": cold,
        "ours": np.asarray(call(), np.float64).tolist(),
        "theirs": np.asarray(theirs, np.float64).tolist(),
        "load": os.getloadavg()[0],
        "times": times,
    }
    print({key: row[key] for key in ("case", "faster", "range", "seconds", "cold", "load")}, flush=True)
    return row


def markdown(report):
    """Return the report as a table."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    peers = ", ".join(f"{name} {version}" for name, version in report["peer_versions"].items())
    lines = [
        "# Concepts beside their peers",
        "",
        f"{report['date']}; {report['machine']}; {versions}; peers: {peers}.",
        "EfficientNet-Lite0, layer `conv_head`, images of 224 x 224 pixels; each side as its documentation",
        "calls it, in turn; medians of the rounds' ratios.",
        "",
        "| case | | jaxai s | peer | peer s | peer / jaxai (range) | first call s | load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        low, high = row["range"]
        lines.append(
            f"| `{row['case']}` | {row['what']} | {row['seconds']['jaxai']:.2f} | {row['peer']}"
            f" | {row['seconds']['peer']:.2f} | **{row['faster']:.1f}** ({low:.1f}-{high:.1f})"
            f" | {row['cold']:.1f} | {row['load']:.1f} |"
        )
    for row in report["rows"]:
        if row["case"] == "sae":
            steps = CASES["sae"]["options"]["steps"]
            rates = [steps / row["seconds"][side] for side in ("jaxai", "peer")]
            lines += [
                "",
                f"Autoencoder: {rates[0]:.0f} steps a second beside {rates[1]:.0f}, the last pass over all"
                f" activations included; R2 {row['ours'][0]:.3f} and {row['theirs'][0]:.3f}.",
            ]
        if row["case"].startswith("craft"):
            totals = [sum(row[side]) for side in ("ours", "theirs")]
            lines += [
                "",
                f"`{row['case']}`: largest importance {max(row['ours']):.2f} and {max(row['theirs']):.2f}"
                f" (the sums are {totals[0]:.2f} and {totals[1]:.2f}); each side orders its own.",
            ]
    if report["note"]:
        lines += ["", report["note"]]
    return "\n".join(lines) + "\n"


def main():
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--xplique-python", help="the other one's unless given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas between")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--note", default="", help="a remark to print below the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = inputs.ask(NETWORK, scratch, batch=max(IMAGES, TESTS + CONCEPT + RANDOM), samples=1)
        model = networks.read(NETWORK, paths["weights"])
        images = np.load(paths["images"])
        data = {
            "images": images[:IMAGES],
            "concept": images[TESTS : TESTS + CONCEPT] + np.float32([1.0, 0, 0]),
            "random": images[TESTS + CONCEPT :][:RANDOM],
            "acts": planted(8192, 384, 1024, 16),
        }
        files = {"weights": paths["weights"], "classes": paths["classes"]}
        for name, array in data.items():
            np.save(folder / f"{name}.npy", array)
            files[name] = str(folder / f"{name}.npy")
        threads = len(os.sched_getaffinity(0))
        # JAX has read its flags by now; TensorFlow's XLA ends at those that it does not know.
        os.environ.pop("XLA_FLAGS", None)
        pythons = {"concepts": options.peer_python, "craft": options.xplique_python or options.peer_python}
        mine, rows, versions = calls(model, data), [], {}
        for name in options.only.split(","):
            side = CASES[name]["side"]
            worker = Worker(pythons[side], side, threads=threads, log=folder / f"{name}.log")
            about = worker.ask("about")
            if not about["ok"]:
                raise SystemExit(f"the peer of {name} does not run: {about['error']}")
            versions |= about["versions"]
            rows.append(measure(name, mine[name], worker, files, options.repeats))
            worker.close()
    before = options.out / "concepts.json"
    if before.exists():
        old, new = json.loads(before.read_text()), {row["case"]: row for row in rows}
        versions = old["peer_versions"] | versions
        rows = [new.pop(row["case"], row) for row in old["rows"]] + list(new.values())
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine.processor()}, {jax.default_backend()}",
        "versions": machine.versions("jax", "jaxlib", "numpy"),
        "peer_versions": versions,
        "note": options.note,
        "rows": rows,
    }
    machine.write(options.out, "concepts", report, markdown(report))


if __name__ == "__main__":
    main()
