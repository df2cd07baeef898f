"""Large photos in tiles of the network's size: each is explained, and the maps are joined.

The tiles of a photo share the target, such as the class that is most probable on their mean. Where tiles
overlap, a map's value is the mean of theirs, each weighted by how far it lies from its tile's edge.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import maps
from . import _classes as classes
from . import _methods as methods
from . import _session as session
from ._photos import TILE, Photo
from ._progress import Progress
from ._record import Part, Subject
from ._run import Event, Failed, Finished, Noted, Request, Said, Seen, facts_of, scored
from ._supplies import Run
from ._waiting import patiently
from ._writer import MAPS

# Tiles of one photo at most; larger photos are reduced.
_MOST = 64
_IN_FLIGHT = 16
# Of a tile's side, the distance of two tiles at most: they overlap by a quarter.
_STEP = 0.75


class _Plan(NamedTuple):
    """The positions of a photo's tiles."""

    pixels: np.ndarray
    """The photo as it is cut, float32 [height, width, 3] in [0, 1]."""
    corners: list[tuple[int, int]]
    """The top left corner of each tile, (row, column)."""
    side: int


def explain(request: Request, photos: Sequence[Photo], progress: Progress) -> Iterator[Event]:
    """Explain photos tile by tile and yield what happens, as `_run.explain` does."""
    progress.expect(len(photos), {method.name: 1.0 for method in request.methods})
    for photo in photos:
        try:
            digest = photo.digest()
            plan, size = _cut(photo, request)
        except Exception as error:
            progress.skip(1)
            yield Failed([photo], error)
            continue
        height, width = plan.pixels.shape[:2]
        if (width, height) != size:
            reduced = f"read at {width} x {height}, of {size[0]} x {size[1]}"
            yield Noted(f"{photo.source}: {reduced}, for at most {_MOST} tiles")
        try:
            yield from _explain(request, photo, digest, plan, size, progress, len(photos))
        except ValueError as error:
            progress.skip(1)
            yield Failed([photo], error)


def _cut(photo: Photo, request: Request) -> tuple[_Plan, tuple[int, int]]:
    """Return the plan for a photo, and the photo's own width and height.

    Raises:
        ValueError: If the photo is smaller than a tile, or the network crops photos in a way of its own.
    """
    from ..models import crop, fit

    net = request.net
    if getattr(net.crop, "func", None) is not crop.crop:
        raise ValueError(f"{net.name} crops photos in its own way, which knows no tiles; use `fit` crop")
    side, reading = net.input_size, {k: v for k, v in request.reading.items() if k != "fit"}
    width, height = crop.dimensions(photo.read(), **reading)
    if min(width, height) < side:
        raise ValueError(
            f"{photo.source} has {width} x {height} pixels, less than a tile, {side} x {side}; use `fit` pad"
        )
    longest = max(width, height)
    while longest > side and _count(width, height, longest, side) > _MOST:
        longest = max(side, int(longest * 0.97))
    pixels = np.asarray(fit(photo.read(), longest=longest, **reading))[0]
    rows, columns = (_starts(length, side) for length in pixels.shape[:2])
    return _Plan(pixels, [(row, column) for row in rows for column in columns], side), (width, height)


def _count(width: int, height: int, longest: int, side: int) -> int:
    """Return the number of tiles of a photo that is reduced so that its longer side is this."""
    scale = longest / max(width, height)
    across, down = (len(_starts(max(side, round(length * scale)), side)) for length in (width, height))
    return across * down


def _starts(length: int, side: int) -> list[int]:
    """Return where tiles begin along a side, evenly."""
    number = -(-(length - side) // max(1, int(_STEP * side))) + 1
    return [round(start) for start in np.linspace(0, length - side, number)]


def _explain(
    request: Request,
    photo: Photo,
    digest: str,
    plan: _Plan,
    size: tuple[int, int],
    progress: Progress,
    total: int,
) -> Iterator[Event]:
    net, side, count = request.net, plan.side, len(plan.corners)
    together = min(count, request.batch_size or _IN_FLIGHT)
    tiles = np.stack([plan.pixels[r : r + side, c : c + side] for r, c in plan.corners])
    with session.timed() as clock:
        parts = [
            patiently(lambda one=one: scored(request, one), tick=progress.tick)
            for one in _batches(tiles, together)
        ]
    progress.calibrate(-(-count // together) * together, clock.seconds)
    rows = [one[0] for one in parts if one[0] is not None]
    logits = np.concatenate(rows)[:count] if rows else None
    values = np.concatenate([one[1] for one in parts])[:count]
    if not np.isfinite(values).all() or (logits is not None and not np.isfinite(logits).all()):
        raise ValueError(f"{net.name} returns scores that are not finite for {photo.source}")
    normalized = logits is not None and classes.are_probabilities(net, net.normalize(jnp.asarray(tiles[:1])))
    row = None
    if logits is not None:
        shares = classes.probabilities(logits, normalized=normalized).mean(0)
        row = shares if normalized else classes.logits(shares)
    wanted = None if request.wanted.functions or row is None else request.wanted.of(row[None])[0]
    if wanted is None or row is None:
        pairs = zip(request.wanted.functions, values.mean(0), strict=True)
        named = [{"index": None, "label": name, "value": float(value)} for name, value in pairs]
    else:
        named = [classes.entry(int(one), net.labels, row, normalized=normalized) for one in wanted]
    facts = facts_of(request, photo, digest, plan.pixels, row, named, together, normalized=normalized)
    if logits is not None and not normalized:
        for item in [*named, *facts["top"]]:
            # What made the probability is its logarithm.
            item |= {} if item["index"] is None else {"logit": float(logits[:, item["index"]].mean())}
    height, width = plan.pixels.shape[:2]
    facts["image"] |= {"original_size": list(size), "fit": TILE, "box": [0, 0, *size]}
    facts["image"] |= {"place": [0, 0, width, height], "tiles": count, "tile": side}
    subject = Subject(photo, plan.pixels, named, None, facts)
    yield Seen([subject])
    cut = None
    if any(method.needs("segments") for method in request.methods):
        way, batches = request.segmentation, _batches(tiles, together)
        pieces = [
            patiently(lambda one=one: methods.superpixels(jnp.asarray(one), way), tick=progress.tick)
            for one in batches
        ]
        labels = np.concatenate([piece.labels for piece in pieces])[:count]
        cut = labels, methods.padded(int(labels.max()) + 1)
        facts["superpixels"] = {"method": request.segmentation, "per_tile": True}
    abouts = [_run(request, wanted, tiles, cut, first, together) for first in range(0, count, together)]
    costs = {method.name: count * methods.passes(method, abouts[0]) for method in request.methods}
    progress.expect(total, costs)
    for method in request.methods:
        with progress.step(method.name, 1):
            try:
                with session.timed() as clock:
                    found = [
                        patiently(lambda one=method, about=about: methods.run(one, about), tick=progress.tick)
                        for about in abouts
                    ]
            except Exception as error:
                yield Failed([photo], error, method.name)
                continue
        whole = _together(np.concatenate([one.maps for one in found])[:count], plan)
        part = Part(method, whole, None, _facts(method, found[0].layer, clock))
        yield Said(method, [part], clock.seconds)
    yield Finished()


def _batches(tiles: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield tiles in batches of one size, the last filled up with its last one."""
    for first in range(0, len(tiles), size):
        yield tiles[np.minimum(np.arange(first, first + size), len(tiles) - 1)]


def _run(request: Request, wanted, tiles: np.ndarray, cut, first: int, size: int) -> Run:
    """Return what methods are run on for a batch of tiles, which all have the photo's targets."""
    chosen = np.minimum(np.arange(first, first + size), len(tiles) - 1)
    targets: Any = tuple(request.wanted.functions.values())
    if wanted is not None:
        rows = np.tile(np.asarray(wanted, np.int32), (size, 1))
        targets = jnp.asarray(rows[:, 0] if rows.shape[1] == 1 else rows)
    return Run(
        net=request.net,
        images=request.net.normalize(jnp.asarray(tiles[chosen])),
        targets=targets,
        key=jax.random.key(request.seed),
        layer=request.layer,
        segments=None if cut is None else jnp.asarray(cut[0][chosen]),
        num_segments=None if cut is None else cut[1],
        batch_size=request.batch_size,
    )


def _facts(method: methods.Chosen, layer: str | None, clock: session.Clock) -> dict[str, Any]:
    return {
        "result": method.result,
        "paper": method.description.paper,
        "layer": layer,
        "options": methods.reported(method),
        "files": {"picture": f"{method.name}.png", "maps": f"{MAPS}:{method.name}"},
        "seconds_of_batch": round(clock.seconds, 4),
        "compile_seconds_of_batch": round(clock.compiling, 4),
    }


def _together(found: np.ndarray, plan: _Plan) -> np.ndarray:
    """Put maps of tiles [tiles, k, rows, columns] or with channels together: [k, height, width]."""
    side = plan.side
    if found.shape[2:4] != (side, side):
        # With `upsample=False`.
        found = np.asarray(maps.upsample(jnp.asarray(found), (side, side)))
    ramp = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1.0
    weight = np.minimum.outer(ramp, ramp)
    height, width = plan.pixels.shape[:2]
    total = np.zeros((found.shape[1], height, width, *found.shape[4:]), np.float64)
    weights = np.zeros((height, width), np.float64)
    shaped = weight.reshape(1, side, side, *[1] * (found.ndim - 4))
    for one, (row, column) in zip(found, plan.corners, strict=True):
        total[:, row : row + side, column : column + side] += one * shaped
        weights[row : row + side, column : column + side] += weight
    return (total / weights.reshape(1, height, width, *[1] * (found.ndim - 4))).astype(np.float32)
