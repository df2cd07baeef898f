"""A run of `jaxai explain`: photos in batches, methods one by one, each result on disk when it is there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._frame import model as _model
from . import classes, errors, methods, outputs, report, scores, session, terminal
from .names import recorded
from .photos import Photo
from .supplies import Run

_IN_FLIGHT = 16
_LISTED = 5


@dataclass(frozen=True)
class Request:
    """What one run of the command is to do, checked."""

    net: Any
    methods: list[methods.Chosen]
    wanted: classes.Wanted
    layer: str | None
    segmentation: str
    precision: session.Precision
    batch_size: int | None
    seed: int
    sources: outputs.Sources
    reading: dict[str, Any]
    scores: bool = False


@dataclass
class Outcome:
    """How a run ends.

    Attributes:
        failed: The photos that were not explained, or not by all methods.
        written: There are results.
    """

    failed: set[str] = field(default_factory=set)
    written: bool = False
    _said: set[str] = field(default_factory=set)

    def fail(self, photos: Sequence[Photo], error: Exception, about: str = "") -> str:
        """Say in a line what went wrong for photos, and return it; what goes wrong for all is said once."""
        line = f"{about}{errors.described(error)}"
        if line not in self._said:
            terminal.note(f"error: {line}")
        self._said.add(line)
        self.failed.update(photo.source for photo in photos)
        return line


@dataclass(frozen=True)
class _Batch:
    """Photos of one batch; `pixels` and `digests` may be longer, filled up with repetitions."""

    photos: list[Photo]
    pixels: np.ndarray
    digests: list[str]


def run(
    request: Request,
    photos: Sequence[Photo],
    place: Callable[[Photo], Path],
    advance: Callable[[int], None],
    *,
    quiet: bool,
) -> Outcome:
    """Explain photos.

    Args:
        request: What to do.
        photos: At least one.
        place: Where the results of a photo go.
        advance: Called with the number of steps done, of (methods + 1) for each photo.
        quiet: Print one line for each photo.

    Returns:
        What was written, and what failed.
    """
    outcome = Outcome()
    count = -(-len(photos) // (request.batch_size or _IN_FLIGHT))
    # Batches of equal size, the last filled up, so that programs are compiled for one shape.
    size = -(-len(photos) // count)
    for batch in _batches(request, photos, size, outcome, advance):
        _explain(request, batch, place, advance, outcome, repeated=count > 1, quiet=quiet)
    return outcome


def _batches(request, photos, size, outcome, advance) -> Iterator[_Batch]:
    """Read photos; one that cannot be read is left out."""
    batch = _Batch([], np.empty(0), [])
    read: list[np.ndarray] = []
    for last, photo in zip([False] * (len(photos) - 1) + [True], photos, strict=True):
        try:
            digest = photo.digest()
            read.append(photo.crop(request.net, request.reading))
            batch.photos.append(photo)
            batch.digests.append(digest)
        except Exception as error:
            outcome.fail([photo], error)
            advance(len(request.methods) + 1)
        if read and (last or len(read) == size):
            yield _Batch(batch.photos, np.stack(read + read[-1:] * (size - len(read))), batch.digests)
            batch, read = _Batch([], np.empty(0), []), []


def _explain(request, batch, place, advance, outcome, *, repeated, quiet) -> None:
    net = request.net
    pixels = batch.pixels
    logits = np.asarray(_model.call(_model.as_model(net.model), net.normalize(pixels)), np.float32)
    finite = np.asarray(np.isfinite(logits).all(-1))
    for index in np.flatnonzero(~finite[: len(batch.photos)]):
        photo = batch.photos[index]
        outcome.fail([photo], ValueError(f"{net.name} returns scores that are not finite for {photo.source}"))
        advance(len(request.methods) + 1)
    if not finite.any():
        return
    # Others take the places of photos without scores, so that no method meets them.
    good = np.where(finite, np.arange(len(finite)), np.flatnonzero(finite)[0])
    pixels, logits = pixels[good], logits[good]
    images = net.normalize(pixels)
    indices = np.flatnonzero(finite[: len(batch.photos)])
    photos = [batch.photos[index] for index in indices]
    wanted = request.wanted.of(logits)
    for index, photo in zip(indices, photos, strict=True):
        _print_classes(photo, net, logits[index], one_line=quiet)
    cut, cut_seconds = None, 0.0
    if any(method.needs("segments") for method in request.methods):
        with session.timed() as clock:
            cut = methods.superpixels(jnp.asarray(pixels), request.segmentation)
        cut_seconds = clock.seconds
    writers = {}
    for index, photo in zip(indices, photos, strict=True):
        named = [classes.entry(int(c), net.labels, logits[index]) for c in wanted[index]]
        facts = _facts(request, photo, batch.digests[index], logits[index], named, len(photos))
        labels = None if cut is None else cut.labels[index]
        if cut is not None:
            facts["superpixels"] = {
                "method": cut.methods[index],
                "count": cut.counts[index],
                "seconds_of_batch": round(cut_seconds, 4),
            }
        writers[index] = report.Writer(place(photo), pixels[index], named, labels, facts, request.sources)
    about = Run(
        net=net,
        images=images,
        targets=jnp.asarray(wanted[:, 0] if wanted.shape[1] == 1 else wanted),
        key=jax.random.key(request.seed),
        layer=request.layer,
        segments=None if cut is None else jnp.asarray(cut.labels),
        # Batches of other counts of superpixels would each compile anew.
        num_segments=methods.padded(max(cut.counts)) if cut is not None and repeated else None,
        batch_size=request.batch_size,
    )
    for method in request.methods:
        try:
            result = methods.run(method, about)
            rated = _rated(request, method, result, about)
        except Exception as error:
            line = outcome.fail(photos, error, f"{method.name}: ")
            for writer in writers.values():
                writer.facts.setdefault("failed", {})[method.name] = line
            advance(len(photos))
            continue
        for index, writer in writers.items():
            writer.add(_part(method, result, index, cut, rated))
            outcome.written = True
        advance(len(photos))
        if not quiet:
            picture = place(photos[0]) / f"{method.name}.png"
            terminal.say(f"{method.name:<24}{result.clock.seconds:7.1f} s   {picture}")
    for writer in writers.values():
        writer.finish()
        advance(1)


def _rated(request, method, result, about) -> dict[str, np.ndarray]:
    """Return the scores of a method's maps [batch, k] by the names of metrics, if they are asked for."""
    if not request.scores:
        return {}
    return scores.of_result(method, result, about.net.model, about.images, about.targets, request.seed)


def _part(
    method: methods.Chosen,
    result: methods.Result,
    index: int,
    cut: methods.Superpixels | None,
    rated: dict[str, np.ndarray],
) -> report.Part:
    """Return what a method says of one photo of a batch."""
    weights = None
    if result.weights is not None and cut is not None:
        # Padding, where the batch holds photos with more superpixels, is left out.
        weights = result.weights[index][:, : cut.counts[index]]
    facts = {
        "result": method.result,
        "paper": method.description.paper,
        "layer": result.layer,
        "options": methods.reported(method),
        "files": {"picture": f"{method.name}.png", "maps": f"{report.MAPS}:{method.name}"},
        **{name: outputs.numbers(values[index]) for name, values in result.extra.items()},
        "seconds_of_batch": round(result.clock.seconds, 4),
        "compile_seconds_of_batch": round(result.clock.compiling, 4),
        **({"scores": {name: outputs.numbers(v[index]) for name, v in rated.items()}} if rated else {}),
    }
    return report.Part(method, result.maps[index], weights, facts)


def _print_classes(photo: Photo, net: Any, logits: np.ndarray, *, one_line: bool) -> None:
    top = [classes.entry(int(i), net.labels, logits) for i in np.argsort(-logits)[:_LISTED]]
    if one_line:
        listed = ", ".join(f"{item['label']} {item['probability']:.0%}" for item in top)
        terminal.say(f"{photo.source}: {listed}")
        return
    terminal.say(f"{photo.source} as {net.name} sees it:")
    for item in top:
        terminal.say(f"  {item['probability']:6.1%}  {item['label']} ({item['index']})")


def _facts(request, photo: Photo, digest: str, logits, named, batch: int) -> dict[str, Any]:
    """Return the content of `explanation.json`, without what methods and superpixels add."""
    net = request.net
    return {
        "image": {
            "source": recorded(photo.source),
            "sha256": digest,
            "size": [net.input_size] * 2,
            **{name: value for name, value in request.reading.items() if value is not None},
        },
        "model": {"name": net.name, "weights_sha256": net.digest},
        "top": [classes.entry(int(i), net.labels, logits) for i in np.argsort(-logits)[:_LISTED]],
        "targets": named,
        "random": {
            "seed": request.seed,
            "key": f"jax.random.key({request.seed})",
            "implementation": str(jax.random.key_impl(jax.random.key(request.seed))),
        },
        "run": {**session.describe(request.precision), "batch": batch, "batch_size": request.batch_size},
        "versions": session.versions(),
    }
