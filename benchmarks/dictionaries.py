"""Sparse autoencoders on real activations: MobileNetV2's last block and the tokens of a vision transformer.

    python -m benchmarks.dictionaries --photos FOLDER [--networks NAME...] [--steps 1500] [--out DIR]
        [--only KIND-DICTIONARY...]

FOLDER has photographs, to which four of scikit-image's are added; every sixth is held out. The data set is
squares cut out of them at random, mirrored half of the time: their activations are streamed to a file
(`save_activations`), on which each kind of autoencoder is trained. One training is killed on the way and
goes on from its checkpoint. Writes `dictionaries.md` and `dictionaries.json`; with `--only`, such as
`top_k-archetypal`, the other rows that are there stay.
"""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jaxai

jaxai.configure_cpu()

import jax  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from skimage import data  # noqa: E402

from . import machine  # noqa: E402

OWN = ("chelsea", "coffee", "rocket", "astronaut")
# The layer, how many squares of photographs, and how many codes a channel.
NETWORKS = {
    "mobilenet_v2_features": ("features.17", 1200, 4),
    "vit_s14_focus": ("blocks.8", 480, 4),
}
K, EXAMPLES, RATE = 16, 512, 3e-3
KEYS = (0, 1)
# Kind and dictionary, and whether a second key says how stable it is.
TRAININGS = (
    ("top_k", "free", True),
    ("top_k", "archetypal", True),
    ("batch_top_k", "free", False),
    ("jump_relu", "free", False),
    ("matching_pursuit", "free", False),
)
# What another network makes of the squares, for monosemanticity.
EYES, EYES_LAYER = "efficientnet_lite0", "conv_head"
BATCH = 16


def title(kind, dictionary):
    """Return the name of a training."""
    return f"{kind}-{dictionary}"


def squares(photos, count, seed):
    """Return squares of photographs, uint8 [side, side, 3] each."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(min(photo.size) * rng.uniform(0.35, 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in photo.size)
        cut = np.asarray(photo.crop((left, top, left + side, top + side)))
        found.append(cut[:, ::-1] if rng.random() < 0.5 else cut)
    return found


def activations(net, some, layer, path, positions="each"):
    """Write the activations of squares to a file, batch by batch, and return them."""
    batches = (net.normalize(net.crop(some[at : at + BATCH])) for at in range(0, len(some), BATCH))
    return jaxai.concepts.save_activations(net.model, batches, path, layer=layer, positions=positions)


def train(acts, codes, kind, dictionary, seed, steps, checkpoint=None):
    """Return an autoencoder."""
    return jaxai.concepts.sae(
        acts,
        num_codes=codes,
        k=K,
        key=jax.random.key(seed),
        kind=kind,
        dictionary=dictionary,
        steps=steps,
        examples=EXAMPLES,
        learning_rate=RATE,
        checkpoint=checkpoint,
    )


def killed(path, codes, folder, steps):
    """Kill a training when its first checkpoint is there; return the steps it kept, and how it ends."""
    checkpoint = folder / "checkpoint.npz"
    code = (
        "import sys; import numpy as np; from benchmarks import dictionaries as d;"
        f"d.train(np.load({str(path)!r}, mmap_mode='r'), {codes}, 'top_k', 'free', {KEYS[0]}, {steps},"
        f" {str(checkpoint)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.05)
    if process.poll() is not None:
        raise RuntimeError(f"the training ended by itself, with {process.returncode}, and was not killed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with np.load(checkpoint) as kept:
        done = int(kept["done"])
    acts = np.load(path, mmap_mode="r")
    return done, train(acts, codes, "top_k", "free", KEYS[0], steps, checkpoint)


def explained(found, acts):
    """Return the share of the variance of activations that an autoencoder explains."""
    rest = np.square(np.asarray(found.decode(found.encode(acts))) - acts).sum(dtype=np.float64)
    return float(1 - rest / np.square(acts - np.asarray(acts).mean(0)).sum(dtype=np.float64))


def pure(responses, looks):
    """Return the mean monosemanticity of the codes that respond to two images or more."""
    return float(np.nanmean(np.asarray(jaxai.concepts.monosemanticity(responses, looks))))


def likeness(looks):
    """Return the mean cosine of two different rows."""
    units = looks / np.linalg.norm(looks, axis=1, keepdims=True)
    count = len(units)
    return float((np.square(units.sum(0, dtype=np.float64)).sum() - count) / (count * (count - 1)))


def strongest(found, acts, count):
    """Return each image's largest codes, [images, codes]."""
    images = np.asarray(acts).reshape(count, -1, acts.shape[-1])
    return np.concatenate([np.asarray(found.encode(images[i : i + 1]).max(1)) for i in range(count)])


def measure(name, photos, held, folder, steps, only, before):
    """Return what is known of a network's dictionaries; of those not in `only`, what was known before."""
    layer, count, ratio = NETWORKS[name]
    net, eyes = jaxai.models.load(name), jaxai.models.load(EYES)
    some, others = squares(photos, count, 0), squares(held, count // 6, 1)
    begin = time.perf_counter()
    acts = activations(net, some, layer, folder / "acts.npy")
    row = {"network": name, "layer": layer, "squares": count, "rows": len(acts), "features": acts.shape[1]}
    row |= {"codes": ratio * acts.shape[1], "written": time.perf_counter() - begin, "steps": steps}
    left_out = np.asarray(activations(net, others, layer, folder / "held.npy"))
    looks = np.asarray(activations(eyes, some, EYES_LAYER, folder / "looks.npy", "mean"))
    channels = np.maximum(np.asarray(acts).reshape(count, -1, acts.shape[1]).max(1), 0)
    row |= {"monosemanticity_of_channels": pure(channels, looks)}
    row |= {"likeness_of_squares": likeness(looks)}
    row["trainings"] = []
    known = {title(one["kind"], one["dictionary"]): one for one in before.get("trainings", [])}
    row |= {"resumed": before["resumed"]} if "resumed" in before else {}
    for kind, dictionary, twice in TRAININGS:
        if title(kind, dictionary) in known.keys() - set(only):
            row["trainings"].append(known[title(kind, dictionary)])
            continue
        made = []
        for seed in KEYS[: 1 + twice]:
            begin, busy = time.perf_counter(), time.process_time()
            found = train(acts, row["codes"], kind, dictionary, seed, steps)
            made.append((found, time.perf_counter() - begin, time.process_time() - busy))
        found, seconds, busy = made[0]
        one = {
            "kind": kind,
            "dictionary": dictionary,
            "seconds": seconds,
            "cpu_seconds": busy,
            "r2": float(found.r2),
            "r2_held_out": explained(found, left_out),
            "l0": float(found.l0),
            "dead": found.dead,
            "monosemanticity": pure(strongest(found, acts, count), looks),
            "load": os.getloadavg()[0],
        }
        if twice:
            both = [each.directions for each, *_ in made]
            one["stability"] = float(jaxai.concepts.stability(*both)[0])
        row["trainings"].append(one)
        print(name, one, flush=True)
        if (kind, dictionary) == ("top_k", "free"):
            done, again = killed(folder / "acts.npy", row["codes"], folder, steps)
            same = all(
                np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (found, again)), strict=True)
            )
            row["resumed"] = {"killed_after": done, "same": same}
            print(name, row["resumed"], flush=True)
    return row


def markdown(report):
    """Return the report as tables."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = ["# Sparse autoencoders on real activations", "", f"{report['machine']}; {versions}."]
    for row in report["rows"]:
        resumed = row["resumed"]
        lines += [
            "",
            f"## {row['network']}, `{row['layer']}`",
            "",
            f"{row['date']}. {row['squares']:,} squares of {report['photos']} photographs,"
            f" {row['rows']:,} activations of {row['features']} channels, written in"
            f" {row['written']:.0f} s; {row['codes']:,} codes, {K} of them at a time; {row['steps']:,} steps"
            f" of {EXAMPLES}, learning rate {RATE:g}. Held out: squares of {report['held']} other"
            " photographs.",
            "",
            "| kind | dictionary | CPU seconds | seconds (load) | R2 | R2 held out | L0 | dead | stability"
            " | monosemanticity |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for one in row["trainings"]:
            # Rows of before it was taken have none.
            busy = f"{one['cpu_seconds']:.0f}" if "cpu_seconds" in one else "–"
            stable = f"{one['stability']:.2f}" if "stability" in one else "–"
            lines.append(
                f"| `{one['kind']}` | {one['dictionary']} | {busy}"
                f" | {one['seconds']:.0f} ({one['load']:.0f})"
                f" | {one['r2']:.3f} | {one['r2_held_out']:.3f} | {one['l0']:.1f} | {one['dead']}"
                f" | {stable} | {one['monosemanticity']:.3f} |"
            )
        same = "the same to the bit" if resumed["same"] else "NOT the same"
        lines += [
            "",
            f"Killed after {resumed['killed_after']} steps and resumed from its checkpoint, the first"
            f" training ends {same}. Monosemanticity is in the eyes of {EYES}; the layer's own channels have"
            f" {row['monosemanticity_of_channels']:.3f}, and two squares taken at random are alike by"
            f" {row['likeness_of_squares']:.3f}.",
        ]
    lines += [
        "",
        "Stability: the mean cosine of two keys' dictionaries, matched one to one. Seconds are of one",
        "training, compilation and the passes over all activations included: those of the processor, all",
        "threads together, and those on the clock, on two cores that other programs shared where the load is",
        "above 2.",
    ]
    if report.get("note"):
        lines += ["", report["note"]]
    return "\n".join(lines) + "\n"


def main():
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    every = [title(kind, dictionary) for kind, dictionary, _ in TRAININGS]
    parser.add_argument("--only", nargs="+", default=every, choices=every)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    files = sorted(path for path in options.photos.iterdir() if path.suffix in (".jpg", ".jpeg", ".png"))
    photos = [Image.open(path).convert("RGB") for path in files]
    photos += [Image.fromarray(getattr(data, name)()) for name in OWN]
    held = photos[::6]
    photos = [photo for number, photo in enumerate(photos) if number % 6]
    before = options.out / "dictionaries.json"
    rows = {row["network"]: row for row in json.loads(before.read_text())["rows"]} if before.exists() else {}
    for name in options.networks:
        with tempfile.TemporaryDirectory() as scratch:
            found = photos, held, Path(scratch), options.steps, options.only, rows.get(name, {})
            rows[name] = measure(name, *found)
        rows[name]["date"] = datetime.date.today().isoformat()
        report = {
            "machine": f"{machine.processor()}, {jax.default_backend()}",
            "versions": machine.versions("jax", "jaxlib", "optax", "numpy"),
            "photos": len(photos),
            "held": len(held),
            "rows": list(rows.values()),
        }
        machine.write(options.out, "dictionaries", report, markdown(report))


if __name__ == "__main__":
    main()
