"""What the page says of pairs of networks and images (BAM)."""

import numpy as np

from . import results, tables
from .pairs import PROTOCOLS

BEST, WORST, FEW = 20, 5, 4


def section(groups) -> list[str]:
    """Return the section on pairs."""
    counted = tables.complete([group for group in groups if group["learnt"] and group["rows"]])
    table = results.pooled(counted, PROTOCOLS)
    chance = [i for i, row in enumerate(table.rows) if row == "random"]
    order = [i for i in tables.order_of(table, 0) if i not in chance]
    best = [
        f"{name.replace('_', ' ')}: "
        + ", ".join(f"**{tables.escaped(table.rows[i])}**" for i in tables.order_of(table, column)[:FEW])
        for column, name in enumerate(table.metrics)
    ]
    shown = [*order[:BEST], *order[-WORST:], *chance]
    return [
        "## Objects that matter to one network alone",
        "",
        "BAM's protocols (Yang and Kim 2019) on the objects on textures: one CNN tells the object, another"
        f" the texture behind it. {len(counted)} pairs of CNNs, {counted[0]['images']} images each that both"
        f" tell rightly, {len(order)} methods; the first {BEST} and the last {WORST} by model"
        " contrast.",
        "",
        "What a map says of an object is the mean of its positive part over the object's pixels, from 0 to 1"
        " after clipping at its 99th percentile. Model contrast: how much more the first network's map says"
        " of it than the second's. Input dependence: the share of images where the second network's map says"
        " less of the place with the object than with the texture that it hides. Input independence: the"
        " share where a patch in the object's place that leaves the second network's logits as they are"
        " changes what its map says of the place by at most a tenth (patches of"
        f" {np.mean([g['patch_size'] for g in counted]):.2f} times the object's norm, which move the logits"
        f" {np.mean([g['patch_moves_logits'] for g in counted]):.3f} times as far).",
        "",
        *tables.lines(
            ("method", *(p.replace("_", " ") for p in PROTOCOLS)),
            [
                (
                    f"*{table.rows[i]}*" if i in chance else tables.escaped(table.rows[i]),
                    *(tables.cell(table, i, table.metrics.index(p)) for p in PROTOCOLS),
                )
                for i in shown
            ],
        ),
        f"The first {FEW} by each: {'; '.join(best)}. Coarse maps change little between images, with and"
        " without a reason: that helps them to independence, and costs them contrast.",
        "",
    ]
