"""Results as lines of Markdown tables, and orders of methods."""

from typing import NamedTuple

import numpy as np

from jaxai.metrics import Comparison

from . import results, truth

PHOTO_METRICS = ("relevance_gain", "pointing_game", "rank_accuracy", "mass_accuracy", "gini")
FAMILIES = {
    "white noise": lambda name: name.endswith("white"),
    "correlated noise": lambda name: name.endswith("correlated"),
    "tag": lambda name: name == "Clever Hans tag",
    "object": lambda name: name == "object on texture",
    "texture": lambda name: name == "texture behind object",
    "mosaic": lambda name: name == "mosaic of objects",
    "tag, ViT": lambda name: name == "Clever Hans tag, ViT",
}
# Kinds of data whose networks are convolutional.
CNN = tuple(name for name in FAMILIES if "ViT" not in name)


def learnt(groups):
    """Return the trainings that count: those that learnt and gave enough images."""
    return [group for group in groups if group["learnt"] and group["rows"]]


def complete(groups):
    """Return the trainings whose methods have all run; one that was cut off counts when it is finished."""
    most = {}
    for group in groups:
        most[group["task"]] = max(most.get(group["task"], 0), len(group["rows"]))
    return [group for group in groups if len(group["rows"]) == most[group["task"]]]


def cell(table, row, column=0):
    mean, (low, high) = table.means[row, column], table.intervals[row, column]
    if not np.isfinite(mean):
        return "–"
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(low) else f"{mean:.2f} [–]"


def lines(head, lines):
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(x) + " |" for x in lines),
        "",
    ]


def escaped(name):
    return name.replace("|", "\\|")


def order_of(table, column):
    """Return the numbers of the methods, best first; those without a score last."""
    means = table.means[: len(table.methods), column] * (1 if table.better[column] == "higher" else -1)
    return np.argsort(-np.where(np.isfinite(means), means, -np.inf), kind="stable")


def tied(table, column, order):
    """Return the methods whose paired interval does not tell them from the best."""
    metric, best = table.metrics[column], table.methods[order[0]]
    found = []
    for number in order[1:]:
        mean, low, high = table.difference(metric, best, table.methods[number])
        if np.isfinite(mean) and not (low > 0 or high < 0):
            found.append(table.methods[number])
    return found


def mean_ranks(tables):
    """Return (mean rank, lower, upper, method) over tables from the best, and worst ranks.

    Bounds hold 95 % of the ranks in the tables' bootstrap draws.
    """
    shared = [m for m in next(iter(tables.values())).methods if all(m in t.methods for t in tables.values())]
    places, drawn = [], []
    for table in tables.values():
        rows = [table.methods.index(m) for m in shared]
        sign = 1 if table.better[0] == "higher" else -1
        scores = sign * np.nan_to_num(table.scores[rows, 0], nan=-sign * np.inf)
        places.append(_ranks(table.means[rows, 0][:, None] * sign)[:, 0])
        drawn.append(_ranks(np.stack([_mean(scores[:, draw]) for draw in table.draws], axis=1)))
    mean, low, high = np.mean(places, axis=0), *np.percentile(np.mean(drawn, axis=0), (2.5, 97.5), axis=1)
    ordered = sorted(zip(mean.tolist(), low.tolist(), high.tolist(), shared, strict=True))
    return ordered, {m: int(worst) for m, worst in zip(shared, np.max(places, axis=0), strict=True)}


def _mean(scores):
    """Return the mean over images that have a score, [methods]; minus infinity where none has."""
    known = np.isfinite(scores)
    sums = np.where(known, scores, 0).sum(1)
    return np.where(known.any(1), sums / np.maximum(known.sum(1), 1), -np.inf)


def _ranks(values):
    """Return places from 1 for each column of [methods, columns], largest first; NaN last."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), axis=0, kind="stable")
    return np.argsort(order, axis=0) + 1


def families(groups):
    counted = complete(learnt(groups))
    families = {name: [g for g in counted if has(g["task"])] for name, has in FAMILIES.items()}
    return {name: results.pooled(found, truth.METRICS) for name, found in families.items() if found}


class Pooled(NamedTuple):
    """What several sections of the page tell, pooled and ranked once.

    Attributes:
        kinds: Tables by kind of data.
        every: One of all kinds together; None where nothing has run.
        ranks: What `mean_ranks` returns of the kinds with CNNs.
        photos: The photographs' table; None where nothing has run.
    """

    kinds: dict[str, Comparison]
    every: Comparison | None
    ranks: tuple[list, dict[str, int]] | None
    photos: Comparison | None


def pool(parts):
    """Return what the groups of the parts come to."""
    groups, photographs = parts["truth"], parts["photos"]
    kinds = families(groups)
    return Pooled(
        kinds,
        results.pooled(complete(learnt(groups)), truth.METRICS) if groups else None,
        mean_ranks({name: table for name, table in kinds.items() if name in CNN}) if groups else None,
        results.pooled(photographs, PHOTO_METRICS) if photographs else None,
    )


def agreement(table):
    names = [m.replace("_", " ") for m in table.metrics]
    return lines(
        ("", *names), [(n, *(f"{x:.2f}" for x in row)) for n, row in zip(names, table.agreement, strict=True)]
    )
