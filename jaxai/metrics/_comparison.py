"""The table of a comparison: means, paired intervals, agreement, as text, JSON or CSV."""

import csv
import io
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files
from .._frame import shown
from .._frame.results import Result
from . import _agreement

_ENDS = {"higher": "max", "lower": "min"}


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Scores of methods and references by metric; prints as a table, and `jaxai.plots.comparison` draws it.

    Attributes:
        methods: The names of the methods.
        references: The names of the reference rows.
        metrics: The names of the metrics.
        better: `"higher"` or `"lower"` per metric.
        scores: float64 [rows, metrics, batch], methods first; NaN where a metric is not defined.
        chance: Mean score of a random map by metric, where known.
        seconds: Time per image of each method in the fastest chunk of images; with a single chunk it includes
            compilation.
        draws: Resampled numbers of images [draws, batch], the same for all rows.
        confidence: Confidence level of the intervals.
        settings: The settings of the call.
        passes: Cost per image of each method in passes of the network, counted as in `jaxai methods`; only
            for this library's methods.
    """

    methods: tuple[str, ...]
    references: tuple[str, ...]
    metrics: tuple[str, ...]
    better: tuple[str, ...]
    scores: np.ndarray
    chance: Mapping[str, float]
    seconds: Mapping[str, float]
    draws: np.ndarray
    confidence: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    passes: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the rows: methods, then references."""
        return (*self.methods, *self.references)

    @property
    def means(self) -> np.ndarray:
        """Means over the images where a score is defined, [rows, metrics]."""
        return _mean(self.scores)

    @cached_property
    def intervals(self) -> np.ndarray:
        """Bootstrap intervals of the means, [rows, metrics, 2]; NaN for fewer than two scores."""
        return self._interval(self.scores)

    @cached_property
    def _weights(self) -> np.ndarray:
        """How often each image is in each draw, float64 [batch, draws]."""
        count = self.scores.shape[-1]
        return np.stack([np.bincount(draw, minlength=count) for draw in self.draws], -1).astype(np.float64)

    def _interval(self, values):
        known = ~np.isnan(values)
        sums = np.where(known, values, 0.0) @ self._weights
        with np.errstate(invalid="ignore"):
            # In draws without a known score nothing is known: 0 / 0.
            resampled = np.moveaxis(sums / (known.astype(np.float64) @ self._weights), -1, 0)
        edges = (1 - self.confidence) / 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            ends = np.moveaxis(np.nanquantile(resampled, [edges, 1 - edges], axis=0), 0, -1)
        # Every draw of a single score is that score.
        return np.where(((~np.isnan(values)).sum(-1) > 1)[..., None], ends, np.nan)

    def difference(self, metric: str, first: str, second: str) -> tuple[float, float, float]:
        """Return the difference of the first row's score from the second's, and the ends of its interval.

        The differences are paired: both rows use the same images in every draw, and images for which one of
        them is undefined are left out of both. The ends are NaN for fewer than two images.
        """
        column = _place(self.metrics, metric, "metric")
        one, two = (_place(self.rows, name, "row") for name in (first, second))
        apart = self.scores[one, column] - self.scores[two, column]
        low, high = self._interval(apart)
        return float(_mean(apart)), float(low), float(high)

    @property
    def agreement(self) -> np.ndarray:
        """Kendall's tau-b between the metrics' rankings of the methods, [metrics, metrics].

        From -1 to 1; the sign is changed for metrics where lower is better; NaN for fewer than two methods.
        """
        values = (self.means[: len(self.methods)] * self._signs).T
        return np.array([[_agreement.kendall(a, b) for b in values] for a in values])

    @property
    def alpha(self) -> float:
        """Krippendorff's alpha between the metrics' rankings of the methods.

        1 if all metrics rank the methods equally, about 0 if they agree no more than by chance; NaN for fewer
        than two methods or metrics.
        """
        ranks = _agreement.ranks((self.means[: len(self.methods)] * self._signs).T)
        return _agreement.krippendorff(ranks)

    @property
    def reliability(self) -> np.ndarray:
        """Krippendorff's alpha between the images' rankings of the methods, [metrics].

        The inter-rater reliability of Tomsett et al.: Sanity Checks for Saliency Metrics. AAAI 2020, arXiv
        1912.01451.
        """
        scores = np.moveaxis(self.scores[: len(self.methods)], 0, -1)
        return np.array([_agreement.krippendorff(_agreement.ranks(values)) for values in scores])

    @property
    def _signs(self):
        return np.where(np.array(self.better) == "higher", 1.0, -1.0)

    def __repr__(self) -> str:
        rows = f"{', '.join(self.methods)} beside {shown.counted(len(self.references), 'reference')}"
        images = shown.counted(self.scores.shape[-1], "image")
        return f"Comparison({rows}; {', '.join(self.metrics)}; {images})"

    def _repr_html_(self) -> str:
        lines, about = self._lines()
        return shown.table(lines[0], lines[1:], caption=about)

    def _lines(self) -> tuple[list[list[str]], str]:
        """Return the cells of the table, header first, and the line below it."""
        means, ends = self.means, self.intervals
        head = [
            "method",
            *(f"{m} ({_ENDS[b]})" for m, b in zip(self.metrics, self.better, strict=True)),
            "s",
            *(["passes"] if self.passes else []),
        ]
        lines = [head]
        for i, row in enumerate(self.rows):
            cells = [_cell(mean, *both) for mean, both in zip(means[i], ends[i], strict=True)]
            best = self.best
            cells = [f"{cell} *" if best[j] == i else cell for j, cell in enumerate(cells)]
            cost = [f"{self.seconds[row]:.3g}" if row in self.seconds else ""]
            cost += [self.passes.get(row, "")] if self.passes else []
            lines.append([row, *cells, *cost])
        if self.chance:
            cells = [f"{self.chance[m]:.3f}" if m in self.chance else "" for m in self.metrics]
            lines.append(["(chance)", *cells, *[""] * (len(head) - 1 - len(cells))])
        count = shown.counted(self.scores.shape[-1], "image")
        about = f"{count}; [{self.confidence:.0%} bootstrap intervals]; * best method"
        alpha = self.alpha if len(self.metrics) > 1 else np.nan
        more = "" if np.isnan(alpha) else f"; Krippendorff's alpha of metrics {alpha:.2f}"
        return lines, about + more

    def __str__(self) -> str:
        lines, about = self._lines()
        head = lines[0]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        text.insert(1, "-" * max(map(len, text)))
        text.insert(2 + len(self.methods), "-" * len(text[1]))
        text.append(about)
        return "\n".join(text)

    @property
    def best(self) -> list[int]:
        """The number of each metric's best method, -1 where no method has a score."""
        found = []
        for column, better in zip(self.means[: len(self.methods)].T, self.better, strict=True):
            signed = np.where(np.isfinite(column), column if better == "higher" else -column, -np.inf)
            found.append(int(signed.argmax()) if np.isfinite(signed).any() else -1)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dicts; NaN is None."""
        return {
            "rows": list(self.rows),
            "methods": list(self.methods),
            "metrics": list(self.metrics),
            "better": list(self.better),
            "means": _plain(self.means),
            "intervals": _plain(self.intervals),
            "agreement": _plain(self.agreement),
            "alpha": _plain(np.array(self.alpha)),
            "reliability": _plain(self.reliability),
            "scores": _plain(self.scores),
            "chance": dict(self.chance),
            "seconds": dict(self.seconds),
            "passes": dict(self.passes),
            "confidence": self.confidence,
            "settings": dict(self.settings),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def to_csv(self) -> str:
        """Return a line per row and metric: row, metric, better, mean, low, high, images."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["row", "metric", "better", "mean", "low", "high", "images"])
        means, ends, number = self.means, self.intervals, np.isfinite(self.scores).sum(-1)
        for i, row in enumerate(self.rows):
            for j, metric in enumerate(self.metrics):
                numbers = ["" if np.isnan(x) else repr(float(x)) for x in (means[i, j], *ends[i, j])]
                writer.writerow([row, metric, self.better[j], *numbers, int(number[i, j])])
        return out.getvalue()

    def _arrays(self) -> dict[str, Any]:
        names = {name: np.asarray(getattr(self, name)) for name in ("rows", "metrics")}
        return {**names, "scores": self.scores, "draws": self.draws}

    def save(self, folder: str | os.PathLike) -> None:
        """Write the table to a file (`.json` holds everything, `.csv` means and intervals) or to a folder.

        Args:
            folder: A path that ends in .json or .csv; without an ending it is a folder, made if needed, for
                `figure.png`, `arrays.npz`, `comparison.json` and `comparison.csv`.

        Raises:
            ValueError: If the name has another ending.
            OSError: If nothing can be written there.
        """
        path = Path(folder)
        if not path.suffix:
            super().save(path)
            self.save(path / "comparison.json")
            self.save(path / "comparison.csv")
            return
        if path.suffix not in (".json", ".csv"):
            raise ValueError(f"`folder` must end in .json or .csv, or be a folder; got {path.name!r}")
        text = self.to_json() if path.suffix == ".json" else self.to_csv()
        with _files.file(path) as new:
            new.write_text(text, encoding="utf-8")


def _cell(mean, low, high):
    if not np.isfinite(mean):
        return "-"
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(low) else f"{mean:.3f} [-]"


def _mean(values):
    """Return the mean over images where a score is defined, NaN where it never is."""
    defined = ~np.isnan(values)
    number = defined.sum(-1)
    total = np.where(defined, values, 0).sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _place(names, name, what):
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}; there are {', '.join(names)}")
    return names.index(name)


def _plain(values):
    found: Any = np.where(np.isfinite(values), values.astype(object), None)
    return found.tolist()
