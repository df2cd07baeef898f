"""`jaxai explain`: from photographs to explanations."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import layers
from . import classes, methods, photos, report, session, staging
from .registry import Method
from .session import BatchSizeOption, DeviceOption, PrecisionOption, SeedOption

_IN_FLIGHT = 16
_LISTED = 5


@dataclass(frozen=True)
class Request:
    """What one run of the command is to do, checked."""

    net: Any
    methods: list[Method]
    wanted: classes.Wanted
    layer: str | None
    segmentation: str
    precision: session.Precision
    batch_size: int | None
    seed: int


def explain(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help=f"Photos, folders of photos, or samples: {', '.join(photos.SAMPLES)}."
        ),
    ],
    model: Annotated[str, typer.Option(help="The network; see `jaxai models`.")] = "efficientnet_lite0",
    method: Annotated[str, typer.Option(help="With commas between; see `jaxai methods`.")] = "grad_cam,lime",
    target: Annotated[
        str | None,
        typer.Option(
            help="The class: its name, its index, several with commas, or top3.", show_default="top1"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out"),
    layer: Annotated[
        str | None, typer.Option(help="Layer for methods that look at one; see `jaxai layers`.")
    ] = None,
    segments: Annotated[
        str, typer.Option(help="How superpixels are made: quickshift, slic, felzenszwalb, grid.")
    ] = "quickshift",
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="METHOD.NAME=VALUE", help="A method's own option; repeatable."
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Explain what a network sees: pictures, raw maps (.npz) and a record (.json).

    One image is written to the folder itself; several, or folders of images, each to a folder in it.
    """
    found, several = photos.find(images)
    chosen = methods.choose(method, option or [])
    session.start(device, precision)
    net = load(model, precision)
    request = Request(
        net=net,
        methods=chosen,
        wanted=classes.parse(target, net.labels),
        layer=layers.resolve(net.model, layer, _blank(net)) if layer else None,
        segmentation=segments,
        precision=precision,
        batch_size=batch_size,
        seed=seed,
    )
    if several:
        with staging.existing(out), _progress(len(found) * (len(chosen) + 1)) as bar:
            _run(request, found, lambda photo: staging.folder(out / photo.stem), out, bar)
    else:
        with staging.folder(out) as place:
            _run(request, found, lambda photo: nullcontext(place), out, None)
    session.say(f"{out}{os.sep}")


def load(model: str, precision: session.Precision) -> Any:
    """Load a network that can name classes.

    Raises:
        ValueError: If it is unknown, or has no classifier.
    """
    from .. import models

    net = models.load(model, dtype=None if precision == "float32" else precision)
    if net.labels is None:
        raise ValueError(f"{model} has no classes to explain; see `jaxai dream` for what its layers see")
    return net


def _blank(net: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, net.input_size, net.input_size, 3), np.float32)


def _progress(total: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Lines above the bar, unless they go elsewhere.
        redirect_stdout=sys.stdout.isatty(),
    )
    bar.add_task("explaining", total=total)
    return bar


def _run(
    request: Request,
    found: Sequence[photos.Photo],
    place: Callable[[photos.Photo], AbstractContextManager[Path]],
    out: Path,
    bar: Progress | None,
) -> None:
    """Explain photos batch by batch; all of them are read once before any work is spent on the first."""
    count = -(-len(found) // (request.batch_size or _IN_FLIGHT))
    # Batches of equal size, the last filled up, so that programs are compiled for one shape.
    size = -(-len(found) // count)
    if count > 1:
        for photo in found:
            request.net.crop(photo.read())

    def advance(steps: int) -> None:
        if bar is not None:
            bar.advance(bar.task_ids[0], steps)

    for start in range(0, len(found), size):
        batch = list(found[start : start + size])
        pixels = request.net.crop([photo.read() for photo in batch + batch[-1:] * (size - len(batch))])
        _explain_batch(request, batch, pixels, place, out, count > 1, advance, quiet=bar is not None)


def _explain_batch(request, batch, pixels, place, out, repeated, advance, *, quiet) -> None:
    net, key = request.net, jax.random.key(request.seed)
    images = net.normalize(pixels)
    logits = np.asarray(_scores(net.model, images), np.float32)
    if not np.isfinite(logits).all():
        raise ValueError(f"{net.name} returns scores that are not finite for {batch[0].source}")
    wanted = request.wanted.of(logits)
    for index, photo in enumerate(batch):
        _print_classes(photo, net, logits[index], one_line=quiet)
    cut, cut_seconds = None, 0.0
    if any("segments" in method.needs for method in request.methods):
        with session.timed() as clock:
            cut = methods.superpixels(pixels, request.segmentation)
        cut_seconds = clock.seconds
    results: list[tuple[Method, methods.Result]] = []
    for method in request.methods:
        result = methods.run(
            method,
            net,
            images,
            wanted,
            key=key,
            layer=request.layer,
            segments=cut if "segments" in method.needs else None,
            batch_size=request.batch_size,
            repeated=repeated,
        )
        results.append((method, result))
        advance(len(batch))
        if not quiet:
            session.say(f"{method.name:<24}{result.clock.seconds:7.1f} s   {out / method.name}.png")
    for index, photo in enumerate(batch):
        named = [classes.entry(int(c), net.labels, logits[index]) for c in wanted[index]]
        facts = _facts(request, photo, logits[index], named, results, index, cut, cut_seconds, len(batch))
        labels = None if cut is None else cut.labels[index]
        with place(photo) as folder:
            report.write(folder, np.asarray(pixels[index]), named, results, index, labels, facts)
        advance(1)


@jax.jit
def _scores(model: Any, images: jax.Array) -> jax.Array:
    return model(images)


def _print_classes(photo: photos.Photo, net: Any, logits: np.ndarray, *, one_line: bool) -> None:
    top = [classes.entry(int(i), net.labels, logits) for i in np.argsort(-logits)[:_LISTED]]
    if one_line:
        listed = ", ".join(f"{item['label']} {item['probability']:.0%}" for item in top)
        session.say(f"{photo.source}: {listed}")
        return
    session.say(f"{photo.source} as {net.name} sees it:")
    for item in top:
        session.say(f"  {item['probability']:6.1%}  {item['label']} ({item['index']})")


def _facts(request, photo, logits, named, results, index, cut, cut_seconds, batch) -> dict[str, Any]:
    """Return the content of `explanation.json`."""
    net = request.net
    top = [classes.entry(int(i), net.labels, logits) for i in np.argsort(-logits)[:_LISTED]]
    facts: dict[str, Any] = {
        "image": {"source": photo.source, "sha256": photo.digest(), "size": [net.input_size] * 2},
        "model": {"name": net.name, "weights_sha256": net.digest},
        "top": top,
        "targets": named,
        "methods": {},
        "random": {
            "seed": request.seed,
            "key": f"jax.random.key({request.seed})",
            "implementation": str(jax.random.key_impl(jax.random.key(request.seed))),
        },
        "run": {**session.describe(request.precision), "batch": batch, "batch_size": request.batch_size},
        "versions": session.versions(),
    }
    if cut is not None:
        facts["superpixels"] = {
            "method": cut.methods[index],
            "count": cut.counts[index],
            "seconds_of_batch": round(cut_seconds, 4),
        }
    for method, result in results:
        facts["methods"][method.name] = {
            "result": method.result,
            "paper": method.paper,
            "layer": result.layer,
            "options": methods.settings(method),
            "files": {"picture": f"{method.name}.png", "maps": f"{report.MAPS}:{method.name}"},
            **{name: report.numbers(values[index]) for name, values in result.extra.items()},
            "seconds_of_batch": round(result.clock.seconds, 4),
            "compile_seconds_of_batch": round(result.clock.compiling, 4),
        }
    return facts
