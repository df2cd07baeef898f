"""Black-box models: any Python function, called in batches from the host."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import _files

_INSTEAD = "pass a model of JAX, or take a method that only asks for scores, such as `rise`"


@dataclass(frozen=True)
class BlackBox:
    """A Python function as a model; see `black_box`."""

    predict: Callable[[np.ndarray], Any]
    cache: Path | None = None
    progress: bool = False

    # What `as_model` says of it.
    outside_jax: ClassVar[str] = f"a `black_box` has no gradients and runs outside JAX: {_INSTEAD}"

    def __call__(self, images: Any) -> np.ndarray:
        """Return the scores of images, as any model does."""
        return self.scores(images)

    def scores(self, images: Any) -> np.ndarray:
        """Return float32 scores of images [batch, ...], from the cache if it has them."""
        # A copy: JAX's arrays are read-only, and `predict` may change its input.
        images = np.array(images)
        if self.cache is None:
            return self._call(images)
        digest = hashlib.sha256(f"{images.dtype}{images.shape}".encode() + images.tobytes()).hexdigest()
        path = self.cache / f"{digest[:32]}.npy"
        if path.exists():
            return np.load(path)
        result = self._call(images)
        with _files.file(path) as new, new.open("wb") as file:
            np.save(file, result)
        return result

    def _call(self, images: np.ndarray) -> np.ndarray:
        result = np.asarray(self.predict(images), np.float32)
        if result.ndim == 0 or result.shape[0] != images.shape[0]:
            raise ValueError(
                f"`predict` must return scores [{images.shape[0]}, ...] for {images.shape[0]} images;"
                f" got shape {result.shape}"
            )
        return result

    def scores_in_chunks(self, images: Any, batch_size: int) -> np.ndarray:
        """Return the scores of any number of images, requested at most `batch_size` at a time."""
        starts = range(0, len(images), batch_size)
        return np.concatenate([self.scores(images[start : start + batch_size]) for start in starts])

    @contextlib.contextmanager
    def progress_bar(self, count: int) -> Iterator[Callable[[int], None]]:
        """Yield a function to call with the number of images done."""
        if not self.progress:
            yield lambda done: None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(transient=True, console=Console(stderr=True)) as bar:
            task = bar.add_task("model calls", total=count)
            yield lambda done: bar.advance(task, done)


def needs_gradients(model: Any, method: str) -> None:
    """Raise for a `BlackBox`, which cannot be differentiated.

    Raises:
        TypeError: If `model` is a `BlackBox`.
    """
    if isinstance(model, BlackBox):
        raise TypeError(f"`{method}` needs gradients, which a `black_box` does not have: {_INSTEAD}")


def black_box(
    predict: Callable[[np.ndarray], Any], *, cache: str | os.PathLike | None = None, progress: bool = False
) -> BlackBox:
    """Wrap any Python function so that the methods of `jaxai.perturbation` can explain it.

    The function may be a remote service or a model of another framework. It is called from the host with at
    most `batch_size` images, in writable arrays; everything else (masks, changed images, solves) is compiled.
    Explanations of a wrapped function cannot run inside `jit`.

    Args:
        predict: `predict(images) -> scores`, NumPy float [batch, height, width, channels] to [batch,
            classes]. If a method explains probabilities, scores are treated as logits unless all of them lie
            in [0, 1] and each row sums to 1 (see `jaxai.targets`). For other probabilities, such as those of
            independent labels or of one class, pass a callable target: `lambda scores: scores[:, 3]`.
        cache: Folder that stores the scores of every batch, by the content of its images, so that a failed
            run resumes where it stopped. Use one folder per model.
        progress: Show a progress bar in the terminal.

    Returns:
        A model to pass as `model`.

    Raises:
        TypeError: If `predict` cannot be called.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> import jaxai
        >>> model = jaxai.perturbation.black_box(lambda images: images.mean((1, 2)))
        >>> halves = jnp.repeat(jnp.arange(2), 2).reshape(1, 1, 4)
        >>> e = jaxai.lime(model, jnp.ones((1, 1, 4, 2)), lambda scores: scores[:, 0], segments=halves,
        ...     key=jax.random.key(0), fill=0.0, num_samples=20, alpha=0.0)
        >>> e.weights.round(3).tolist()
        [[0.5, 0.5]]
    """
    if not callable(predict):
        raise TypeError(
            f"`predict` must be callable, predict(images) -> scores; got {type(predict).__name__}"
        )
    return BlackBox(predict, None if cache is None else Path(cache), progress)
