"""The result of `jaxai.explain`: photos, classes, maps and records, which can be displayed and saved."""

import html
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .. import _files, plots
from . import _classes as classes
from . import _figures as figures
from . import _names as names
from . import _outputs as outputs
from . import _page as page
from ._record import Part, Subject, record
from ._shown import image, readable
from ._writer import Writer

_MOST_SHOWN = 4


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Photos, their classes, and the results of methods; N is the number of photos.

    Notebooks display it. `explanation[i]` and `explanation[i:j]` are the explanations of some photos.

    Attributes:
        results: Per photo, the facts about it and the result of each method.
        failed: One line per failed method or photo; empty if nothing failed. Explanations of some photos have
            the lines about these.
        call: The call that made it, as text.
    """

    results: tuple[tuple[Subject, tuple[Part, ...]], ...]
    failed: tuple[str, ...] = ()
    call: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the photos."""
        return tuple(subject.photo.source for subject, _ in self.results)

    @cached_property
    def photos(self) -> np.ndarray:
        """The network's view of the photos, float32 [N, height, width, channels] in [0, 1].

        Raises:
            ValueError: If the photos have several sizes, as they may with tiles: then take `[i].photos`.
        """
        return _stacked([subject.pixels for subject, _ in self.results], "photos")

    @property
    def classes(self) -> tuple[tuple[dict[str, Any], ...], ...]:
        """Each photo's most probable classes: index, label, probability and logit."""
        return tuple(tuple(subject.facts["top"]) for subject, _ in self.results)

    @property
    def targets(self) -> tuple[tuple[dict[str, Any], ...], ...]:
        """The explained targets of each photo: classes, or functions by name (`label`) with their values."""
        return tuple(tuple(subject.named) for subject, _ in self.results)

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that have results for a photo."""
        return tuple(dict.fromkeys(part.method.name for _, parts in self.results for part in parts))

    @cached_property
    def maps(self) -> dict[str, np.ndarray]:
        """Raw maps by method, as the method's function returns them.

        Float32 [N, height, width], or [N, height, width, channels] for attributions of pixels; with k targets
        [N, k, ...]. NaN where a method has failed on a photo.

        Raises:
            ValueError: If the photos have several sizes, as they may with tiles: then take `[i].maps`.
        """
        return {name: self._maps(name) for name in self.methods}

    @cached_property
    def weights(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Weights of superpixels by method: [S] for each photo, with k targets [k, S].

        NaN where a method has failed on a photo.
        """
        weighed = {p.method.name for _, parts in self.results for p in parts if p.weights is not None}
        return {
            name: tuple(_squeezed(_weights(name, subject, parts)) for subject, parts in self.results)
            for name in self.methods
            if name in weighed
        }

    @cached_property
    def standard_errors(self) -> dict[str, tuple[np.ndarray, ...]]:
        """Standard errors of `weights`, for methods that return them; NaN where unknown."""
        known = {p.method.name for _, parts in self.results for p in parts if p.errors is not None}
        return {
            name: tuple(
                _squeezed(_weights(name, subject, parts, errors=True)) for subject, parts in self.results
            )
            for name in self.methods
            if name in known
        }

    @property
    def segments(self) -> np.ndarray | None:
        """Superpixels int32 [N, height, width]; None if no method needs them."""
        labels = [subject.segments for subject, _ in self.results]
        return None if any(one is None for one in labels) else np.stack([np.asarray(one) for one in labels])

    @property
    def records(self) -> tuple[dict[str, Any], ...]:
        """Per photo, everything needed to reproduce it: options, layers, seconds, digests, versions."""
        return tuple(record(subject, parts) for subject, parts in self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int | slice) -> "Explanation":
        chosen = self.results[index] if isinstance(index, slice) else (self.results[index],)
        said = {line for subject, _ in chosen for line in subject.facts.get("failed", {}).values()}
        return Explanation(chosen, tuple(line for line in self.failed if line in said), self.call)

    def __iter__(self) -> Iterator["Explanation"]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        of = ", ".join(readable(name, 30) for name in self.names[:3]) + (", ..." if len(self) > 3 else "")
        what = f"{len(self)} photo{'s' if len(self) != 1 else ''} ({of})"
        target = ""
        if self.results and len(self.targets[0]) == 1 and len(self) == 1:
            target = f", {readable(classes.named(self.targets[0][0]), 60)}"
        gone = f", {len(self.failed)} failed" if self.failed else ""
        return f"Explanation({what}{target}: {', '.join(self.methods) or 'no method'}{gone})"

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{html.escape(repr(self))}</b></p>"]
        parts += [f"<p>{html.escape(readable(line))}</p>" for line in self.failed]
        for subject, said in self.results[:_MOST_SHOWN]:
            listed = ", ".join(
                f"{readable(item['label'], 40)} {item['probability']:.0%}" for item in subject.facts["top"]
            )
            text = f"{readable(subject.photo.source, 80)}{': ' if listed else ''}{listed}"
            parts.append(f"<p>{html.escape(text)}</p>")
            if said:
                parts.append(image(figures.of_all(subject, said), text))
        if len(self) > _MOST_SHOWN:
            parts.append(f"<p>and {len(self) - _MOST_SHOWN} more: <code>.to_html(path)</code> shows all</p>")
        return f"<div>{''.join(parts)}</div>"

    def _repr_png_(self) -> bytes | None:
        shown = [(subject, parts) for subject, parts in self.results if parts][:_MOST_SHOWN]
        return plots.png(figures.of_photos(shown)) if shown else None

    def plot(self) -> Figure:
        """Return a figure: photo and methods side by side, a row for each photo and target.

        Notebooks display it; `jaxai.plots.png` turns it into a file's bytes.

        Raises:
            ValueError: If no method has a result.
        """
        if not self.methods:
            raise ValueError("there is nothing to plot: no method has finished")
        return figures.of_photos([(subject, parts) for subject, parts in self.results if parts])

    def overlay(self, method: str, *, photo: int = 0, target: int = 0) -> np.ndarray:
        """Return a whole photo in its own size with a map in its place, uint8 [height, width, 3].

        What the network has not seen is pale. `jaxai.plots.png` turns it into a file's bytes.

        Args:
            method: One of `methods`.
            photo: Number of the photo.
            target: Number of the target, for several.

        Raises:
            ValueError: If the method has no result for the photo, or the network crops in its own way.
        """
        subject, parts = self.results[photo]
        said = {part.method.name: part for part in parts}
        if method not in said:
            raise ValueError(names.unknown("method", method, said))
        return figures.on_photo(subject, said[method], target)

    def save(self, folder: str | os.PathLike) -> None:
        """Write the files of `jaxai explain`: pictures, `maps.npz` and `explanation.json`.

        A single photo is written to the folder itself, several photos to one subfolder each.

        Raises:
            OSError: If something cannot be written.
            ValueError: If a photo would be replaced.
        """
        place = Path(folder)
        sources = outputs.Sources(subject.photo.path for subject, _ in self.results)
        for subject, parts in self.results:
            inside = place / subject.photo.folder if len(self) > 1 else place
            outputs.check_folder(inside, [], sources)
            writer = Writer(inside, subject, sources)
            for part in parts:
                writer.add(part)
            writer.finish()

    def to_html(self, path: str | os.PathLike | None = None) -> str:
        """Write one self-contained page, which needs no network, and return it.

        It has the photos and their classes, every map with its opacity and the raw value under the pointer,
        the methods side by side, scores if there are any, options, digests, and the call that made it.

        Args:
            path: The file; None writes none.

        Raises:
            OSError: If it cannot be written.
            ValueError: If a photo would be replaced.
        """
        text = page.page(self.results, call=self.call, failed=self.failed)
        if path is not None:
            sources = outputs.Sources(subject.photo.path for subject, _ in self.results)
            outputs.check_file(Path(path), sources)
            _files.write(Path(path), [text.encode()])
        return text

    def _maps(self, name: str) -> np.ndarray:
        said: list[Mapping[str, Part]] = [{p.method.name: p for p in parts} for _, parts in self.results]
        shape = next(parts[name].maps.shape for parts in said if name in parts)
        rows = [parts[name].maps if name in parts else np.full(shape, np.nan, np.float32) for parts in said]
        return _stacked([_squeezed(row) for row in rows], "maps")


def _stacked(arrays: list[np.ndarray], what: str) -> np.ndarray:
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"the photos have several sizes: take `explanation[i].{what}`")
    return np.stack(arrays)


def _weights(name: str, subject: Subject, parts: tuple[Part, ...], *, errors: bool = False) -> np.ndarray:
    """Return a method's weights, or their errors, [k, S] for a photo; NaN if it has failed there."""
    for part in parts:
        found = part.errors if errors else part.weights
        if part.method.name == name and found is not None:
            return found
    count = 0 if subject.segments is None else int(subject.segments.max()) + 1
    return np.full((len(subject.named), count), np.nan, np.float32)


def _squeezed(values: np.ndarray) -> np.ndarray:
    """Return values [k, ...] without the axis k where it is one."""
    return values[0] if len(values) == 1 else values
