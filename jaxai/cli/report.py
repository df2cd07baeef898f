"""What is written about a photo: pictures, raw maps and `explanation.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from . import classes
from .methods import Result
from .registry import Method

FIGURE, MAPS, FACTS = "explanation.png", "maps.npz", "explanation.json"


def write(
    folder: Path,
    photo: np.ndarray,
    named: Sequence[dict[str, Any]],
    results: Sequence[tuple[Method, Result]],
    index: int,
    segments: np.ndarray | None,
    facts: dict[str, Any],
) -> None:
    """Write everything about one photo into a folder.

    Args:
        folder: An empty folder.
        photo: What the network saw, float [height, width, 3] in [0, 1].
        named: The classes explained, as `classes.entry` returns them.
        results: Each method with its result on the photo's batch.
        index: The photo's place in the batch.
        segments: Its superpixels [height, width]; None if no method needed them.
        facts: The content of `explanation.json`.
    """
    for method, result in results:
        figure = _method_figure(photo, named, method, result, index, segments)
        (folder / f"{method.name}.png").write_bytes(plots.png(figure))
    (folder / FIGURE).write_bytes(plots.png(_whole_figure(photo, named, results, index, segments)))
    np.savez_compressed(folder / MAPS, **_arrays(photo, named, results, index, segments))
    (folder / FACTS).write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", "utf-8")


def _arrays(photo, named, results, index, segments) -> dict[str, np.ndarray]:
    single = len(named) == 1
    arrays = {"photo": photo, "targets": np.array([item["index"] for item in named], np.int32)}
    if segments is not None:
        arrays["segments"] = segments.astype(np.int32)
    for method, result in results:
        arrays[method.name] = result.maps[index, 0] if single else result.maps[index]
        if result.weights is not None:
            # Padding, where the batch holds photos with more superpixels, is left out.
            weights = result.weights[index][:, : int(segments.max()) + 1]
            arrays[f"{method.name}_weights"] = weights[0] if single else weights
    return arrays


def _panel(photo, method: Method, result: Result, index: int, k: int, segments, title: str) -> plots.Panel:
    if method.result == "heatmap":
        return plots.heatmap_panel(
            photo, result.maps[index, k], title=title, signed=method.signed, label=method.unit
        )
    if method.result == "pixels":
        return plots.pixels_panel(result.maps[index, k], title=title, label=method.unit)
    return plots.segments_panel(photo, segments, result.weights[index, k], title=title)


def _method_figure(photo, named, method, result, index, segments):
    """Photo and map; for superpixels also all weights; a row a class if there are several of those."""
    rows = method.result == "segments"
    panels = [] if rows and len(named) > 1 else [plots.photo_panel(photo, title="photo")]
    for k, item in enumerate(named):
        title = classes.named(item) if len(named) > 1 else method.heading
        if not rows:
            panels.append(_panel(photo, method, result, index, k, segments, title))
            continue
        if len(named) > 1:
            panels.append(plots.photo_panel(photo, title=title))
        panels.append(_panel(photo, method, result, index, k, segments, "strongest regions for the class"))
        panels.append(
            plots.heatmap_panel(
                photo, result.maps[index, k], title="weights of all regions", signed=True, label=method.unit
            )
        )
    title = method.heading if len(named) > 1 else f"{method.heading}: {classes.named(named[0])}"
    return plots.compose(panels, title=title, columns=3 if rows else None)


def _whole_figure(photo, named, results, index, segments):
    """All methods side by side, a row a class."""
    single = len(named) == 1
    panels = []
    for k, item in enumerate(named):
        panels.append(plots.photo_panel(photo, title="photo" if single else classes.named(item)))
        panels += [_panel(photo, m, r, index, k, segments, m.heading) for m, r in results]
    title = classes.named(named[0]) if single else ""
    return plots.compose(panels, title=title, columns=None if single else len(results) + 1)


def numbers(value: Any) -> Any:
    """Return arrays as nested lists with None for what is not finite, which JSON does not know."""
    if isinstance(value, np.ndarray):
        return numbers(value.tolist())
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return value if not isinstance(value, float) or np.isfinite(value) else None
