"""`jaxai dream`: what a layer sees, drawn into a photo or out of noise."""

from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from PIL import Image

from .. import features
from . import photos, session, staging
from .session import DeviceOption, PrecisionOption, SeedOption

NOISE = "noise"
_LAYER = "conv5_1"


def dream(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|noise", help=f"A photo, noise, or a sample: {', '.join(photos.SAMPLES)}."
        ),
    ],
    model: Annotated[str, typer.Option(help="The network; see `jaxai models`.")] = "vgg16_features",
    layer: Annotated[str, typer.Option(help="The layer; see `jaxai layers`.")] = _LAYER,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("dream.png"),
    pair: Annotated[
        Path | None, typer.Option(help="PNG file for a figure of the picture before and after.")
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="Longest side in pixels; larger photos shrink.")] = 448,
    steps: Annotated[int, typer.Option(min=1, help="Steps at each size.")] = 10,
    octaves: Annotated[int, typer.Option(min=1, help="Number of sizes, the smallest first.")] = 4,
    octave_scale: Annotated[float, typer.Option(min=1.01, help="Ratio of one size to the next.")] = 1.4,
    step_size: Annotated[float, typer.Option(help="Mean change of a pixel a step, of 255.")] = 1.5,
    jitter: Annotated[int, typer.Option(min=0, help="Largest random shift in pixels.")] = 32,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    seed: SeedOption = 0,
) -> None:
    """Let a network dream: eyes and faces grow in a photo or out of noise."""
    found = None if image == NOISE else _one(image)
    session.start(device, precision)
    from .. import models

    key = jax.random.key(seed)
    before = (
        features.noise(jax.random.fold_in(key, 0), (1, size, size, 3))
        if found is None
        else models.fit(found.read(), longest=size)
    )
    with staging.file(out) as picture, staging.optional_file(pair) as figure:
        net = models.load(model, dtype=None if precision == "float32" else precision)
        with session.timed() as clock:
            after = features.deep_dream(
                net.model,
                before,
                layer=layer,
                key=key,
                normalize=net.normalize,
                octaves=octaves,
                octave_scale=octave_scale,
                steps=steps,
                step_size=step_size / 255,
                jitter=jitter,
            )
            after = jax.block_until_ready(after)
        _save(np.asarray(after[0]), picture)
        if figure is not None:
            _save_pair(np.asarray(before[0]), np.asarray(after[0]), figure, image, f"{model} {layer}")
    session.say(f"{layer} of {model}, {clock.seconds:.1f} s   {out}")


def _one(name: str) -> photos.Photo:
    found, several = photos.find([name])
    if several:
        raise ValueError(f"{name} is a folder; expected one photo")
    return found[0]


def _save(pixels: np.ndarray, path: Path) -> None:
    picture = np.round(np.clip(pixels.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    Image.fromarray(picture).save(path, "png")


def _save_pair(before: np.ndarray, after: np.ndarray, path: Path, name: str, title: str) -> None:
    from .. import plots

    figure = plots.pair(before, after, titles=(Path(name).name, "dream"), title=title)
    path.write_bytes(plots.png(figure))
