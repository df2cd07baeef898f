"""The figures of docs/experiments.md."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxai.plots import comparison

from .results import REFERENCES


def families(tables, metric) -> Figure:
    """Draw a metric of localization, less chance: a line for each method, a column for each kind of data."""
    first = next(iter(tables.values()))
    rows = [name for name in first.rows if all(name in table.rows for table in tables.values())]
    values = []
    for table in tables.values():
        chance = table.chance[metric]
        column = table.means[:, table.metrics.index(metric)]
        values.append([(column[table.rows.index(name)] - chance) / (1 - chance) for name in rows])
    values = np.array(values).T
    order = sorted(
        range(len(rows)), key=lambda i: (rows[i] in REFERENCES, -np.nan_to_num(values[i], nan=-1.0).mean())
    )
    values, rows = values[order], [rows[i] for i in order]
    figure = Figure(figsize=(1.15 * len(tables) + 3.4, 0.21 * len(rows) + 1.0), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(values, vmin=-0.5, vmax=1, cmap="RdYlBu", aspect="auto")
    axes.set_xticks(range(len(tables)), list(tables), fontsize=9)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [f"({r})" if r in REFERENCES else r for r in rows], fontsize=8)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value > 0.75 else "#222222"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def photos(table) -> Figure:
    """Draw every method in every metric, with intervals."""
    return comparison(
        table, title="EfficientNet-Lite0, twenty photographs", columns=min(5, len(table.metrics))
    )
