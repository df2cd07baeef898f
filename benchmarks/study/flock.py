"""What the page says of birds."""

import numpy as np

from . import results, tables
from .parts import PROTOCOLS

BEST, WORST = 20, 5
SAID = {
    "completeness": ("sufficient_parts", "preservation", "deletion"),
    "distractibility": ("distractibility",),
    "correctness": ("single_deletion",),
    "contrastivity": ("target_sensitivity",),
}


def overall(table) -> np.ndarray:
    """Return completeness with distractibility, correctness and contrastivity of each row, [rows, 3]."""
    means = {name: table.means[:, table.metrics.index(name)] for name in PROTOCOLS}
    said = {name: np.mean([means[p] for p in some], axis=0) for name, some in SAID.items()}
    complete = (said["completeness"] + said["distractibility"]) / 2
    return np.stack([complete, said["correctness"], said["contrastivity"]], axis=1)


def section(groups) -> list[str]:
    """Return the section on birds."""
    counted = tables.complete([group for group in groups if group["learnt"]])
    table = results.pooled(counted, PROTOCOLS)
    scores = overall(table)
    mean = np.nan_to_num(scores.mean(1), nan=-np.inf)
    order = sorted(range(len(table.methods)), key=lambda i: -mean[i])
    shown = [*order[:BEST], *order[-WORST:], *range(len(table.methods), len(table.rows))]
    name = [tables.escaped(row) if i < len(table.methods) else f"*{row}*" for i, row in enumerate(table.rows)]
    accuracy = ", ".join(f"{group['accuracy']:.3f}" for group in groups)
    independent = np.mean([group["background_independence"] for group in groups])
    return [
        "## Birds with parts",
        "",
        "Birds of 16 classes, each a combination of beak, eye, foot, tail and wing, before eight objects"
        " that say nothing: the protocols of FunnyBirds (Hesse et al. 2023) on birds that are drawn anew"
        " without a part or"
        f" an object. {len(counted)} CNNs (accuracy {accuracy}; background independence"
        f" {independent:.2f}), 16 birds each, {len(table.methods)} methods; the first {BEST} and the last"
        f" {WORST} by the mean of the three sums.",
        "",
        "Sufficient parts, preservation, deletion and distractibility ask which parts a map calls"
        " important, single deletion compares importance with the drop of the class's score (0.5 is"
        " chance), target sensitivity the maps of two classes that share different parts with the bird."
        " Com is the mean of completeness (the first three) and distractibility, Cor is single deletion,"
        " Con is target sensitivity.",
        "",
        *tables.lines(
            ("method", "Com", "Cor", "Con", *(p.replace("_", " ") for p in PROTOCOLS)),
            [
                (
                    name[i],
                    *(f"{x:.2f}" if np.isfinite(x) else "–" for x in scores[i]),
                    *(tables.cell(table, i, table.metrics.index(p)) for p in PROTOCOLS),
                )
                for i in shown
            ],
        ),
        "Maps that do not depend on the class have no target sensitivity; rules that only spread positive"
        " relevance lose most of theirs, since the amount of relevance of two classes is compared.",
        "",
    ]
