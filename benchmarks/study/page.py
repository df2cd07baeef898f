"""docs/experiments.md, written from the results: tables, figures and what holds of published claims."""

from pathlib import Path

import numpy as np

from jaxai import _files
from jaxai.plots import png

from . import datasets, figures, photos, results, truth
from .methods import FEWER, entries

DOCS = Path(__file__).parent.parent.parent / "docs"
BEST = 12
PHOTO_METRICS = ("relevance_gain", "pointing_game", "rank_accuracy", "mass_accuracy", "gini")
FAMILIES = {
    "white noise": lambda name: name.endswith("white"),
    "correlated noise": lambda name: name.endswith("correlated"),
    "tag": lambda name: name == "Clever Hans tag",
    "object": lambda name: name == "object on texture",
    "texture": lambda name: name == "texture behind object",
}


def write(work: Path, out: Path = results.OUT, docs: Path = DOCS) -> None:
    """Gather what ran and write the page and its figures."""
    if work.exists():
        results.gather(work, out)
    parts = {part: results.read(part, out) for part in ("truth", "photos", "sanity")}
    text = [_HEAD]
    text += _truth(parts["truth"], docs) if parts["truth"] else ["No training has run yet.\n"]
    text += _photos(parts["photos"], docs) if parts["photos"] else []
    text += _sanity(parts["sanity"]) if parts["sanity"] else []
    if parts["truth"]:
        found = {
            f"rank accuracy, {name}": (t, "rank_accuracy") for name, t in _families(parts["truth"]).items()
        }
        if parts["photos"]:
            table = results.pooled(parts["photos"], PHOTO_METRICS)
            found |= {"relevance gain, photographs": (table, "relevance_gain")}
        text += _pairs(found)
    text += _conclusion(parts) if parts["truth"] and parts["photos"] else []
    text += _missing(parts)
    text += [_settings()]
    _files.write(docs / "experiments.md", ["\n".join(text).encode()])


def learnt(groups):
    """Return the trainings that count: those that learnt and gave enough images."""
    return [group for group in groups if group["learnt"] and group["rows"]]


def complete(groups):
    """Return the trainings whose methods have all run; one that was cut off counts when it is finished."""
    most = max((len(group["rows"]) for group in groups), default=0)
    return [group for group in groups if len(group["rows"]) == most]


def _cell(table, row, column=0):
    mean, (low, high) = table.means[row, column], table.intervals[row, column]
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(mean) else "–"


def _table(head, lines):
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(x) + " |" for x in lines),
        "",
    ]


def _escaped(name):
    return name.replace("|", "\\|")


def _order(table, column):
    """Return the numbers of the methods, best first; those without a score last."""
    means = table.means[: len(table.methods), column] * (1 if table.better[column] == "higher" else -1)
    return np.argsort(-np.where(np.isfinite(means), means, -np.inf), kind="stable")


def _tied(table, column, order):
    """Return the methods whose paired interval does not tell them from the best."""
    metric, best = table.metrics[column], table.methods[order[0]]
    found = []
    for number in order[1:]:
        _, low, high = table.difference(metric, best, table.methods[number])
        if low <= 0 <= high:
            found.append(table.methods[number])
    return found


def _truth(groups, docs):
    counted = complete(learnt(groups))
    seeds = sorted({group["seed"] for group in counted})
    text = ["## Truth by construction", ""]
    text += [
        f"{len(counted)} trainings of {len({g['task'] for g in counted})} tasks (seeds"
        f" {', '.join(map(str, seeds))}) have run with all methods, {truth.IMAGES} images each. A"
        f" training that answers"
        " less than 80 % of new images rightly, or gives too few images that it answers rightly, is left"
        " out.",
        "",
    ]
    by_task = {}
    for group in groups:
        by_task.setdefault(group["task"], []).append(group)
    counts = {name: sum(g in counted for g in found) for name, found in by_task.items()}
    text += _table(
        ("task", "accuracy of each training", "steps", "counted"),
        [
            (
                name,
                ", ".join(f"{g['accuracy']:.3f}" for g in found),
                ", ".join(str(g["steps"]) for g in found),
                f"{counts[name]} of {len(found)}",
            )
            for name, found in by_task.items()
        ],
    )
    tables = _families(groups)
    text += _questions(tables)
    picture = png(figures.families(tables, "rank_accuracy"))
    _files.write(docs / "images" / "experiments_truth.png", [picture])
    text += [
        "![Rank accuracy of every method by kind of data](images/experiments_truth.png)",
        "",
        "*Share of the K most relevant pixels that lie in the evidence of K pixels, less chance, over"
        " the most that"
        " is possible: 0 is a map of chance, 1 the truth. Mean over tasks, trainings and images of a"
        " kind.*",
        "",
    ]
    every = results.pooled(counted, truth.METRICS)
    text += ["### Where metrics disagree", ""]
    text += [
        "Kendall's tau between the orders in which metrics put the methods, all tasks together"
        f" ({len(every.methods)} methods):",
        "",
    ]
    text += _agreement(every)
    text += [_faithful(tables), ""]
    return text


def _questions(tables):
    text = ["### Which method finds the evidence", ""]
    asks = {
        "white noise": "a pattern in white noise (XAI-TRIS)",
        "correlated noise": "a pattern among suppressors (XAI-TRIS, correlated)",
        "tag": "a tag that the class hangs on (Clever Hans)",
        "object": "an object on a texture",
        "texture": "a texture behind an object",
    }
    lines = []
    for name, table in tables.items():
        order = _order(table, 0)
        first = order[0]
        tied = _tied(table, 0, order)
        cheap = min(
            (first, *(table.methods.index(t) for t in tied)), key=lambda i: table.seconds[table.methods[i]]
        )
        lines.append(
            (
                asks[name],
                f"**{_escaped(table.methods[first])}**",
                _cell(table, first),
                f"{len(tied)}: {_escaped(', '.join(tied[:4]))}{', ...' if len(tied) > 4 else ''}"
                if tied
                else "none",
                f"{_escaped(table.methods[cheap])}, {1000 * table.seconds[table.methods[cheap]]:.1f} ms",
                f"{table.chance['rank_accuracy']:.2f}",
            )
        )
    head = (
        "where is ...",
        "method",
        "rank accuracy",
        "not told apart from it",
        "cheapest of these",
        "chance",
    )
    text += _table(head, lines)
    text += [
        "Intervals are paired 95 % bootstrap intervals over trainings and, in them, images. Rank"
        " accuracy is the share"
        " of the K most relevant pixels that lie in a mask of K pixels.",
        "",
    ]
    shared, mean, worst = _mean_ranks(tables)
    text += [
        f"Mean rank over the {len(tables)} kinds of data, of {len(shared)} methods; the first {BEST} and"
        f" the last five:",
        "",
    ]
    shown = mean[:BEST] + mean[-5:]
    head = ("method", "mean rank", "worst rank", *tables)
    text += _table(
        head,
        [
            (_escaped(m), f"{rank:.1f}", str(worst[m]), *(_cell(t, t.rows.index(m)) for t in tables.values()))
            for rank, m in shown
        ]
        + [
            (f"*{r}*", "", "", *(_cell(t, t.rows.index(r)) for t in tables.values()))
            for r in results.REFERENCES
            if all(r in t.rows for t in tables.values())
        ],
    )
    return text


def _mean_ranks(tables):
    """Return the methods that all tables have, (mean rank, method) from the best, and each one's worst"
    " rank.
    """
    places = [{m: r + 1 for r, m in enumerate(t.methods[i] for i in _order(t, 0))} for t in tables.values()]
    shared = [m for m in places[0] if all(m in place for place in places)]
    mean = sorted((float(np.mean([place[m] for place in places])), m) for m in shared)
    return shared, mean, {m: max(place[m] for place in places) for m in shared}


def _families(groups):
    counted = complete(learnt(groups))
    families = {name: [g for g in counted if has(g["task"])] for name, has in FAMILIES.items()}
    return {name: results.pooled(found, truth.METRICS) for name, found in families.items() if found}


def _conclusion(parts):
    """Return the methods that are in the first third on truth and in relevance gain on photographs."""
    tables = _families(parts["truth"])
    shared, mean, _ = _mean_ranks(tables)
    table = results.pooled(parts["photos"], PHOTO_METRICS)
    on_truth = {m: place + 1 for place, (_, m) in enumerate(mean)}
    on_photos = {table.methods[i]: place + 1 for place, i in enumerate(_order(table, 0))}
    both = [m for m in on_truth if m in on_photos]
    third = [m for m in both if on_truth[m] <= len(mean) / 3 and on_photos[m] <= len(on_photos) / 3]
    lines = [
        (
            _escaped(m),
            f"{on_truth[m]} of {len(mean)}",
            f"{on_photos[m]} of {len(on_photos)}",
            _cell(table, table.rows.index(m)),
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
        f" where the truth"
        " is known and in the first third of relevance gain on photographs:",
        "",
        *_table(head, lines),
        "No method is first everywhere, and intervals overlap: take one of these that is cheap enough,"
        " look at a"
        " second one of another family, and do not rank methods by one metric.",
        "",
    ]


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


def _pairs(tables):
    lines = []
    for first, second in PAIRS:
        cells = []
        for table, metric in tables.values():
            known = first in table.rows and second in table.rows
            mean, low, high = table.difference(metric, first, second) if known else (np.nan,) * 3
            sure = "**" if low > 0 or high < 0 else ""
            cells.append(f"{sure}{mean:+.2f}{sure} [{low:+.2f}, {high:+.2f}]" if np.isfinite(mean) else "–")
        lines.append((f"{_escaped(first)} less {_escaped(second)}", *cells))
    return [
        "## What holds of common beliefs",
        "",
        "Paired differences with 95 % intervals, bold where the interval leaves out 0. A name in bars is"
        " the sum of"
        " magnitudes over colours, the plain name the sum with signs.",
        "",
        *_table(("", *tables), lines),
    ]


def _missing(parts):
    """Return what the study is to hold and does not yet."""
    ran = set(parts["photos"][0]["rows"]) if parts["photos"] else set()
    late = [title for title in entries(photos.SIDE) if title not in ran]
    done = complete(learnt(parts["truth"]))
    early = [title for title in entries(datasets.SIDE) if done and title not in done[0]["rows"]]
    lost = sorted({g["task"] for g in parts["truth"]} - {g["task"] for g in learnt(parts["truth"])})
    lines = []
    if lost:
        lines.append(f"- No training learnt {', '.join(lost)}: nothing is said of these.")
    if early:
        lines.append(f"- Not run where the truth is known: {_escaped(', '.join(early))}.")
    if late:
        lines.append(f"- Not run on photographs: {_escaped(', '.join(late))}.")
    if not parts["sanity"]:
        lines.append(
            "- Sanity checks (`--part sanity`) have not run: nothing is said of guided backprop and"
            " randomized"
            " parameters."
        )
    lines.append(
        "- Not written: part-based birds with FunnyBirds' protocols, mosaics, transformers,"
        " EfficientNet-Lite2,"
        " VGG16, the photographs of scikit-image. LATEC's ranks are not compared."
    )
    return ["## What is missing", "", *lines, ""]


def _agreement(table):
    names = [m.replace("_", " ") for m in table.metrics]
    return _table(
        ("", *names), [(n, *(f"{x:.2f}" for x in row)) for n, row in zip(names, table.agreement, strict=True)]
    )


def _faithful(tables):
    said = []
    for name, table in tables.items():
        tau = table.agreement[table.metrics.index("relevance_gain"), 0]
        said.append(f"{tau:.2f} ({name})")
    return (
        "Relevance gain, which needs no truth, and rank accuracy, which needs it, agree with tau "
        + ", ".join(said)
        + "."
    )


def _photos(groups, docs):
    table = results.pooled(groups, PHOTO_METRICS)
    ranks = groups[0]["ranks"]
    text = ["## Photographs", ""]
    right = sum(rank == 0 for rank in ranks)
    text += [
        f"EfficientNet-Lite0, {len(ranks)} ImageNet photographs of foolbox with boxes drawn by hand; the"
        f" network is"
        f" right on {right}. {len(table.methods)} methods have run, explaining the label's class.",
        "",
    ]
    _files.write(docs / "images" / "experiments_photos.png", [png(figures.photos(table))])
    text += ["![Every method on photographs](images/experiments_photos.png)", ""]
    columns = [
        table.metrics.index(m) for m in ("relevance_gain", "pointing_game", "rank_accuracy", "mass_accuracy")
    ]
    order = _order(table, columns[0])
    numbers = [*order, *range(len(table.methods), len(table.rows))]
    text += _table(
        ("method", *(table.metrics[c].replace("_", " ") for c in columns), "seconds an image", "passes"),
        [
            (
                _escaped(table.rows[i]) if i < len(table.methods) else f"*{table.rows[i]}*",
                *(_cell(table, i, c) for c in columns),
                f"{table.seconds[table.rows[i]]:.2f}" if table.rows[i] in table.seconds else "",
                table.passes.get(table.rows[i], ""),
            )
            for i in numbers
        ],
    )
    text += ["Kendall's tau between metrics:", "", *_agreement(table)]
    if "centre" in table.rows:
        better, worse = 0, 0
        for method in table.methods:
            _, low, high = table.difference("pointing_game", method, "centre")
            better, worse = better + (low > 0), worse + (high < 0)
        text += [
            f"**Pointing at the centre of the photograph** hits"
            f" {table.means[table.rows.index('centre'), columns[1]]:.0%} of the photographs. Of"
            f" {len(table.methods)}"
            f" methods {better} are better than it with certainty (paired 95 % interval) and {worse}"
            f" worse; the others"
            " cannot be told from it.",
            "",
        ]
    text += ["### What twenty photographs cannot tell", ""]
    for metric in ("relevance_gain", "pointing_game", "rank_accuracy"):
        apart, pairs = 0, 0
        for i, first in enumerate(table.methods):
            for second in table.methods[i + 1 :]:
                _, low, high = table.difference(metric, first, second)
                apart, pairs = apart + (low > 0 or high < 0), pairs + 1
        text += [
            f"- {metric.replace('_', ' ')}: {apart} of {pairs} pairs of methods are told apart"
            f" ({apart / pairs:.0%})."
        ]
    text += [
        "",
        "No correction for the number of pairs is made: one in twenty would be told apart by chance. The"
        " boxes hold"
        " background too, and large ones raise every localization score; see the rows of the references.",
        "",
    ]
    return text


def _sanity(groups):
    table = results.pooled(groups, list(groups[0]["better"]))
    text = ["## Sanity", ""]
    text += [
        f"EfficientNet-Lite0, {table.scores.shape[-1]} photographs. Efficient MPRT compares the entropy"
        f" of maps with that of"
        " maps of a network with random parameters (higher is better), random logit the maps of two"
        " classes (SSIM, lower"
        f" is better), MPRT the maps while {', '.join(f'`{n}`' for n in groups[0].get('layers', []))} are"
        f" drawn anew from the"
        " top (mean Spearman correlation of magnitudes, lower is better).",
        "",
    ]
    columns = range(len(table.metrics))
    order = _order(table, table.metrics.index("random_logit"))
    text += _table(
        ("method", *(m.replace("_", " ") for m in table.metrics)),
        [
            (
                _escaped(table.rows[i]) if i < len(table.methods) else f"*{table.rows[i]}*",
                *(_cell(table, i, c) for c in columns),
            )
            for i in [*order, *range(len(table.methods), len(table.rows))]
        ],
    )
    if "guided backprop" in table.rows and "saliency" in table.rows:
        said = []
        for metric in table.metrics:
            mean, low, high = table.difference(metric, "guided backprop", "saliency")
            said.append(f"{metric.replace('_', ' ')} {mean:+.2f} [{low:+.2f}, {high:+.2f}]")
        text += ["Guided backprop less saliency: " + ", ".join(said) + ".", ""]
    return text


def _settings():
    words = ", ".join(
        f"`{name}` {', '.join(f'{k} {v}' for k, v in given.items())}"
        for name, given in FEWER.items()
        if given
    )
    return f"""## How it was run

`python -m benchmarks.study` runs everything and goes on where it stopped; `--page` writes this page.

- Networks are CNNs of five convolutions for images of 32 x 32 pixels, trained on images drawn anew in each step.
- So that it ends, methods with many passes have fewer draws than their defaults: {words}.
- On 32 x 32 pixels, lengths in pixels are reduced (`benchmarks/study/methods.py`).
- LIME and Shapley methods see a grid of 8 x 8 cells on small images and 40 SLIC superpixels on photographs; exact
  Shapley values are of 3 x 3 cells.
- Seconds were measured on a busy machine of two virtual cores: they order methods, no more.
"""


_HEAD = """# Experiments: which explanation to trust

Written by `python -m benchmarks.study --page` from [the scores](../benchmarks/results/study); every number is
of `jaxai.metrics`.
"""
