"""What is written about a photo: pictures, raw maps and `explanation.json`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import _files, maps, plots
from . import classes, outputs
from .methods import Chosen

FIGURE, MAPS, FACTS = "explanation.png", "maps.npz", "explanation.json"


def file_names(methods: Iterable[Chosen]) -> list[str]:
    """Return the names of the files that are written about a photo."""
    return [*(f"{method.name}.png" for method in methods), FIGURE, MAPS, FACTS]


@dataclass(frozen=True)
class Part:
    """What one method says of one photo.

    Attributes:
        method: The method.
        maps: [k, height, width], with channels for pixel attributions.
        weights: Of superpixels [k, S]; None for other methods.
        facts: What the record says of it.
    """

    method: Chosen
    maps: np.ndarray
    weights: np.ndarray | None
    facts: dict[str, Any]


@dataclass
class Writer:
    """The files about one photo, whole and in step with each other after every method.

    Attributes:
        folder: Where they go; made with the first of them.
        photo: What the network saw, float [height, width, 3] in [0, 1].
        named: The classes explained, as `classes.entry` returns them.
        segments: The photo's superpixels [height, width]; None if no method needs them.
        facts: The content of `explanation.json`, methods apart.
        sources: What must not be removed.
    """

    folder: Path
    photo: np.ndarray
    named: Sequence[dict[str, Any]]
    segments: np.ndarray | None
    facts: dict[str, Any]
    sources: outputs.Sources
    parts: list[Part] = field(default_factory=list)
    _earlier: list[str] = field(default_factory=list)

    def add(self, part: Part) -> None:
        """Write a method's picture, and the maps and the record with it in them.

        Pictures of another photo that an earlier run left in the folder are removed with the first one.

        Raises:
            OSError: If something cannot be written, or another run has written about another photo meanwhile.
        """
        parts = [*self.parts, part]
        with outputs.locked(self.folder), _files.folder(self.folder) as new:
            (new / f"{part.method.name}.png").write_bytes(plots.png(self._method_figure(part)))
            _save(new / MAPS, self._arrays(parts))
            old = outputs.record(self.folder / FACTS)
            same = _digest(old) == self.facts["image"]["sha256"]
            if self.parts and not same:
                raise OSError(f"another run has written to {self.folder} meanwhile")
            listed = [] if self.parts else _pictures(old)
            if same:
                self._earlier += listed
            self._write_facts(new, parts)
            # Where the photo is the same, pictures of other methods stay.
            gone = [*([] if same else listed), *([FIGURE] if listed else [])]
            outputs.remove(self.folder, gone, self.sources)
        self.parts = parts

    def finish(self) -> None:
        """Write the figure of all methods.

        Raises:
            OSError: If it cannot be written.
        """
        if self.parts:
            with outputs.locked(self.folder), _files.folder(self.folder) as new:
                (new / FIGURE).write_bytes(plots.png(self._whole_figure()))
                self._write_facts(new, self.parts)

    def _write_facts(self, folder: Path, parts: Sequence[Part]) -> None:
        now = {part.method.name: part.facts for part in parts}
        pictures = {facts["files"]["picture"] for facts in now.values()}
        earlier = [name for name in self._earlier if name not in pictures]
        facts = {**self.facts, "methods": now, **({"earlier_pictures": earlier} if earlier else {})}
        text = json.dumps(facts, indent=2, allow_nan=False)
        (folder / FACTS).write_text(f"{text}\n", "utf-8")

    def _arrays(self, parts: Sequence[Part]) -> dict[str, np.ndarray]:
        single = len(self.named) == 1
        arrays = {"photo": self.photo, "targets": np.array([item["index"] for item in self.named], np.int32)}
        if self.segments is not None:
            arrays["segments"] = self.segments.astype(np.int32)
        for part in parts:
            arrays[part.method.name] = part.maps[0] if single else part.maps
            if part.weights is not None:
                arrays[f"{part.method.name}_weights"] = part.weights[0] if single else part.weights
        return arrays

    def _panel(self, part: Part, k: int, title: str) -> plots.Panel:
        """Return a method's panel with its scores, if there are any, below."""
        return replace(self._plain_panel(part, k, title), caption=_scores(part.facts, k))

    def _plain_panel(self, part: Part, k: int, title: str) -> plots.Panel:
        method = part.method
        if method.result == "heatmap":
            heatmap = part.maps[k]
            if heatmap.shape != self.photo.shape[:2]:
                # With `upsample=False`.
                heatmap = np.asarray(maps.upsample(jnp.asarray(heatmap), self.photo.shape[:2]))
            return plots.heatmap_panel(
                self.photo, heatmap, title=title, signed=method.signed, label=method.description.unit
            )
        if method.result == "pixels":
            return plots.pixels_panel(part.maps[k], title=title, label=method.description.unit)
        assert self.segments is not None and part.weights is not None
        return plots.segments_panel(self.photo, self.segments, part.weights[k], title=title)

    def _method_figure(self, part: Part):
        """Photo and map; for superpixels also all weights; a row per class if there are several of those."""
        method, named = part.method, self.named
        rows = method.result == "segments"
        panels = [] if rows and len(named) > 1 else [plots.photo_panel(self.photo, title="photo")]
        for k, item in enumerate(named):
            title = classes.named(item) if len(named) > 1 else method.description.title
            if not rows:
                panels.append(self._panel(part, k, title))
                continue
            if len(named) > 1:
                panels.append(plots.photo_panel(self.photo, title=title))
            panels.append(self._panel(part, k, "strongest regions for the class"))
            panels.append(
                plots.heatmap_panel(
                    self.photo,
                    part.maps[k],
                    title="weights of all regions",
                    signed=True,
                    label=method.description.unit,
                )
            )
        title = (
            method.description.title
            if len(named) > 1
            else f"{method.description.title}: {classes.named(named[0])}"
        )
        return plots.compose(panels, title=title, columns=3 if rows else None)

    def _whole_figure(self):
        """All methods side by side, a row per class."""
        single = len(self.named) == 1
        panels = []
        for k, item in enumerate(self.named):
            panels.append(plots.photo_panel(self.photo, title="photo" if single else classes.named(item)))
            panels += [self._panel(part, k, part.method.description.title) for part in self.parts]
        title = classes.named(self.named[0]) if single else ""
        return plots.compose(panels, title=title, columns=None if single else len(self.parts) + 1)


def _scores(facts: dict[str, Any], k: int) -> str:
    """Return the scores of a method for class k in a line of text for each two."""
    found = facts.get("scores", {})
    texts = [
        f"{name.replace('_', ' ')} {'–' if values[k] is None else format(round(values[k], 2) + 0.0, '.2f')}"
        for name, values in found.items()
    ]
    return "\n".join("   ".join(texts[i : i + 2]) for i in range(0, len(texts), 2))


def _save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez_compressed(path, **arrays)


def _digest(record: dict[str, Any]) -> Any:
    image = record.get("image")
    return image.get("sha256") if isinstance(image, dict) else None


def _pictures(record: dict[str, Any]) -> list[str]:
    """Return the pictures of methods that a record lists."""
    methods, earlier = record.get("methods"), record.get("earlier_pictures")
    found = [f"{name}.png" for name in methods] if isinstance(methods, dict) else []
    return found + (earlier if isinstance(earlier, list) else [])
