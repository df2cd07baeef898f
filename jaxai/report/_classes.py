"""The classes that a command explains: by name, by index, or each photo's most probable ones."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._names import either, near, shortened

_TOP = re.compile(r"top(\d*)")


@dataclass(frozen=True)
class Wanted:
    """The value of `--target`: the `top` most probable classes of each photo, or the classes `indices`.

    Functions of the outputs, by name, can be explained instead.
    """

    top: int | None = 1
    indices: tuple[int, ...] = ()
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Return the classes for scores [batch, classes]: int32 [batch, k]."""
        if self.top is None:
            return np.tile(np.asarray(self.indices, np.int32), (len(scores), 1))
        return np.argsort(-scores, axis=-1, kind="stable")[:, : self.top].astype(np.int32)


def parse(
    target: str | Sequence[str | int] | None, labels: Sequence[str], *, shown: str = "`--target`"
) -> Wanted:
    """Parse the requested classes: None, `top3`, an index, a class's name, or several of those.

    Args:
        target: Text with commas between names and numbers, or a sequence of those.
        labels: The names of all classes.
        shown: Its name in messages.

    Raises:
        ValueError: If there is no such class, or two have this name.
    """
    if target is None:
        return Wanted()
    if isinstance(target, str) and (match := _TOP.fullmatch(target.strip())):
        count = _number(match[1] or "1")
        if not 1 <= count <= len(labels):
            raise ValueError(f"{shown} must be top1 to top{len(labels)}; got {shortened(target)}")
        return Wanted(count)
    words = target.split(",") if isinstance(target, str) else list(target)
    indices = [_index(str(word).strip(), labels, shown) for word in words]
    if not indices:
        raise ValueError(f"{shown} is empty; expected a class")
    if len(set(indices)) < len(indices):
        raise ValueError(f"{shown} names a class twice: {shortened(', '.join(map(str, words)))}")
    return Wanted(None, tuple(indices))


def _index(word: str, labels: Sequence[str], shown: str) -> int:
    if re.fullmatch(r"[+-]?\d+", word):
        if not 0 <= _number(word) < len(labels):
            raise ValueError(f"{shown} must be a class from 0 to {len(labels) - 1}; got {shortened(word)}")
        return _number(word)
    names = [label.lower() for label in labels]
    found = [index for index, name in enumerate(names) if name == word.lower().replace("_", " ")]
    if not found:
        found = [index for index, name in enumerate(names) if name == word.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{len(found)} classes are called {word!r}: give an index, {either(found)}")
    inside = [label for label in labels if word and word.lower() in label.lower()]
    close = list(dict.fromkeys([*inside[:3], *near(word, labels)]))[:4]
    hint = f"; did you mean {either(close)}?" if close else ""
    raise ValueError(f"unknown class {shortened(word)!r}{hint}")


def _number(digits: str) -> int:
    """Return an integer; if it has more digits than Python reads, some equally large number."""
    sign = -1 if digits.startswith("-") else 1
    return int(digits) if len(digits) < 20 else sign * 10**20


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
    """Return a class, or a function of the outputs, as figures name it."""
    if item["index"] is None:
        return f"{item['label']} = {item['value']:.3g}"
    return f"{item['label']} ({item['index']}), p = {item['probability']:.2f}"
