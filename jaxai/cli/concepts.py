"""`jaxai concepts`: the concepts of a layer, found in a folder of photos, with one sheet per concept."""

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import typer

from .. import _files, features, plots
from .. import concepts as library
from ..features._visualize import small_is_meant
from ..report import _concept_page as concept_page
from ..report import _names as names
from ..report import _outputs as outputs
from ..report import _page as report_page
from ..report import _photos as photos
from ..report import _session as provenance
from ..report._calibrate import A_STEP, calibrate
from ..report._progress import Progress
from ..report._waiting import patiently
from . import arguments, session, terminal
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

Way = Literal["auto", "craft", "sae"]
_ARRAYS, _RECORD = "concepts.npz", "concepts.json"
_CRAFT_CONCEPTS, _ACTIVE, _TRAINING = 20, 16, 1500


def concepts(
    folder: arguments.PhotosArgument,
    model: arguments.ModelOption = "efficientnet_lite0",
    layer: arguments.PositionsOption = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("concepts"),
    method: Annotated[
        Way,
        typer.Option(help="craft, sae, or auto: craft where a layer has no negative activations."),
    ] = "auto",
    count: Annotated[
        int | None,
        typer.Option(
            "--concepts",
            min=1,
            max=MOST,
            help="How many to find.",
            show_default="20; sae: channels x 2",
        ),
    ] = None,
    shown: Annotated[int, typer.Option("--sheets", min=1, max=1000, help="How many to draw.")] = 10,
    size: Annotated[
        int | None,
        typer.Option(min=8, max=32768, help="Side of the optimised images.", show_default="the network's"),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, max=MOST, help="Steps of the optimised images; 0 leaves them out.")
    ] = 128,
    page_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with all sheets too.")
    ] = None,
    page: PageOption = None,
    white: WhiteOption = None,
    alpha: AlphaOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "float32",
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
) -> None:
    """Find the concepts a layer computes with and draw a sheet for each of the most important.

    A sheet has the strongest photos, where the concept is on them, an optimised image, the classes that owe
    most to it, and what scaling it does. Also writes concepts.npz and concepts.json.
    """
    found = photos.find(folder)
    sources = outputs.Sources(photo.path for photo in found.photos)
    files = [f"concept_{rank:03d}.png" for rank in range(1, shown + 1)]
    outputs.check_folder(out, [*files, _ARRAYS, _RECORD], sources)
    if page_file is not None:
        outputs.check_file(page_file, sources)
    session.start(device, precision)
    net = session.load(model, precision)
    layer = provenance.layer(net, layer)
    for line in found.notes:
        terminal.note(line)
    good, cropped = read_all(net, found.photos, {"page": page, "white": white, "alpha": alpha})
    pixels = jnp.asarray(cropped)
    key = jax.random.key(seed)
    search = partial(_search, net, pixels, layer, method, count, key, batch_size)
    with (
        provenance.timed() as clock,
        Progress() as progress,
        _files.folder(out) as place,
    ):
        with progress.step("searching", 1):
            made = patiently(search, tick=progress.tick)
        passes = A_STEP * steps * min(shown, len(made.directions))
        progress.expect(1, {"drawing": passes})
        calibrate(progress, net, size or net.input_size, passes=passes)
        draw = partial(
            library.concept_sheets,
            net.model,
            pixels,
            made,
            layer=layer,
            which=shown,
            key=key,
            normalize=net.normalize,
            size=size,
            steps=steps,
            batch_size=batch_size,
        )
        with progress.step("drawing", 1), small_is_meant():
            sheets = patiently(draw, tick=progress.tick)
        for name, sheet in zip(files, sheets, strict=False):
            title = f"{model}, {layer}: concept {sheet.concept}"
            figure = plots.concept_sheet(sheet, labels=net.labels, title=title)
            (place / name).write_bytes(plots.png(figure))
        np.savez_compressed(place / _ARRAYS, **_arrays(made))
        record = {
            "model": net.name,
            "weights_sha256": net.digest,
            "layer": layer,
            "method": type(made).__name__.lower(),
            "summary": _summary(made),
            "concepts": [_facts(sheet, name, good, net) for name, sheet in zip(files, sheets, strict=False)],
            "seed": seed,
            "versions": provenance.versions(),
            **provenance.describe(precision),
        }
        text = json.dumps(record, indent=2, allow_nan=False)
        (place / _RECORD).write_text(f"{text}\n", "utf-8")
    if page_file is not None:
        _write_page(page_file, sheets, net, [photo.name for photo in good], record)
    for sheet in sheets:
        named = _classes(sheet, net)
        spoken = f"   speaks for {', '.join(named)}" if named else ""
        terminal.say(f"concept {sheet.concept}: {terminal.readable(good[sheet.indices[0]].name)}{spoken}")
    terminal.say(f"{layer} of {model}: {len(good)} photos, {_summary(made)}, {clock.seconds:.1f} s   {out}")
    if len(good) < len(found.photos):
        raise typer.Exit(2)


def _write_page(path, sheets, net, photos_, record) -> None:
    call = shlex.join(["jaxai", *sys.argv[1:]])
    found = ("found", report_page.text(f"{record['summary']}; seed {record['seed']}"))
    network = {"name": net.name, "weights_sha256": net.digest}
    text = concept_page.concept_page(
        sheets,
        labels=net.labels,
        photos=photos_,
        title=f"{net.name}, {record['layer']}: {len(sheets)} concepts",
        rows=report_page.origin(call, network, record, record["versions"], found),
    )
    _files.write(path, [text.encode()])
    terminal.say(str(path))


def _search(net, pixels, layer, method, count, key, batch_size) -> Any:
    """Return a `Craft`, or an `Sae` if requested or if activations are negative."""
    acts = features.layer_activations(
        net.model, pixels, layer=layer, normalize=net.normalize, batch_size=batch_size
    )
    if method == "craft" or (method == "auto" and float(acts.min()) >= 0):
        return library.craft(
            net.model,
            net.normalize(pixels),
            # Without classes, concepts are weighted by the layer's own magnitude.
            None if net.labels is not None else _strength,
            layer=layer,
            num_concepts=count or _CRAFT_CONCEPTS,
            key=key,
            batch_size=batch_size,
        )
    codes = count or 2 * acts.shape[-1]
    return library.sae(
        acts, num_codes=codes, k=min(_ACTIVE, codes), key=key, steps=_TRAINING, learning_rate=2e-3
    )


def _strength(outputs):
    """Return the mean output of a network without classes."""
    return outputs.reshape(outputs.shape[0], -1).mean(1)


def _arrays(made) -> dict[str, Any]:
    wanted = ("directions", "importance", "importance_error", "crops", "usage", "history")
    return {name: np.asarray(getattr(made, name)) for name in wanted if hasattr(made, name)}


def _summary(made) -> str:
    if isinstance(made, library.Craft):
        return f"{len(made.directions)} concepts of CRAFT, relative error {float(made.error):.2f}"
    return f"{len(made.directions)} codes of an autoencoder, R2 {float(made.r2):.2f}, {made.dead} dead"


def _classes(sheet, net) -> list[str]:
    return [] if sheet.classes is None or net.labels is None else [net.labels[c] for c in sheet.classes]


def _facts(sheet, name, good, net) -> dict[str, Any]:
    strongest = zip(sheet.indices, sheet.amounts, strict=True)
    owed = [] if sheet.classes is None else zip(sheet.classes, sheet.effects, sheet.errors, strict=True)
    return {
        "concept": sheet.concept,
        "file": name,
        "photos": [
            {"photo": names.recorded(good[i].source), "amount": outputs.numbers(float(a))}
            for i, a in strongest
        ],
        "classes": [
            {
                "class": int(c),
                "name": net.labels[c] if net.labels is not None else str(c),
                "effect": outputs.numbers(float(effect)),
                "error": outputs.numbers(float(error)),
            }
            for c, effect, error in owed
        ],
    }
