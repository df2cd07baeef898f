"""Results as lines of Markdown tables, and orders of methods."""

import numpy as np

from . import results, truth

PHOTO_METRICS = ("relevance_gain", "pointing_game", "rank_accuracy", "mass_accuracy", "gini")
FAMILIES = {
    "white noise": lambda name: name.endswith("white"),
    "correlated noise": lambda name: name.endswith("correlated"),
    "tag": lambda name: name == "Clever Hans tag",
    "object": lambda name: name == "object on texture",
    "texture": lambda name: name == "texture behind object",
}


def learnt(groups):
    """Return the trainings that count: those that learnt and gave enough images."""
    return [group for group in groups if group["learnt"] and group["rows"]]


def complete(groups):
    """Return the trainings whose methods have all run; one that was cut off counts when it is finished."""
    most = max((len(group["rows"]) for group in groups), default=0)
    return [group for group in groups if len(group["rows"]) == most]


def cell(table, row, column=0):
    mean, (low, high) = table.means[row, column], table.intervals[row, column]
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(mean) else "–"


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
        _, low, high = table.difference(metric, best, table.methods[number])
        if low <= 0 <= high:
            found.append(table.methods[number])
    return found


def mean_ranks(tables):
    """Return the methods that all tables have, (mean rank, method) from the best, and worst ranks."""
    places = [{m: r + 1 for r, m in enumerate(t.methods[i] for i in order_of(t, 0))} for t in tables.values()]
    shared = [m for m in places[0] if all(m in place for place in places)]
    mean = sorted((float(np.mean([place[m] for place in places])), m) for m in shared)
    return shared, mean, {m: max(place[m] for place in places) for m in shared}


def families(groups):
    counted = complete(learnt(groups))
    families = {name: [g for g in counted if has(g["task"])] for name, has in FAMILIES.items()}
    return {name: results.pooled(found, truth.METRICS) for name, found in families.items() if found}


def agreement(table):
    names = [m.replace("_", " ") for m in table.metrics]
    return lines(
        ("", *names), [(n, *(f"{x:.2f}" for x in row)) for n, row in zip(names, table.agreement, strict=True)]
    )
