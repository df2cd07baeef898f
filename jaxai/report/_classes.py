"""The classes that a command explains: by name, by index, or each photo's most probable ones."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._frame import model as _model
from .._frame import scores as _scores
from ._names import either, near, shortened

# Nearer to 0 or 1 than this, a probability hardly changes with the image.
_FLAT = 1e-4
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


def are_probabilities(net: Any, images: Any) -> bool:
    """Return whether a network, `Pretrained`, returns probabilities, for images as it takes them."""
    return _scores.ends_in_probabilities(_model.as_model(net.model), images)


def probabilities(scores: np.ndarray, *, normalized: bool = False) -> np.ndarray:
    """Return the probabilities of scores [batch, classes], by the rule of `_frame.scores`.

    Args:
        scores: Logits, or probabilities.
        normalized: Whether they are probabilities already.
    """
    if normalized:
        return scores
    if scores.shape[-1] == 1:
        return 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
    shifted = np.exp(scores - scores.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def logits(shares: np.ndarray) -> np.ndarray:
    """Return logits of probabilities [classes], of which `probabilities` makes these again."""
    return np.log(shares) - (np.log1p(-shares) if len(shares) == 1 else 0)


def entry(
    index: int, labels: Sequence[str], scores: np.ndarray, *, normalized: bool = False
) -> dict[str, Any]:
    """Return a class as it is reported: index, label, probability and logit, for one photo's scores.

    There is no logit, None, where the network returns probabilities.
    """
    return {
        "index": int(index),
        "label": labels[index],
        "probability": float(probabilities(scores[None], normalized=normalized)[0, index]),
        "logit": None if normalized else float(scores[index]),
    }


def flat(item: dict[str, Any]) -> str:
    """Return a note on a class whose probability is so near 0 or 1 that its gradient vanishes; or nothing."""
    if item["index"] is None or item["logit"] is not None:
        return ""
    share = float(item["probability"])
    if _FLAT < share < 1 - _FLAT:
        return ""
    return (
        f"the network returns probabilities, and that of {item['label']} is {share:.3g}, where it is flat:"
        " maps of its gradient are next to nothing; explain the logits before its softmax"
    )


def named(item: dict[str, Any]) -> str:
    """Return a class, or a function of the outputs, as figures name it."""
    if item["index"] is None:
        return f"{item['label']} = {item['value']:.3g}"
    return f"{item['label']} ({item['index']}), p = {item['probability']:.2f}"
