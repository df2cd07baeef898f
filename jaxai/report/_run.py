"""A run over photos in batches, method by method, which yields each result as soon as it exists."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._frame import model as _model
from . import _classes as classes
from . import _methods as methods
from . import _outputs as outputs
from . import _scores as scores
from . import _session as session
from ._names import recorded
from ._photos import TILE, Photo
from ._progress import Progress
from ._record import Part, Subject
from ._supplies import Run
from ._waiting import patiently
from ._writer import MAPS

_IN_FLIGHT = 16
_LISTED = 5
# A smaller part of a photo than this is worth a note.
_LOST = 0.5
# Passes for one photo from which on it is worth another one to know how long one takes.
_TIMED = 100


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        net: The network, `Pretrained`.
        methods: The methods, with options.
        wanted: The classes.
        layer: For methods that look at one; None is the network's own choice.
        segmentation: How superpixels are made.
        precision: Of the network's numbers, for the record.
        batch_size: At most this many images in flight.
        seed: Seed of all random draws.
        reading: Keywords of `jaxai.models.fit`.
        scores: Score the maps too.
    """

    net: Any
    methods: Sequence[methods.Chosen]
    wanted: classes.Wanted
    layer: str | None
    segmentation: str
    precision: str
    batch_size: int | None
    seed: int
    reading: dict[str, Any]
    scores: bool = False

    def __post_init__(self) -> None:
        if self.scores and self.tiled:
            raise ValueError("maps of tiles have no scores, which are of what a network sees at once")

    @property
    def tiled(self) -> bool:
        """Photos are explained in tiles."""
        return self.reading.get("fit") == TILE


@dataclass(frozen=True)
class Failed:
    """Photos that cannot be explained, or not by a method."""

    photos: Sequence[Photo]
    error: Exception
    method: str = ""


@dataclass(frozen=True)
class Seen:
    """The photos of a batch whose classes are known; none is seen in two batches."""

    subjects: Sequence[Subject]


@dataclass(frozen=True)
class Said:
    """A method's results for the latest photos seen, in their order."""

    method: methods.Chosen
    parts: Sequence[Part]
    seconds: float


@dataclass(frozen=True)
class Finished:
    """All methods have finished the latest photos seen."""


@dataclass(frozen=True)
class Noted:
    """A note for the user about a photo, in one line."""

    line: str


Event: TypeAlias = Failed | Noted | Seen | Said | Finished


@dataclass(frozen=True)
class _Batch:
    """Photos of one batch; `pixels` may be longer, filled up with repetitions."""

    photos: list[Photo]
    pixels: np.ndarray
    digests: list[str]
    frames: list[dict[str, Any]]


def explain(request: Request, photos: Sequence[Photo], progress: Progress) -> Iterator[Event]:
    """Explain photos and yield events as they happen.

    Args:
        request: What to do.
        photos: At least one.
        progress: Shows how far it is.

    Raises:
        KeyboardInterrupt: Soon after Ctrl-C.
    """
    if request.tiled:
        from . import _tiles as tiles

        yield from tiles.explain(request, photos, progress)
        return
    count = -(-len(photos) // (request.batch_size or _IN_FLIGHT))
    # Batches of equal size, the last filled up, so that programs are compiled for one shape.
    size = -(-len(photos) // count)
    progress.expect(len(photos), {method.name: 1.0 for method in request.methods})
    for batch in _batches(request, photos, size):
        if isinstance(batch, Failed):
            progress.skip(len(batch.photos))
            yield batch
        else:
            yield from _explain(request, batch, progress, total=len(photos), repeated=count > 1)


def _batches(request: Request, photos: Sequence[Photo], size: int) -> Iterator[_Batch | Failed]:
    """Read photos; one that cannot be read is left out."""
    batch = _Batch([], np.empty(0), [], [])
    read: list[np.ndarray] = []
    for last, photo in zip([False] * (len(photos) - 1) + [True], photos, strict=True):
        try:
            digest = photo.digest()
            pixels = photo.crop(request.net, request.reading)
            frame = photo.framed(request.net, request.reading)
        except Exception as error:
            yield Failed([photo], error)
        else:
            read.append(pixels)
            batch.photos.append(photo)
            batch.digests.append(digest)
            batch.frames.append(frame)
        if read and (last or len(read) == size):
            pixels = np.stack(read + read[-1:] * (size - len(read)))
            yield replace(batch, pixels=pixels)
            batch, read = _Batch([], np.empty(0), [], []), []


def _explain(
    request: Request, batch: _Batch, progress: Progress, *, total: int, repeated: bool
) -> Iterator[Event]:
    from ..models import normalization, taken

    net, pixels = request.net, batch.pixels
    for photo, frame in zip(batch.photos, batch.frames, strict=True):
        for text in framing_notes(frame, net.input_size):
            yield Noted(f"{photo.source}: {text}")
    # Crops of the library give [0, 1]; those of others may not.
    if (pixels.min() < 0 or pixels.max() > 1) and taken.note(pixels, normalization.identity):
        yield Noted(f"{net.name}: what its `crop` returns is not in [0, 1], where `normalize` takes photos")
    logits, values = patiently(lambda: scored(request, pixels), tick=progress.tick)
    known = np.asarray(True if logits is None else np.isfinite(logits).all(-1))
    known = np.broadcast_to(known, len(pixels))
    finite = np.asarray(known & np.isfinite(values).all(-1))
    for index in np.flatnonzero(~finite[: len(batch.photos)]):
        photo = batch.photos[index]
        bad = [n for n, v in zip(request.wanted.functions, values[index], strict=True) if not np.isfinite(v)]
        what = f"the target {bad[0]!r} returns a number that is" if known[index] else ""
        what = what or f"{net.name} returns scores that are"
        error = ValueError(f"{what} not finite for {photo.source}")
        progress.skip(1)
        yield Failed([photo], error)
    if not finite.any():
        return
    # Other photos replace those without scores, so that no method receives these.
    good = np.where(finite, np.arange(len(finite)), np.flatnonzero(finite)[0])
    pixels, values = pixels[good], values[good]
    logits = None if logits is None else logits[good]
    indices = np.flatnonzero(finite[: len(batch.photos)])
    photos = [batch.photos[index] for index in indices]
    wanted = None if request.wanted.functions or logits is None else request.wanted.of(logits)
    cut, cut_seconds = None, 0.0
    if any(method.needs("segments") for method in request.methods):
        with session.timed() as clock:
            cut = patiently(
                lambda: methods.superpixels(jnp.asarray(pixels), request.segmentation), tick=progress.tick
            )
        cut_seconds = clock.seconds
    subjects = []
    images = net.normalize(jnp.asarray(pixels))
    normalized = logits is not None and classes.are_probabilities(net, images)
    for index, photo in zip(indices, photos, strict=True):
        row = None if logits is None else logits[index]
        if wanted is None or row is None:
            named = [
                {"index": None, "label": name, "value": float(value)}
                for name, value in zip(request.wanted.functions, values[index], strict=True)
            ]
        else:
            named = [classes.entry(int(c), net.labels, row, normalized=normalized) for c in wanted[index]]
            for text in filter(None, map(classes.flat, named)):
                yield Noted(f"{photo.source}: {text}")
        digest, count = batch.digests[index], len(photos)
        facts = facts_of(request, photo, digest, pixels[index], row, named, count, normalized=normalized)
        facts["image"] |= batch.frames[index]
        labels = None if cut is None else cut.labels[index]
        if cut is not None:
            facts["superpixels"] = {
                "method": cut.methods[index],
                "count": cut.counts[index],
                "seconds_of_batch": round(cut_seconds, 4),
            }
        subjects.append(Subject(photo, pixels[index], named, labels, facts))
    yield Seen(subjects)
    targets: Any = tuple(request.wanted.functions.values())
    if wanted is not None:
        targets = jnp.asarray(wanted[:, 0] if wanted.shape[1] == 1 else wanted)
    about = Run(
        net=net,
        images=images,
        targets=targets,
        key=jax.random.key(request.seed),
        layer=request.layer,
        segments=None if cut is None else jnp.asarray(cut.labels),
        # Batches with different numbers of superpixels would each compile again.
        num_segments=methods.padded(max(cut.counts)) if cut is not None and repeated else None,
        batch_size=request.batch_size,
    )
    costs = {method.name: methods.passes(method, about) for method in request.methods}
    progress.expect(total, costs)
    if sum(costs.values()) > _TIMED:
        with session.timed() as clock:
            patiently(lambda: scored(request, pixels), tick=progress.tick)
        progress.calibrate(len(pixels), clock.seconds)
    for method in request.methods:
        with progress.step(method.name, len(photos)):
            try:
                result, rated = patiently(lambda one=method: _result(request, one, about), tick=progress.tick)
            except Exception as error:
                yield Failed(photos, error, method.name)
                continue
        parts = [_part(method, result, int(index), cut, rated) for index in indices]
        for photo, part in zip(photos, parts, strict=True):
            if normalized and not np.any(part.maps):
                yield Noted(f"{photo.source}: the map of {method.name} is zero everywhere")
        yield Said(method, parts, result.clock.seconds)
    yield Finished()


def scored(request: Request, pixels: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Return logits [batch, classes], if the network has those, and the values of functions [batch, k]."""
    outputs = _model.call(_model.as_model(request.net.model), request.net.normalize(jnp.asarray(pixels)))
    values = [np.asarray(function(outputs), np.float32) for function in request.wanted.functions.values()]
    for name, value in zip(request.wanted.functions, values, strict=True):
        if value.shape != (len(pixels),):
            raise ValueError(f"the target {name!r} must return [{len(pixels)}] numbers; got {value.shape}")
    ranked = getattr(outputs, "ndim", 0) == 2
    logits = np.asarray(outputs, np.float32) if ranked else None
    return logits, np.stack(values, -1) if values else np.zeros((len(pixels), 0), np.float32)


def _result(
    request: Request, method: methods.Chosen, about: Run
) -> tuple[methods.Result, dict[str, np.ndarray]]:
    """Return what a method says, and the scores of its maps [batch, k] by metric, if they are asked for."""
    result = methods.run(method, about)
    if not request.scores:
        return result, {}
    return result, scores.of_result(
        method, result, about.net.model, about.images, about.targets, request.seed
    )


def _part(
    method: methods.Chosen,
    result: methods.Result,
    index: int,
    cut: methods.Superpixels | None,
    rated: dict[str, np.ndarray],
) -> Part:
    """Return what a method says of one photo of a batch."""
    weights = errors = None
    if result.weights is not None and cut is not None:
        # Padding, where the batch holds photos with more superpixels, is left out.
        weights = result.weights[index][:, : cut.counts[index]]
        errors = None if result.errors is None else result.errors[index][:, : cut.counts[index]]
    facts = {
        "result": method.result,
        "paper": method.description.paper,
        "layer": result.layer,
        "options": methods.reported(method),
        "files": {"picture": f"{method.name}.png", "maps": f"{MAPS}:{method.name}"},
        **{name: outputs.numbers(values[index]) for name, values in result.extra.items()},
        "seconds_of_batch": round(result.clock.seconds, 4),
        "compile_seconds_of_batch": round(result.clock.compiling, 4),
        **({"scores": {name: outputs.numbers(v[index]) for name, v in rated.items()}} if rated else {}),
    }
    return Part(method, result.maps[index], weights, facts, errors)


def facts_of(
    request, photo: Photo, digest: str, pixels, logits, named, batch: int, *, normalized: bool
) -> dict[str, Any]:
    """Return the content of `explanation.json`, without what methods and superpixels add."""
    net = request.net
    return {
        "image": {
            "source": recorded(photo.source),
            "sha256": digest,
            "size": list(pixels.shape[:2]),
            **{name: value for name, value in request.reading.items() if value is not None},
        },
        "model": {"name": net.name, "weights_sha256": net.digest},
        "top": _top(net, logits, normalized=normalized),
        "targets": named,
        "random": {
            "seed": request.seed,
            "key": f"jax.random.key({request.seed})",
            "implementation": str(jax.random.key_impl(jax.random.key(request.seed))),
        },
        "run": {**session.describe(request.precision), "batch": batch, "batch_size": request.batch_size},
        "versions": session.versions(),
    }


def framing_notes(frame: dict[str, Any], size: int) -> list[str]:
    """Return notes on the parts of a photo that are lost when it is fitted to the network's square.

    Args:
        frame: As `Photo.framed` returns it.
        size: Side of the square.

    Example:
        >>> frame = {"original_size": [640, 110], "fit": "crop", "box": [265, 0, 375, 110]}
        >>> framing_notes(frame, 224)[0]
        'the network sees the centre 110 x 110 of 640 x 110; `fit` pad or squash shows it all'
    """
    if not frame:
        return []
    (width, height), (left, top, right, bottom) = frame["original_size"], frame["box"]
    notes = []
    if (right - left) * (bottom - top) < _LOST * width * height:
        seen = f"the network sees the centre {right - left} x {bottom - top} of {width} x {height}"
        notes.append(f"{seen}; `fit` pad or squash shows it all")
    if max(right - left, bottom - top) < size:
        notes.append(f"{width} x {height} pixels are fewer than the {size} x {size} of the network's input")
    return notes


def _top(net: Any, logits: np.ndarray | None, *, normalized: bool) -> list[dict[str, Any]]:
    """Return the most probable classes of a photo; none where the network has no classes."""
    if logits is None or net.labels is None:
        return []
    best = np.argsort(-logits)[:_LISTED]
    return [classes.entry(int(i), net.labels, logits, normalized=normalized) for i in best]
