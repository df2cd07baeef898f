"""`jaxai.explain`: one interactive call, built on the pure functions."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._frame import checks
from .report import _classes as classes
from .report import _errors as messages
from .report import _methods as methods_
from .report import _names as names
from .report import _networks as networks
from .report import _photos as photos_
from .report import _session as session
from .report import _unclassed as unclassed
from .report._explanation import Explanation
from .report._photos import Photo
from .report._progress import Progress
from .report._record import Part, Subject
from .report._run import Failed, Noted, Request, Said, Seen
from .report._run import explain as events

# JAX uses 32 bits of a seed, so larger seeds would repeat.
_LARGEST = 2**32 - 1
_INTERRUPTED = "interrupted: what was finished is kept"


def explain(
    net: Any,
    photos: Any,
    *,
    methods: Any = ("grad_cam", "lime"),
    targets: Any = None,
    layer: str | None = None,
    segments: str = methods_.SEGMENTATIONS[0],
    scores: bool = False,
    labels: Any = None,
    normalize: Any = None,
    input_size: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    fit: str = "crop",
    page: int | None = None,
    white: float | None = None,
    alpha: bool | None = None,
    progress: bool = True,
) -> Explanation:
    """Explain what a network sees in photos, with a result that displays itself in notebooks.

    Each map is the result of the method's own function for the photo; `jaxai explain` does the same and
    writes files. In a terminal a progress bar appears after two seconds. Ctrl-C stops at once: if a method
    has finished, the maps so far are returned with a warning.

    Args:
        net: A name of `jaxai.models.names()`, a file net.onnx or "package.module:function" (with these,
            `jaxai.configure_cpu()` is called if JAX has not started); a `jaxai.models.Pretrained`; or a
            model, a callable pytree.
        photos: A path, a folder, a sample ("cat", "coffee", "rocket", "astronaut"), a PIL image, an array
            [height, width, channels] or [batch, height, width, channels], uint8 or in [0, 1]; or a list of
            those.
        methods: Comma-separated names; a list of names or of the library's functions; a mapping from those to
            options, such as `{"lime": {"num_samples": 200}}`. `jaxai methods` lists them.
        targets: What to explain for every photo: a class's name or index or a list of those; "top", its most
            probable class (None), "top3"; a function of the network's outputs, `outputs -> float[batch]`, or
            a mapping from names to those. Of networks without classes: "mean", "@left:top:right:bottom" (a
            box in shares), a channel's number or both ("3@0:0:0.5:1") of a map; "length", "like=PHOTO" or a
            feature's number of an embedding.
        layer: Layer for the methods that take one; None is the network's last layer with positions.
        segments: Method of `jaxai.segment` that makes the superpixels.
        scores: Score the maps too: relevance gain, insertion, Gini (`jaxai.metrics`).
        labels: Class names for a file, a function or a model: a sequence, or a text file.
        normalize: How photos in [0, 1] are normalised for a file, a function or a model: "imagenet", "tf",
            "caffe", "identity" (None), a pair (mean, std), or a function.
        input_size: Side of the photos that a file, a function or a model takes; None is the size fixed by a
            file, the arrays' own size for a model, or 224.
        batch_size: At most this many images in flight.
        seed: Seed of all random draws, `jax.random.key(seed)`; 0 to 2^32 - 1.
        fit: How a photo is fitted to the network's square input: "crop" (its centre), "pad" (all of it, with
            margins) or "squash" (all of it, stretched). With "tile", at most 64 squares covering a large
            photo are explained for one target, the class with the highest mean probability. Their maps are
            joined to one of the photo's [height, width]; `scores` and `weights` are not available for tiles.
        page: As `jaxai.models.fit` takes it.
        white: As `jaxai.models.fit` takes it.
        alpha: As `jaxai.models.fit` takes it.
        progress: Whether to show a progress bar in a terminal.

    Returns:
        Photos, classes, raw maps by method, and records; notebooks display it. `plot()`, `save(folder)`,
        `to_html(path)`.

    Raises:
        ValueError: If a name is unknown, a value is invalid, or nothing could be explained.
        TypeError: If an argument is of the wrong kind.
        OSError: If a file cannot be read.

    Warns:
        UserWarning: If some photos or methods failed; after Ctrl-C; if the network sees less than half of a
            photo, or the photo has fewer pixels than the network's input.

    Example:
        >>> import numpy as np
        >>> import jaxai
        >>> model = lambda x: x.mean((1, 2))  # looks at the colours
        >>> photo, labels = np.zeros((8, 8, 3), np.uint8), ("red", "green", "blue")
        >>> e = jaxai.explain(model, photo, methods="saliency", labels=labels, targets="red")
        >>> e
        Explanation(1 photo (array), red (0), p = 0.33: saliency)
        >>> e.maps["saliency"].shape
        (1, 8, 8, 3)
    """
    checks.batch_size(batch_size)
    if checks.at_least(seed, "seed", 0) > _LARGEST:
        raise ValueError(f"`seed` must be at most {_LARGEST}, of which JAX takes all bits; got {seed}")
    chosen = methods_.pick(methods)
    methods_.check_segmentation(segments, shown="`segments`")
    found = photos_.given(photos)
    arrays = [np.shape(photo.given) for photo in found.photos if hasattr(photo.given, "dtype")]
    sizes = arrays if len(arrays) == len(found.photos) else ()
    known, shape = networks.given(net, networks.Around(labels, normalize, input_size), sizes)
    functions = _functions(targets)
    wanted = classes.Wanted(functions=functions)
    reading = photos_.reading(page, white, alpha, fit, tiles=True)
    if not functions:
        words = [int(targets)] if isinstance(targets, (int, np.integer)) else targets
        known, wanted = unclassed.wanted(known, words, reading=reading, shape=shape, shown="`targets`")
    for one in chosen:
        methods_.rehearse(one, known)
    request = Request(
        net=known,
        methods=chosen,
        wanted=wanted,
        layer=session.layer(known, layer, shape=shape) if layer else None,
        segmentation=segments,
        precision="float32",
        batch_size=batch_size,
        seed=seed,
        reading=reading,
        scores=scores,
    )
    for line in found.notes:
        warnings.warn(line, stacklevel=2)
    call = _described(known.name, found.photos, methods, targets, seed)
    return _collected(request, found.photos, Progress(progress), call)


def _collected(request: Request, photos: Sequence[Photo], progress: Progress, call: str) -> Explanation:
    results: list[tuple[Subject, list[Part]]] = []
    batch: list[tuple[Subject, list[Part]]] = []
    failed: dict[str, Exception] = {}
    try:
        with progress:
            for event in events(request, photos, progress):
                match event:
                    case Failed():
                        about = f"{event.method}: " if event.method else ""
                        line = f"{about}{messages.described(event.error)}"
                        failed[line] = event.error
                        for subject, _ in batch if event.method else ():
                            subject.facts.setdefault("failed", {})[event.method] = line
                    case Noted(line):
                        warnings.warn(line, stacklevel=3)
                    case Seen(subjects):
                        batch = [(subject, []) for subject in subjects]
                        results += batch
                    case Said(parts=parts):
                        for (_, said), part in zip(batch, parts, strict=True):
                            said.append(part)
    except KeyboardInterrupt:
        if not any(said for _, said in results):
            raise
        failed[_INTERRUPTED] = ValueError()
        for subject, said in batch:
            finished = {part.method.name for part in said}
            missing = [method.name for method in request.methods if method.name not in finished]
            known = subject.facts.get("failed", {})
            subject.facts["failed"] = {**dict.fromkeys(missing, _INTERRUPTED), **known}
    if not any(said for _, said in results):
        raise next(iter(failed.values()))
    for line in failed:
        warnings.warn(line, stacklevel=3)
    return Explanation(tuple((subject, tuple(said)) for subject, said in results), tuple(failed), call)


def _functions(targets: Any) -> dict[str, Callable[..., Any]]:
    """Return the functions among the targets, by name; none if the targets are classes.

    Raises:
        TypeError: If some are functions and some are not.
    """
    if callable(targets):
        return {_name(targets, 0): targets}
    if isinstance(targets, Mapping):
        listed = {str(name): function for name, function in targets.items()}
    elif isinstance(targets, (list, tuple)) and any(callable(one) for one in targets):
        listed = {_name(one, i): one for i, one in enumerate(targets)}
    else:
        return {}
    if not all(callable(one) for one in listed.values()) or len(listed) != len(targets):
        raise TypeError("`targets` must be classes, or functions with names of their own; got a mixture")
    return listed


def _name(function: Any, number: int) -> str:
    name = getattr(function, "__name__", None) or getattr(getattr(function, "func", None), "__name__", "")
    return name.strip("_") if name and name != "<lambda>" else f"target {number + 1}"


def _described(net: str, photos: Sequence[Photo], methods: Any, targets: Any, seed: int) -> str:
    """Return the call as text."""
    sources = [photo.source for photo in photos]
    given: Any = sources[0] if len(sources) == 1 else sources
    parts = [names.shortened(repr(net)), names.shortened(repr(given), 200)]
    parts += [f"methods={names.shortened(repr(methods), 300)}"]
    parts += [f"targets={names.shortened(repr(targets))}"] if targets is not None else []
    parts += [f"seed={seed}"] if seed else []
    return f"jaxai.explain({', '.join(parts)})"
