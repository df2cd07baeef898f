"""Two stores of the same images: two checkpoints, or two methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from .. import metrics
from . import _needs
from ._columns import Columns

_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Compared:
    """The comparison of two stores on the images that both hold.

    Attributes:
        methods: The methods whose maps were compared, one per store.
        paths: Of the images, [n].
        one: Their numbers in the one store, [n].
        other: Their numbers in the other store, [n].
        classes: The names of the most probable classes, [n, 2].
        probabilities: Of these classes, [n, 2].
        similarity: Of the maps of the first targets, in [-1, 1]; NaN where one is constant, [n].
        left_out: Images of either store that have an error, or are not the same file in the other.
    """

    methods: tuple[str, str]
    paths: np.ndarray
    one: np.ndarray
    other: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    similarity: np.ndarray
    left_out: int

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"Compared({len(self)} images: {' and '.join(self.methods)})"

    @property
    def same(self) -> np.ndarray:
        """Whether both stores have the same most probable class, bool [n]."""
        return self.classes[:, 0] == self.classes[:, 1]

    def __str__(self) -> str:
        lines = [f"{len(self)} images in both stores ({self.left_out} left out)"]
        if len(self):
            lines.append(f"the same class in {self.same.mean():.1%}")
            finite = self.similarity[np.isfinite(self.similarity)]
            if len(finite):
                low, middle, high = np.percentile(finite, [25, 50, 75])
                names = f"{self.methods[0]} and {self.methods[1]}"
                lines.append(f"{names}: similarity {middle:.3f} (median; quartiles {low:.3f}, {high:.3f})")
        return "\n".join(lines)

    def table(self) -> Any:
        """Return a row per image, a `pyarrow.Table`, the least similar maps first."""
        order = np.argsort(np.nan_to_num(self.similarity, nan=np.inf), kind="stable")
        columns = {
            "path": self.paths,
            "index": self.one,
            "other_index": self.other,
            "class": self.classes[:, 0],
            "other_class": self.classes[:, 1],
            "probability": self.probabilities[:, 0],
            "other_probability": self.probabilities[:, 1],
            "similarity": self.similarity,
        }
        return _needs.arrow().table({name: list(values[order]) for name, values in columns.items()})


def compare(one: Any, other: Any, *, methods: Sequence[str] | None = None, name: str = "pearson") -> Compared:
    """Compare two stores, image by image: their classes, and the maps of their first targets.

    Images are the same if their paths and their files are. The larger maps are averaged to the size of the
    smaller ones.

    Args:
        one: A store, as `open` returns it.
        other: Another, or the same for two methods of one.
        methods: One method per store; None takes the first that both have, or else each store's first.
        name: Similarity of maps, as in `jaxai.metrics.similarity`.

    Returns:
        The comparison on the images that both hold without an error; prints as a summary.

    Raises:
        ValueError: If there is no such method or similarity, or no image that both hold.
    """
    first, second = _pair(one, other, methods)
    mine, theirs = Columns(one.table()), Columns(other.table())
    places = [_keys(columns) for columns in (mine, theirs)]
    shared = [key for key in places[0] if key in places[1]]
    if not shared:
        raise ValueError("the stores have no image in common: the same path with the same content, explained")
    at = [np.array([place[key] for key in shared]) for place in places]
    pairs = list(zip((one, other), (mine, theirs), at, strict=True))
    numbers = [columns.index[where] for _, columns, where in pairs]
    classes = [[store.name_of(int(c)) for c in columns.top[where, 0]] for store, columns, where in pairs]
    return Compared(
        methods=(first, second),
        paths=np.array([path for path, _ in shared], object),
        one=numbers[0],
        other=numbers[1],
        classes=np.array(classes, object).T,
        probabilities=np.stack([columns.probability[where, 0] for _, columns, where in pairs], axis=1),
        similarity=_similar(one.maps[first], other.maps[second], numbers[0], numbers[1], name),
        left_out=len(one) + len(other) - 2 * len(shared),
    )


def _pair(one: Any, other: Any, methods: Sequence[str] | None) -> tuple[str, str]:
    known = [[name for name, _ in store.plan.methods] for store in (one, other)]
    if methods is None:
        both = [name for name in known[0] if name in known[1] and one is not other]
        return (both[0], both[0]) if both else (known[0][0], known[1][-1 if one is other else 0])
    if isinstance(methods, str) or len(methods) != 2:
        raise ValueError(f"`methods` must be two names, one for each store; got {methods!r}")
    for store, name in zip(known, methods, strict=True):
        if name not in store:
            raise ValueError(f"the store has maps of {', '.join(store)}; got {name!r}")
    return methods[0], methods[1]


def _keys(columns: Columns) -> dict[tuple[str, str], int]:
    if not len(columns):
        return {}
    pairs = zip(columns.table["path"].to_pylist(), columns.table["sha256"].to_pylist(), strict=True)
    return {pair: place for place, pair in enumerate(pairs)}


def _similar(mine: Any, theirs: Any, one: np.ndarray, other: np.ndarray, name: str) -> np.ndarray:
    found = []
    for at in range(0, len(one), _CHUNK):
        maps = [first(store[places[at : at + _CHUNK]]) for store, places in ((mine, one), (theirs, other))]
        size = tuple(min(sides) for sides in zip(*(part.shape[1:] for part in maps), strict=True))
        small = [jnp.asarray(_reduced(part, size)) for part in maps]
        found.append(np.asarray(metrics.similarity(small[0], small[1], name=name), np.float64))
    return np.concatenate(found)


def first(maps: np.ndarray) -> np.ndarray:
    """Return the maps of the first targets, [n, height, width]."""
    return maps[:, 0] if maps.ndim == 4 else maps


def _reduced(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    if maps.shape[1:] == size:
        return maps
    # Small gradients would be lost in the sums.
    scale = np.abs(maps).max((1, 2), keepdims=True)
    scaled = np.divide(maps, scale, out=np.zeros_like(maps), where=scale > 0).astype(np.float32)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((size[1], size[0]), Image.Resampling.BOX)) for one in scaled]
    )
