"""What follows from all parts: the conclusion, beliefs that hold or not, what is missing."""

import itertools

import numpy as np

from . import datasets, photos, tables
from .methods import FEWER, entries

# Which rows of a table to compare, for what papers and libraries say.
PAIRS = (
    ("|saliency|", "saliency"),
    ("|guided backprop|", "guided backprop"),
    ("|SmoothGrad|", "SmoothGrad"),
    ("|integrated gradients|", "integrated gradients"),
    ("SmoothGrad-squared", "|SmoothGrad|"),
    ("Grad-CAM++", "Grad-CAM"),
    ("LayerCAM", "Grad-CAM"),
    ("Grad-CAM", "random CAM"),
    ("integrated gradients", "input x gradient"),
    ("guided IG", "integrated gradients"),
    ("DeepLIFT", "integrated gradients"),
    ("LRP", "guided backprop"),
    ("occlusion", "RISE"),
)


def conclusion(pooled):
    """Return the methods that are in the first third on truth and in relevance gain on photographs."""
    mean, _ = pooled.ranks
    table = pooled.photos
    on_truth = {m: place + 1 for place, (*_, m) in enumerate(mean)}
    on_photos = {table.methods[i]: place + 1 for place, i in enumerate(tables.order_of(table, 0))}
    both = [m for m in on_truth if m in on_photos]
    third = [m for m in both if on_truth[m] <= len(mean) / 3 and on_photos[m] <= len(on_photos) / 3]
    lines = [
        (
            tables.escaped(m),
            f"{on_truth[m]} of {len(mean)}",
            f"{on_photos[m]} of {len(on_photos)}",
            tables.cell(table, table.rows.index(m)),
            f"{table.seconds[m]:.2f}",
        )
        for m in sorted(third, key=lambda m: on_truth[m] + on_photos[m])
    ]
    head = (
        "method",
        "place on truth",
        "place on photographs",
        "relevance gain there",
        "seconds a photograph",
    )
    return [
        "## Conclusion",
        "",
        f"Of {len(both)} methods that ran on both, {len(third)} are in the first third of mean ranks"
        " where the truth is known and in the first third of relevance gain on photographs:",
        "",
        *tables.lines(head, lines),
        *_defaults(mean, table),
        "No method is first everywhere, and intervals overlap: take one of these that is cheap enough,"
        " look at a second one of another family, and do not rank methods by one metric.",
        "",
    ]


def _defaults(mean, table):
    """Return why the commands take what they take by default."""
    place = {m: f"{i + 1} of {len(mean)}" for i, (*_, m) in enumerate(mean)}

    def less(metric, first, second):
        found, low, high = table.difference(metric, first, second)
        return f"{found:+.2f} [{low:+.2f}, {high:+.2f}]"

    if not {"LIME", "LRP", "Grad-CAM"} <= set(table.methods) & set(place):
        return []
    return [
        "`jaxai explain` shows Grad-CAM and LIME unless it is asked for others, and `jaxai compare` LRP"
        " beside them."
        f" On photographs LIME's relevance gain is that of LRP {less('relevance_gain', 'LIME', 'LRP')}, and"
        f" Grad-CAM, for one pass and a bit, finds boxes as LRP does (rank accuracy"
        f" {less('rank_accuracy', 'Grad-CAM', 'LRP')}). Where the evidence is smaller than a superpixel or a"
        " layer's"
        f" position they are the wrong choice: by mean rank on truth LIME is {place['LIME']}, Grad-CAM"
        f" {place['Grad-CAM']}, LRP {place['LRP']}, for three passes.",
        "",
    ]


def beliefs(kinds):
    lines = []
    for first, second in PAIRS:
        cells = []
        for table, metric in kinds.values():
            known = first in table.rows and second in table.rows
            mean, low, high = table.difference(metric, first, second) if known else (np.nan,) * 3
            sure = "**" if low > 0 or high < 0 else ""
            cells.append(f"{sure}{mean:+.2f}{sure} [{low:+.2f}, {high:+.2f}]" if np.isfinite(mean) else "–")
        lines.append((f"{tables.escaped(first)} less {tables.escaped(second)}", *cells))
    return [
        "## What holds of common beliefs",
        "",
        "Paired differences with 95 % intervals, bold where the interval leaves out 0. A name in bars is"
        " the sum of magnitudes over colours, the plain name the sum with signs.",
        "",
        *tables.lines(("", *kinds), lines),
    ]


def latec(pooled):
    """Return what holds here of LATEC's findings: metrics of a kind disagree, expected gradients lead."""
    mean, _ = pooled.ranks
    photographs, every = pooled.photos, pooled.every
    places = {
        "mean rank where the truth is known": [m for *_, m in mean],
        "relevance gain on photographs": [photographs.methods[i] for i in tables.order_of(photographs, 0)],
    }
    said = [
        f"{order.index('expected gradients') + 1} of {len(order)} in {name}"
        for name, order in places.items()
        if "expected gradients" in order
    ]
    local = [every.metrics.index(m) for m in ("rank_accuracy", "mass_accuracy", "auc", "pointing_game")]
    taus = [every.agreement[i, j] for i, j in itertools.combinations(local, 2)]
    return [
        "LATEC (Klein 2024) finds that metrics of one criterion disagree, and that expected gradients lead"
        " when ranks"
        f" are averaged over metrics. Here the four measures of localization agree with tau {min(taus):.2f}"
        " to"
        f" {max(taus):.2f}; expected gradients are {' and '.join(said)} (twenty draws, baselines of one"
        " colour each).",
        "",
    ]


def missing(parts):
    """Return what the study is to hold and does not yet."""
    ran = set(parts["photos"][0]["rows"]) if parts["photos"] else set()
    late = [title for title in entries(photos.PARTS["photos"].side) if title not in ran]
    done = tables.complete(tables.learnt(parts["truth"]))
    early = [title for title in entries(datasets.SIDE) if done and title not in done[0]["rows"]]
    lost = sorted({g["task"] for g in parts["truth"]} - {g["task"] for g in tables.learnt(parts["truth"])})
    lines = []
    if lost:
        lines.append(f"- No training learnt {', '.join(lost)}: nothing is said of these.")
    if early:
        lines.append(f"- Not run where the truth is known: {tables.escaped(', '.join(early))}.")
    if late:
        lines.append(f"- Not run on photographs: {tables.escaped(', '.join(late))}.")
    refusals = {}
    for group in (*parts["truth"], *parts["birds"], *parts["pairs"]):
        for method, words in group.get("refused", {}).items():
            refusals.setdefault((words, group["task"]), set()).add(method)
    for (words, task), refusing in sorted(refusals.items()):
        lines.append(f'- Refused on {task}: {tables.escaped(", ".join(sorted(refusing)))} ("{words}").')
    if not parts["sanity"]:
        lines.append(
            "- Sanity checks (`--part sanity`) have not run: nothing is said of guided backprop and"
            " randomized parameters."
        )
    absent = [part for part in photos.PARTS if not parts.get(part)]
    if absent:
        lines.append(f"- Parts that have not run: {', '.join(f'`{part}`' for part in absent)}.")
    lines.append(
        "- No residual network, no ImageNet VGG16 or ViT: their weights come in no package, and these maps"
        " need them."
    )
    return ["## What is missing", "", *lines, ""]


def settings():
    words = ", ".join(
        f"`{name}` {', '.join(f'{k} {v}' for k, v in given.items())}"
        for name, given in FEWER.items()
        if given
    )
    return f"""## How it was run

`python -m benchmarks.study` runs everything and goes on where it stopped; `--page` writes this page.

- Networks are CNNs of five convolutions for images of 32 x 32 pixels (birds: 48 x 48, mosaics: 64 x 64) with
  a mean and a dense layer, for xor with a hidden layer that sees all positions, and a transformer of three
  blocks; trained on new images in each step.
- A method that refuses a network has no score there: CAM needs a mean before the dense layer.
- So that it ends, methods with many passes have fewer draws than their defaults: {words}.
- On 32 x 32 pixels, lengths in pixels are reduced (`benchmarks/study/methods.py`).
- LIME and Shapley methods see a grid of 8 x 8 cells on small images and 40 SLIC superpixels on photographs;
  exact Shapley values are of 3 x 3 cells.
- Seconds were measured on a busy machine of two virtual cores: they order methods, no more.
"""
