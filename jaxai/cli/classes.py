"""The classes that a command explains: by name, by index, or each photo's most probable ones."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_TOP = re.compile(r"top(\d+)")


@dataclass(frozen=True)
class Wanted:
    """What `--target` asks for: the `top` most probable classes of each photo, or the classes `indices`."""

    top: int | None = 1
    indices: tuple[int, ...] = ()

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Return the classes for scores [batch, classes]: int32 [batch, k]."""
        if self.top is None:
            return np.tile(np.asarray(self.indices, np.int32), (len(scores), 1))
        return np.argsort(-scores, axis=-1, kind="stable")[:, : self.top].astype(np.int32)


def parse(target: str | None, labels: Sequence[str]) -> Wanted:
    """Read `--target`: None, `top3`, an index, a class's name, or several with commas between them.

    Raises:
        ValueError: If there is no such class, or two have this name.
    """
    if target is None:
        return Wanted()
    if match := _TOP.fullmatch(target.strip()):
        count = int(match[1])
        if not 1 <= count <= len(labels):
            raise ValueError(f"`--target` must be top1 to top{len(labels)}; got {target}")
        return Wanted(count)
    indices = [_index(word.strip(), labels) for word in target.split(",")]
    if len(set(indices)) < len(indices):
        raise ValueError(f"`--target` names a class twice: {target}")
    return Wanted(None, tuple(indices))


def _index(word: str, labels: Sequence[str]) -> int:
    if re.fullmatch(r"[+-]?\d+", word):
        if not 0 <= int(word) < len(labels):
            raise ValueError(f"`--target` must be a class from 0 to {len(labels) - 1}; got {word}")
        return int(word)
    names = [label.lower() for label in labels]
    found = [index for index, name in enumerate(names) if name == word.lower().replace("_", " ")]
    if not found:
        found = [index for index, name in enumerate(names) if name == word.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{len(found)} classes are called {word!r}: give an index, {_or(found)}")
    inside = [label for label in labels if word and word.lower() in label.lower()]
    near = difflib.get_close_matches(word.lower(), names, n=3, cutoff=0.6)
    # A dictionary keeps the order and drops what is named twice.
    close = dict.fromkeys([*inside[:3], *(labels[names.index(name)] for name in near)])
    hint = f"; did you mean {_or(list(close)[:4])}?" if close else ""
    raise ValueError(f"unknown class {word!r}{hint}")


def _or(words: Sequence[Any]) -> str:
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the softmax of logits [batch, classes]."""
    shifted = np.exp(scores - scores.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def entry(index: int, labels: Sequence[str], logits: np.ndarray) -> dict[str, Any]:
    """Return a class as it is reported: index, label, probability and logit, for one photo's logits."""
    return {
        "index": int(index),
        "label": labels[index],
        "probability": float(probabilities(logits[None])[0, index]),
        "logit": float(logits[index]),
    }


def named(item: dict[str, Any]) -> str:
    """Return a class as figures name it."""
    return f"{item['label']} ({item['index']}), p = {item['probability']:.2f}"
