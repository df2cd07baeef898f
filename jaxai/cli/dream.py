"""`jaxai dream`: patterns that a layer detects, amplified in a photo or in noise."""

import os
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from PIL import Image

from .. import _files, features
from ..features._dream import dream_octaves, prepare
from ..report import _outputs as outputs
from ..report import _photos as photos
from ..report import _session as provenance
from ..report._progress import Progress
from ..report._waiting import patiently
from . import arguments, session, terminal
from .arguments import (
    MOST,
    AlphaOption,
    DeviceOption,
    PageOption,
    PrecisionOption,
    SeedOption,
    WhiteOption,
)

NOISE = "noise"
_LAYER = "conv5_1"
_LARGEST = 32768
# Number of pixels that counts as one pass.
_PASS = 224 * 224


def dream(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|noise", help=f"A photo, noise, or a sample: {', '.join(photos.SAMPLES)}."
        ),
    ],
    model: arguments.ModelOption = "vgg16_features",
    layer: Annotated[str, typer.Option(help="The layer; see `jaxai layers`.")] = _LAYER,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("dream.png"),
    pair: Annotated[
        Path | None, typer.Option(help="PNG file for a figure of the picture before and after.")
    ] = None,
    size: Annotated[
        int, typer.Option(min=32, max=_LARGEST, help="Longest side in pixels; larger photos shrink.")
    ] = 448,
    steps: Annotated[int, typer.Option(min=1, max=MOST, help="Steps at each size.")] = 10,
    octaves: Annotated[int, typer.Option(min=1, max=64, help="Number of sizes, the smallest first.")] = 4,
    octave_scale: Annotated[
        float,
        typer.Option(min=1.01, max=16, callback=arguments.finite, help="Ratio of one size to the next."),
    ] = 1.4,
    step_size: Annotated[
        float,
        typer.Option(
            min=-255, max=255, callback=arguments.finite, help="Mean change of a pixel per step, of 255."
        ),
    ] = 1.5,
    jitter: Annotated[int, typer.Option(min=0, max=_LARGEST, help="Largest random shift in pixels.")] = 32,
    page: PageOption = None,
    white: WhiteOption = None,
    alpha: AlphaOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    seed: SeedOption = 0,
) -> None:
    """Let a network dream: eyes and faces grow in a photo or out of noise."""
    found = None if image == NOISE else _one(image)
    sources = outputs.Sources([found.path] if found else [])
    outputs.check_file(out, sources)
    if pair is not None:
        outputs.check_file(pair, sources)
        if os.path.realpath(pair) == os.path.realpath(out):
            raise ValueError(f"--out and --pair both name {pair}")
    session.start(device, precision)
    from .. import models

    key = jax.random.key(seed)
    before = (
        features.noise(jax.random.fold_in(key, 0), (1, size, size, 3))
        if found is None
        else models.fit(found.read(), longest=size, page=page, white=white, alpha=alpha)
    )
    net = session.load(model, precision)
    layer = provenance.layer(net, layer)

    found_out = prepare(
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
    names = [f"octave {number} of {octaves}" for number in range(1, octaves + 1)]
    with provenance.timed() as clock, Progress() as progress:
        # A step's time is proportional to the area.
        costs = {n: steps * r * c / _PASS for n, (r, c) in zip(names, found_out.sizes, strict=True)}
        progress.expect(1, costs)
        octave = iter(names)

        def watched(*given: Any, **options: Any) -> jax.Array:
            with progress.step(next(octave), 1):
                return jax.block_until_ready(found_out.step(*given, **options))

        after = patiently(
            lambda: jax.block_until_ready(dream_octaves(watched, *found_out[1:])), tick=progress.tick
        )
    _save(np.asarray(after[0]), out)
    terminal.say(f"{layer} of {model}, {clock.seconds:.1f} s   {out}")
    if pair is not None:
        name = terminal.readable(found.name) if found else image
        _save_pair(np.asarray(before[0]), np.asarray(after[0]), pair, name, f"{model} {layer}")


def _one(name: str) -> photos.Photo:
    found = photos.find([name], others=[NOISE])
    if found.several:
        raise ValueError(f"{name} is a folder; expected one photo")
    return found.photos[0]


def _save(pixels: np.ndarray, path: Path) -> None:
    picture = np.round(np.clip(pixels.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    with _files.file(path) as new:
        Image.fromarray(picture).save(new, "png")


def _save_pair(before: np.ndarray, after: np.ndarray, path: Path, name: str, title: str) -> None:
    from .. import plots

    figure = plots.pair(before, after, titles=(name, "dream"), title=title)
    _files.write(path, [plots.png(figure)])
