"""`jaxai visualize`: images that most excite channels, layers and classes of a network."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer
from PIL import Image

from .. import _files, features, layers
from ..features._report import resized
from ..features._visualize import small_is_meant
from ..report import _classes as classes
from ..report import _names as names
from ..report import _outputs as outputs
from ..report import _photos as photos
from ..report import _session as provenance
from ..report._calibrate import A_STEP, calibrate
from ..report._progress import Progress
from ..report._waiting import patiently
from . import arguments, session, sheets, terminal
from .arguments import (
    MOST,
    AlphaOption,
    BatchSizeOption,
    DeviceOption,
    PageOption,
    PrecisionOption,
    SeedOption,
    WhiteOption,
)
from .read import read_all

Recipe = Literal["fourier", "pixels", "laplacian", "cppn", "maco"]
# Images between two updates of the progress bar.
_A_MARK = 8
_STEPS = {"maco": 256}
_ALL = "all"
_BESIDE = 4
_SHEET, _HISTORY, _RECORD = _FILES = ("sheet.png", "history.npz", "visualization.json")


def visualize(
    model: Annotated[str, typer.Argument(help=arguments.MODEL_HELP)],
    features_wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="LAYER[:CHANNELS]...",
            help="A layer; its channels as 12, 3,7, 0-15 or all; or classes, as logits:tabby.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("features"),
    recipe: Annotated[Recipe, typer.Option(help="What is optimised.")] = "fourier",
    size: Annotated[
        int | None, typer.Option(min=8, max=32768, help="Side in pixels; the network's own if not given.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Number of steps; 512, or 256 for maco.", show_default=False),
    ] = None,
    crops: Annotated[int, typer.Option(min=1, max=MOST, help="Views of an image per step, for maco.")] = 8,
    single: Annotated[bool, typer.Option(help="Write each image as a file of its own too.")] = True,
    beside: Annotated[
        list[str] | None,
        typer.Option("--photos", help="A folder of photos; those that excite it most go beside each image."),
    ] = None,
    page: PageOption = None,
    white: WhiteOption = None,
    alpha: AlphaOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Visualize what channels and classes respond to: a labelled contact sheet, and each image."""
    found = photos.find(beside) if beside else photos.Found([], False, [])
    sources = outputs.Sources(photo.path for photo in found.photos)
    outputs.check_folder(out, _FILES, sources)
    session.start(device, precision)
    net = session.load(model, precision)
    size = size or int(net.input_size)
    wanted = [item for text in features_wanted for item in _expand(text, net, size)]
    objectives, labels = [name for name, _ in wanted], [label for _, label in wanted]
    files = _file_names(objectives) if single else [None] * len(wanted)
    outputs.check_folder(out, [*_FILES, *(name for name in files if name)], sources)
    for line in found.notes:
        terminal.note(line)
    real, cropped = (
        read_all(net, found.photos, {"page": page, "white": white, "alpha": alpha})
        if found.photos
        else ([], None)
    )
    count = steps or _STEPS.get(recipe, 512)
    parts, stopped = [], False
    with provenance.timed() as clock:
        try:
            for part in _run(net, objectives, recipe, size, count, crops, batch_size, seed):
                parts.append(part)
        except KeyboardInterrupt:
            # Finished images are kept; photos are not searched any more.
            if not parts:
                raise
            stopped, real = True, []
    images, history = (np.concatenate([part[i] for part in parts]) for i in range(2))
    done = len(images)
    objectives, labels, files = objectives[:done], labels[:done], files[:done]
    best = _exemplars(net, objectives, real, cropped, size, batch_size)
    record = _record(net, objectives, labels, files, history[:, -1], best)
    record |= {
        "recipe": recipe,
        "size": size,
        "steps": count,
        "seed": seed,
        "versions": provenance.versions(),
    }
    record |= provenance.describe(precision)
    with outputs.locked(out), _files.folder(out) as place:
        _sheet(images, labels, best).save(place / _SHEET)
        for name, image in zip(files, images, strict=True):
            if name is not None:
                Image.fromarray(sheets.as_bytes(image)).save(place / name)
        np.savez_compressed(place / _HISTORY, history=history, names=objectives)
        gone = _put_aside(record, outputs.record(out / _RECORD))
        (place / _RECORD).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", "utf-8")
        outputs.remove(out, gone, sources)
    for label, value in zip(labels, history[:, -1], strict=True):
        terminal.say(f"{label:<40} {value:10.3f}")
    seconds = f"{clock.seconds:.1f} s ({clock.compiling:.1f} s compiling)"
    terminal.say(f"{done} images in {seconds}   {out}")
    if stopped:
        raise KeyboardInterrupt
    if len(real) < len(found.photos):
        raise typer.Exit(2)


def _expand(text: str, net: Any, size: int) -> list[tuple[str, str]]:
    """Return the objectives that an argument names, with their labels.

    Raises:
        ValueError: If there is no such layer, channel or class.
    """
    layer, colon, rest = text.partition(":")
    blank: Any = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    layer = provenance.layer(net, layer, size)
    if not colon:
        return [(layer, layer)]
    if "@" in rest:
        return [(text, text)]
    if re.fullmatch(r"[\d,\s-]+", rest) or rest == _ALL:
        channels = _channels(rest, layer, net, blank)
    elif layer == layers.OUTPUT and net.labels is not None:
        channels = list(classes.parse(rest, net.labels).indices)
        if not channels:
            raise ValueError(f"{rest} depends on a photo; name classes, as in logits:tabby")
    else:
        raise ValueError(
            f"channels are written 12, 3,7, 0-15 or all; got {names.shortened(rest)!r} of {layer}"
        )
    named = net.labels if layer == layers.OUTPUT else None
    return [(f"{layer}:{c}", f"{named[c]} ({c})" if named else f"{layer}:{c}") for c in channels]


def _channels(text: str, layer: str, net: Any, blank: Any) -> list[int]:
    width = jax.eval_shape(lambda m, x: layers.split(m, layer, x)[0], net.model, blank).shape[-1]
    if text == _ALL:
        return list(range(width))
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if match is None:
            raise ValueError(f"channels are written 12, 3,7, 0-15 or all; got {names.shortened(text)!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"a range of channels goes upwards; got {part.strip()!r}")
        if last >= width:
            raise ValueError(f"layer {layer!r} has channels 0 to {width - 1}; got {last}")
        found.extend(range(first, last + 1))
    return found


def _run(
    net, objectives, recipe, size, steps, crops, batch_size, seed
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images and their histories, in batches of one size, the last filled up, for one program."""
    limit = min(len(objectives), batch_size or _A_MARK)
    with Progress() as progress:
        passes = A_STEP * steps * (crops if recipe == "maco" else 1)
        progress.expect(len(objectives), {"visualizing": passes})
        calibrate(progress, net, size, passes=passes * len(objectives))
        for first in range(0, len(objectives), limit):
            kept = min(limit, len(objectives) - first)
            numbers = np.minimum(np.arange(first, first + limit), len(objectives) - 1)
            options: dict[str, Any] = {
                "key": jax.random.key(seed),
                "size": size,
                "steps": steps,
                "normalize": net.normalize,
                "indices": jnp.asarray(numbers),
            }
            chosen = [objectives[i] for i in numbers]
            about = chosen[0] if kept == 1 else f"{chosen[0]} to {chosen[kept - 1]}"
            if recipe == "maco":
                drawn = partial(features.maco, net.model, chosen, crops=crops, **options)
            else:
                drawn = partial(features.visualize, net.model, chosen, parametrization=recipe, **options)

            def work(drawn=drawn, kept=kept):
                found = drawn(batch_size=batch_size)
                return np.asarray(found.images[:kept]), np.asarray(found.history[:kept])

            with _plain_warnings(about, size >= net.input_size), progress.step("visualizing", kept):
                part = patiently(work, tick=progress.tick)
            yield part


class _Exemplar(NamedTuple):
    """A photo that excites an objective."""

    image: np.ndarray
    photo: photos.Photo
    activation: float


def _exemplars(net, objectives, real, cropped, size, batch_size) -> list[list[_Exemplar]]:
    """Return the photos that excite each objective most, best first; none without photos."""
    if not real:
        return [[] for _ in objectives]
    pixels = jnp.asarray(cropped)
    found = features.exemplars(
        net.model, objectives, pixels, top=_BESIDE, normalize=net.normalize, batch_size=batch_size
    )
    shown = np.asarray(resized(pixels, size))
    return [
        [_Exemplar(shown[i], real[i], float(value)) for i, value in zip(row, values, strict=True)]
        for row, values in zip(np.asarray(found.indices), np.asarray(found.values), strict=True)
    ]


def _sheet(images, labels, best):
    """Return the sheet: the images, or a row for each with its photos beside it."""
    if not best[0]:
        return sheets.contact_sheet(list(images), labels)
    tiles, titles = [], []
    for image, label, row in zip(images, labels, best, strict=True):
        tiles += [image, *(one.image for one in row)]
        titles += [label, *(f"{terminal.readable(one.photo.name)}: {one.activation:.3g}" for one in row)]
    return sheets.contact_sheet(tiles, titles, columns=1 + len(best[0]))


@contextmanager
def _plain_warnings(about: str, own_size: bool) -> Iterator[None]:
    """Print warnings as lines; none of a small image at the network's own size, where it is no news."""
    with warnings.catch_warnings(record=True) as found, small_is_meant() if own_size else nullcontext():
        yield
    for text in dict.fromkeys(str(one.message) for one in found):
        terminal.note(f"warning: {about}: {text}")


def _file_names(objectives: list[str]) -> list[str]:
    """Return a file's name for each objective, different for different objectives."""
    plain = [re.sub(r"[^\w.-]+", "_", text).lstrip(".")[:100] for text in objectives]
    owners: dict[str, str] = {}
    found = []
    for text, name in zip(objectives, plain, strict=True):
        if owners.setdefault(name.casefold(), text) != text:
            name = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        found.append(f"{name}.png")
    return found


def _put_aside(record: dict[str, Any], old: dict[str, Any]) -> list[Any]:
    """Return images of an earlier run for another network; the record takes up those of the same."""
    images, earlier = old.get("images"), old.get("earlier_images")
    images = images if isinstance(images, list) else []
    listed = [image.get("file") for image in images if isinstance(image, dict)]
    listed += earlier if isinstance(earlier, list) else []
    now = {image["file"] for image in record["images"]}
    listed = [name for name in listed if isinstance(name, str) and name not in now]
    if old.get("weights_sha256") != record["weights_sha256"]:
        return listed
    if listed:
        record["earlier_images"] = listed
    return []


def _record(net, objectives, labels, files, values, best) -> dict[str, Any]:
    return {
        "model": net.name,
        "weights_sha256": net.digest,
        "images": [
            {
                "objective": name,
                "label": label,
                "file": file,
                "activation": outputs.numbers(float(value)),
                "photos": [
                    {"photo": names.recorded(one.photo.source), "activation": outputs.numbers(one.activation)}
                    for one in row
                ],
            }
            for name, label, file, value, row in zip(objectives, labels, files, values, best, strict=True)
        ],
    }
