"""`jaxai visualize`: the images that channels, layers and classes of a network like most."""

import json
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import features, layers
from ..features._report import resized
from ..features._visualize import small_is_meant
from . import classes, photos, session, sheets, staging
from .session import BatchSizeOption, DeviceOption, PrecisionOption, SeedOption

Recipe = Literal["fourier", "pixels", "laplacian", "cppn", "maco"]
# Images between two marks of the progress bar.
_A_MARK = 8
_STEPS = {"maco": 256}
_ALL = "all"
_BESIDE = 4


def visualize(
    model: Annotated[str, typer.Argument(help="The network; see `jaxai models`.")],
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
        int | None, typer.Option(min=8, help="Side in pixels; the network's own if not given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps; 512, or 256 for maco.", show_default=False)
    ] = None,
    crops: Annotated[int, typer.Option(min=1, help="Views of an image a step, for maco.")] = 8,
    single: Annotated[bool, typer.Option(help="Write each image as a file of its own too.")] = True,
    beside: Annotated[
        list[str] | None,
        typer.Option("--photos", help="A folder of photos; those that excite it most go beside each image."),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Visualize what channels and classes respond to: a labelled contact sheet, and each image."""
    real = photos.find(beside)[0] if beside else []
    session.start(device, precision)
    from .. import models

    net = models.load(model, dtype=None if precision == "float32" else precision)
    size = size or net.input_size
    wanted = [item for text in features_wanted for item in _expand(text, net, size)]
    count = steps or _STEPS.get(recipe, 512)
    with staging.folder(out) as place, session.timed() as clock:
        found = _run(net, [name for name, _ in wanted], recipe, size, count, crops, batch_size, seed)
        labels = [label for _, label in wanted]
        last = found["history"][:, -1]
        best = _exemplars(net, [name for name, _ in wanted], real, size, batch_size)
        _sheet(found["images"], labels, best).save(place / "sheet.png")
        if single:
            for (name, _), image in zip(wanted, found["images"], strict=True):
                Image.fromarray(sheets.as_bytes(image)).save(place / f"{_file_name(name)}.png")
        np.savez_compressed(place / "history.npz", history=found["history"], names=[n for n, _ in wanted])
        (place / "visualization.json").write_text(
            json.dumps(_record(net, wanted, last, best, recipe, size, count, seed, precision), indent=2)
            + "\n"
        )
    for label, value in zip(labels, last, strict=True):
        session.say(f"{label:<40} {value:10.3f}")
    session.say(f"{len(wanted)} images in {clock.seconds:.1f} s ({clock.compiling:.1f} s compiling)   {out}")


def _expand(text: str, net: Any, size: int) -> list[tuple[str, str]]:
    """Return the objectives that an argument names, with their labels.

    Raises:
        ValueError: If there is no such layer, channel or class.
    """
    layer, colon, rest = text.partition(":")
    blank: Any = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    layer = layers.resolve(net.model, layer, blank)
    if not colon:
        return [(layer, layer)]
    if "@" in rest:
        return [(text, text)]
    if re.fullmatch(r"[\d,\s-]+", rest) or rest == _ALL:
        channels = _channels(rest, layer, net, blank)
    elif layer == layers.OUTPUT and net.labels is not None:
        channels = list(classes.parse(rest, net.labels).indices)
    else:
        raise ValueError(f"channels are written 12, 3,7, 0-15 or all; got {rest!r} in {text!r}")
    named = net.labels if layer == layers.OUTPUT else None
    return [(f"{layer}:{c}", f"{named[c]} ({c})" if named else f"{layer}:{c}") for c in channels]


def _channels(text: str, layer: str, net: Any, blank: Any) -> list[int]:
    width = jax.eval_shape(lambda m, x: layers.split(m, layer, x)[0], net.model, blank).shape[-1]
    if text == _ALL:
        return list(range(width))
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise ValueError(f"channels are written 12, 3,7, 0-15 or all; got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"a range of channels goes upwards; got {part.strip()!r}")
        if last >= width:
            raise ValueError(f"layer {layer!r} has channels 0 to {width - 1}; got {last}")
        found.extend(range(first, last + 1))
    return found


def _run(net, names, recipe, size, steps, crops, batch_size, seed) -> dict[str, np.ndarray]:
    """Optimise in batches of equal size, the last filled up, so that one program serves all."""
    limit = min(len(names), batch_size or _A_MARK)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    parts = []
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("visualizing", total=len(names))
        for first in range(0, len(names), limit):
            kept = min(limit, len(names) - first)
            numbers = np.minimum(np.arange(first, first + limit), len(names) - 1)
            options: dict[str, Any] = {
                "key": jax.random.key(seed),
                "size": size,
                "steps": steps,
                "normalize": net.normalize,
                "indices": jnp.asarray(numbers),
            }
            chosen = [names[i] for i in numbers]
            about = chosen[0] if kept == 1 else f"{chosen[0]} to {chosen[kept - 1]}"
            with _plain_warnings(about, size >= net.input_size):
                if recipe == "maco":
                    found = features.maco(net.model, chosen, crops=crops, batch_size=batch_size, **options)
                else:
                    found = features.visualize(
                        net.model, chosen, parametrization=recipe, batch_size=batch_size, **options
                    )
            parts.append((np.asarray(found.images[:kept]), np.asarray(found.history[:kept])))
            bar.advance(task, kept)
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(("images", "history"))}


class _Exemplar(NamedTuple):
    """A photo that excites an objective."""

    image: np.ndarray
    source: str
    activation: float


def _exemplars(net, names, real, size, batch_size) -> list[list[_Exemplar]]:
    """Return the photos that excite each objective most, best first; none without photos."""
    if not real:
        return [[] for _ in names]
    cropped = net.crop([photo.read() for photo in real])
    found = features.exemplars(
        net.model, names, cropped, top=_BESIDE, normalize=net.normalize, batch_size=batch_size
    )
    shown = np.asarray(resized(cropped, size))
    return [
        [_Exemplar(shown[i], real[i].source, float(value)) for i, value in zip(row, values, strict=True)]
        for row, values in zip(np.asarray(found.indices), np.asarray(found.values), strict=True)
    ]


def _sheet(images, labels, best):
    """Return the sheet: the images, or a row for each with its photos beside it."""
    if not best[0]:
        return sheets.contact_sheet(list(images), labels)
    tiles, names = [], []
    for image, label, row in zip(images, labels, best, strict=True):
        tiles += [image, *(one.image for one in row)]
        names += [label, *(f"{Path(one.source).name}: {one.activation:.3g}" for one in row)]
    return sheets.contact_sheet(tiles, names, columns=1 + len(best[0]))


@contextmanager
def _plain_warnings(about: str, own_size: bool) -> Iterator[None]:
    """Print warnings as lines; none of a small image at the network's own size, where it is no news."""
    with warnings.catch_warnings(record=True) as found, small_is_meant() if own_size else nullcontext():
        yield
    for text in dict.fromkeys(str(one.message) for one in found):
        print(f"jaxai: warning: {about}: {text}", file=sys.stderr)


def _file_name(objective: str) -> str:
    return re.sub(r"[^\w.-]+", "_", objective)


def _record(net, wanted, values, best, recipe, size, steps, seed, precision) -> dict[str, Any]:
    return {
        "model": net.name,
        "weights_sha256": net.digest,
        "recipe": recipe,
        "size": size,
        "steps": steps,
        "seed": seed,
        "images": [
            {
                "objective": name,
                "label": label,
                "file": f"{_file_name(name)}.png",
                "activation": float(value),
                "photos": [{"photo": one.source, "activation": one.activation} for one in row],
            }
            for (name, label), value, row in zip(wanted, values, best, strict=True)
        ],
        "versions": session.versions(),
        **session.describe(precision),
    }
