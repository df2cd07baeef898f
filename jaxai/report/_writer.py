"""Writing the files of a photo: pictures, raw maps and `explanation.json`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files, plots
from . import _figures as figures
from . import _outputs as outputs
from ._methods import Chosen
from ._record import Part, Subject, arrays, record

FIGURE, MAPS, FACTS = "explanation.png", "maps.npz", "explanation.json"


@dataclass(frozen=True)
class Extras:
    """Optional files besides the pictures that are always written.

    Attributes:
        format: The figure of all methods as "pdf" or "svg" too; "png" is no more than there is.
        whole: A picture of each map on the whole photo, in the photo's own size.
    """

    format: str = "png"
    whole: bool = False

    def figure(self) -> str:
        """Return the name of the figure."""
        return str(Path(FIGURE).with_suffix(f".{self.format}"))

    def on_photo(self, method: str, k: int, count: int) -> str:
        """Return the name of a picture on the whole photo."""
        return f"{method}_whole{'' if count == 1 else f'_{k + 1}'}.png"


def file_names(methods: Iterable[Chosen], extras: Extras) -> list[str]:
    """Return the names of the files that are written about a photo of one class."""
    found = [*(f"{method.name}.png" for method in methods), FIGURE, MAPS, FACTS, extras.figure()]
    return found + [extras.on_photo(method.name, 0, 1) for method in methods if extras.whole]


@dataclass
class Writer:
    """The files about one photo, complete and consistent after every method.

    Attributes:
        folder: Their folder, made with the first of them.
        subject: The photo.
        sources: Files that must not be removed.
        extras: Optional files to write.
    """

    folder: Path
    subject: Subject
    sources: outputs.Sources
    extras: Extras = Extras()
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
            (new / f"{part.method.name}.png").write_bytes(plots.png(figures.of_method(self.subject, part)))
            count = len(self.subject.named)
            for k in range(count if self.extras.whole else 0):
                picture = plots.png(figures.on_photo(self.subject, part, k))
                (new / self.extras.on_photo(part.method.name, k, count)).write_bytes(picture)
            _save(new / MAPS, arrays(self.subject, parts))
            old = outputs.record(self.folder / FACTS)
            same = _digest(old) == self.subject.facts["image"]["sha256"]
            if self.parts and not same:
                raise OSError(f"another run has written to {self.folder} meanwhile")
            listed = [] if self.parts else _pictures(old)
            if same:
                self._earlier += listed
            self._write_facts(new, parts)
            # Where the photo is the same, pictures of other methods stay.
            gone = [*([] if same else listed), *([FIGURE] if listed else [])]
            outputs.remove(self.folder, gone, self.sources)
        self.parts.append(part)

    def finish(self) -> None:
        """Write the figure of all methods.

        Raises:
            OSError: If it cannot be written.
        """
        if self.parts:
            with outputs.locked(self.folder), _files.folder(self.folder) as new:
                figure = figures.of_all(self.subject, self.parts)
                (new / FIGURE).write_bytes(plots.png(figure))
                if self.extras.format != "png":
                    (new / self.extras.figure()).write_bytes(plots.vector(figure, format=self.extras.format))
                self._write_facts(new, self.parts)

    def _write_facts(self, folder: Path, parts: Sequence[Part]) -> None:
        facts = record(self.subject, parts)
        pictures = {facts["files"]["picture"] for facts in facts["methods"].values()}
        earlier = [name for name in self._earlier if name not in pictures]
        facts |= {"earlier_pictures": earlier} if earlier else {}
        text = json.dumps(facts, indent=2, allow_nan=False)
        (folder / FACTS).write_text(f"{text}\n", "utf-8")


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
