"""docs/experiments.md, written from the results: tables, figures and what holds of published claims."""

from pathlib import Path

import numpy as np
from scipy import stats

from jaxai import _files
from jaxai.plots import png

from . import contrast, figures, findings, flock, photos, results, tables, truth
from .methods import ATTENTION

DOCS = Path(__file__).parent.parent.parent / "docs"
BEST = 12
PARTS = ("truth", "birds", "pairs", *photos.PARTS, "sanity")


def write(work: Path, out: Path = results.OUT, docs: Path = DOCS) -> None:
    """Gather what ran and write the page and its figures."""
    if work.exists():
        results.gather(work, out)
    parts = {part: results.read(part, out) for part in PARTS}
    pooled = tables.pool(parts)
    text = [_HEAD]
    text += _truth(parts["truth"], pooled, docs) if parts["truth"] else ["No training has run yet.\n"]
    text += flock.section(parts["birds"]) if parts["birds"] else []
    text += contrast.section(parts["pairs"]) if parts["pairs"] else []
    text += _photos(parts["photos"], pooled.photos, docs) if parts["photos"] else []
    text += _others(parts, pooled.photos) if parts["photos"] else []
    text += _sanity(parts["sanity"]) if parts["sanity"] else []
    if parts["truth"]:
        found = {f"rank accuracy, {name}": (t, "rank_accuracy") for name, t in pooled.kinds.items()}
        if parts["photos"]:
            found |= {"relevance gain, photographs": (pooled.photos, "relevance_gain")}
        text += findings.beliefs(found)
        text += findings.latec(pooled) if parts["photos"] else []
    text += findings.conclusion(pooled) if parts["truth"] and parts["photos"] else []
    text += findings.missing(parts)
    text += [findings.settings()]
    _files.write(docs / "experiments.md", ["\n".join(text).encode()])


def _truth(groups, pooled, docs):
    counted = tables.complete(tables.learnt(groups))
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
    text += tables.lines(
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
    kinds, every = pooled.kinds, pooled.every
    text += _questions(kinds, pooled.ranks)
    picture = png(figures.families(kinds, "rank_accuracy"))
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
    text += ["### Where metrics disagree", ""]
    text += [
        "Kendall's tau between the orders in which metrics put the methods, all tasks together"
        f" ({len(every.methods)} methods):",
        "",
    ]
    text += tables.agreement(every)
    text += [_faithful(kinds), ""]
    return text


def _questions(kinds, ranks):
    text = ["### Which method finds the evidence", ""]
    asks = {
        "white noise": "a pattern in white noise (XAI-TRIS)",
        "correlated noise": "a pattern among suppressors (XAI-TRIS, correlated)",
        "tag": "a tag that the class hangs on (Clever Hans)",
        "object": "an object on a texture",
        "texture": "a texture behind an object",
        "mosaic": "the tiles of a class in a mosaic (Focus)",
        "tag, ViT": "a tag, in a vision transformer",
    }
    lines = []
    for name, table in kinds.items():
        order = tables.order_of(table, 0)
        first = order[0]
        tied = tables.tied(table, 0, order)
        cheap = min(
            (first, *(table.methods.index(t) for t in tied)), key=lambda i: table.seconds[table.methods[i]]
        )
        quick = table.methods[cheap]
        lines.append(
            (
                asks[name],
                f"**{tables.escaped(table.methods[first])}**",
                tables.cell(table, first),
                f"{len(tied)}: {tables.escaped(', '.join(tied[:4]))}{', ...' if len(tied) > 4 else ''}"
                if tied
                else "none",
                f"{tables.escaped(quick)}, {1000 * table.seconds[quick]:.1f} ms",
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
    text += tables.lines(head, lines)
    text += [
        "Intervals are paired 95 % bootstrap intervals over trainings and, in them, images. Rank"
        " accuracy is the share"
        " of the K most relevant pixels that lie in a mask of K pixels.",
        "",
    ]
    transformer = kinds.get("tag, ViT")
    kinds = {name: table for name, table in kinds.items() if name in tables.CNN}
    mean, worst = ranks
    text += [
        f"Mean rank over the {len(kinds)} kinds of data with CNNs, of {len(mean)} methods; the first"
        f" {BEST} and the last five. Brackets hold 95 % of the mean ranks in the bootstrap's draws.",
        "",
    ]
    shown = mean[:BEST] + mean[-5:]
    head = ("method", "mean rank", "worst rank", *kinds)
    text += tables.lines(
        head,
        [
            (
                tables.escaped(m),
                f"{rank:.1f} [{low:.0f}, {high:.0f}]",
                str(worst[m]),
                *(tables.cell(t, t.rows.index(m)) for t in kinds.values()),
            )
            for rank, low, high, m in shown
        ]
        + [
            (f"*{r}*", "", "", *(tables.cell(t, t.rows.index(r)) for t in kinds.values()))
            for r in results.REFERENCES
            if all(r in t.rows for t in kinds.values())
        ],
    )
    return text + (_transformer(transformer) if transformer else [])


def _transformer(table):
    """Return how methods do on transformers: the best, and those that are made for these."""
    order = tables.order_of(table, 0)
    own = [table.methods.index(name) for name, *_ in ATTENTION if name in table.methods]
    shown = [*order[:BEST], *(i for i in own if i not in order[:BEST])]
    place = {int(i): number + 1 for number, i in enumerate(order)}
    return [
        f"On vision transformers, the first {BEST} of {len(table.methods)} methods and those that are made"
        f" for transformers:",
        "",
        *tables.lines(
            ("method", "place", "rank accuracy", "relevance gain"),
            [
                (
                    tables.escaped(table.rows[i]),
                    str(place.get(int(i), "")),
                    tables.cell(table, i),
                    tables.cell(table, i, table.metrics.index("relevance_gain")),
                )
                for i in [*shown, *range(len(table.methods), len(table.rows))]
            ],
        ),
    ]


def _others(parts, first):
    """Return whether methods keep their order on other networks and other photographs."""
    lines = []
    for name, part in photos.PARTS.items():
        if name == "photos" or not parts[name] or not parts[name][0]["costs"]:
            continue
        group = parts[name][0]
        table = results.pooled(parts[name], part.metrics)
        shared = [m for m in table.methods if m in first.methods]
        for metric in part.metrics:
            column, other = table.metrics.index(metric), first.metrics.index(metric)
            own = table.means[[table.rows.index(m) for m in shared], column]
            means = np.stack([first.means[[first.rows.index(m) for m in shared], other], own])
            known = np.isfinite(means).all(0)
            tau = stats.kendalltau(*means[:, known]).statistic
            best = [table.methods[i] for i in tables.order_of(table, column)[:4]]
            lines.append(
                (
                    f"{part.network}, {len(group['photos'])} of {part.photos}",
                    metric.replace("_", " "),
                    f"{tau:.2f} ({known.sum()})",
                    tables.escaped(", ".join(best)) if metric != "gini" else "",
                )
            )
    if not lines:
        return []
    ran = [part for name, part in photos.PARTS.items() if parts[name]]
    most = ", ".join(f"{part.network} on {part.photos}'s {part.most:.0f}" for part in ran)
    text = (
        "Kendall's tau between the order of methods there and the one above (how many methods have a score in"
        f" both), and the best there. Methods with more passes than these are left out: {most}."
    )
    if any(part.explains == "map" for part in ran):
        text += (
            " The ViT tells what is in focus; the mean of its map is explained, and only relevance gain and"
            " Gini"
            " are measured."
        )
    if any(part.explains == "first" for part in ran):
        text += (
            " The medical VGG16 knows no photographs: the class that it names is explained, and only"
            " relevance"
            " gain and Gini are measured."
        )
    return [
        "### Other networks, other photographs",
        "",
        text,
        "",
        *tables.lines(("where", "metric", "tau (methods)", "best there"), lines),
    ]


def _faithful(kinds):
    said = []
    for name, table in kinds.items():
        tau = table.agreement[table.metrics.index("relevance_gain"), 0]
        said.append(f"{tau:.2f} ({name})")
    return (
        "Relevance gain, which needs no truth, and rank accuracy, which needs it, agree with tau "
        + ", ".join(said)
        + "."
    )


def _photos(groups, table, docs):
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
    order = tables.order_of(table, columns[0])
    numbers = [*order, *range(len(table.methods), len(table.rows))]
    text += tables.lines(
        ("method", *(table.metrics[c].replace("_", " ") for c in columns), "seconds an image", "passes"),
        [
            (
                tables.escaped(table.rows[i]) if i < len(table.methods) else f"*{table.rows[i]}*",
                *(tables.cell(table, i, c) for c in columns),
                f"{table.seconds[table.rows[i]]:.2f}" if table.rows[i] in table.seconds else "",
                table.passes.get(table.rows[i], ""),
            )
            for i in numbers
        ],
    )
    text += ["Kendall's tau between metrics:", "", *tables.agreement(table)]
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
    order = tables.order_of(table, table.metrics.index("random_logit"))
    text += tables.lines(
        ("method", *(m.replace("_", " ") for m in table.metrics)),
        [
            (
                tables.escaped(table.rows[i]) if i < len(table.methods) else f"*{table.rows[i]}*",
                *(tables.cell(table, i, c) for c in columns),
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


_HEAD = """# Experiments: which explanation to trust

Written by `python -m benchmarks.study --page` from [the scores](../benchmarks/results/study); every number is
of `jaxai.metrics`.
"""
