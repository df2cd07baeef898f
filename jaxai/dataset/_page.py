"""A store as a folder of web pages: rows are drawn while scrolling, and pictures are stored in sheets.

Foreign text (file names, labels, errors) is data in a JSON block, which the script inserts as text.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import _files
from ..report import _page as report_page
from ..report import _scores as scores
from . import _compared, _sheets, _thumbnails
from ._columns import Columns
from ._compared import Compared, compare

_SHEETS = "sheets"
_MOST = 200_000
_CLASSES = 1000
_DIGITS = 4


def page(
    store: Any,
    folder: str | os.PathLike[str],
    *,
    images: Sequence[int] | None = None,
    other: Any = None,
    methods: Sequence[str] | None = None,
    by: str | None = None,
    clusters: bool = False,
) -> Path:
    """Write a page of a store: its images and maps, the worst and the most uncertain, means, clusters.

    The page is a folder without links to anywhere else. `index.html` opens in a browser, from a disk or a
    server.

    Args:
        store: As `open` returns it.
        folder: To write to; files of other names stay.
        images: Numbers of the images to show; None shows all finished shards, at most 200,000 images.
        other: A second store of the same images (`compare`), shown beside the first.
        methods: One method per store, whose maps are compared; None chooses as `compare` does.
        by: What mean maps are grouped by, "label" or "target"; None takes labels if there are any.
        clusters: Cluster the maps of every class that was explained in at least ten images (`Store.clusters`;
            needs scikit-learn).

    Returns:
        The path of `index.html`.

    Raises:
        ValueError: If there is nothing to show, or more images than a page holds; if the folder holds
            something else.
        OSError: If nothing can be written there.

    Example:
        >>> import pathlib, tempfile
        >>> import jaxai
        >>> from skimage import data, io
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> io.imsave(folder / "coffee.png", data.coffee()[::8, ::8])
        >>> colours = lambda x: x.mean((1, 2))
        >>> plan = jaxai.dataset.plan(colours, folder, folder / "store", methods="saliency", input_size=16)
        >>> status = jaxai.dataset.run(folder / "store", net=colours)
        >>> jaxai.dataset.page(jaxai.dataset.open(folder / "store"), folder / "page").name
        'index.html'
    """
    _check_place(Path(folder))
    table = store.table()
    if len(table) and images is not None:
        places = {int(number): place for place, number in enumerate(table["index"].to_pylist())}
        if unknown := [number for number in images if number not in places]:
            raise ValueError(f"image {unknown[0]} is not explained; see `Store.status`")
        table = table.take([places[number] for number in images])
    if not len(table):
        raise ValueError("the store has no finished shard to show")
    if len(table) > _MOST:
        raise ValueError(f"a page holds at most {_MOST} images; `images` chooses among the {len(table)}")
    numbers = table["index"].to_pylist()
    tiles, columns = _sheets.Tiles(store), Columns(table)
    compared = None if other is None else compare(store, other, methods=methods)
    names = [name for name, _ in store.plan.methods]
    content = {
        "per": _sheets.PER_SHEET,
        "side": tiles.side,
        "pitch": _thumbnails.pitch(tiles.side),
        "photos": bool(store.plan.thumbnails),
        "methods": [{"folder": name, "title": _sheets.title_of(store, name)} for name in names],
        **_rows(store, table, columns),
    }
    with _files.folder(Path(folder)) as new:
        if content["photos"]:
            _write(new, "photos", tiles.photos(numbers))
        for name in names:
            _write(new, name, tiles.maps(name, numbers))
        content["groups"] = _means(store, columns, names, by, tiles, new)
        if clusters:
            _clustered(store, columns, len(table), _places(numbers), tiles, new, content)
        if compared is not None:
            _beside(store, other, compared, _places(numbers), new, content)
        (new / "index.html").write_text(_document(store, other, compared, content), encoding="utf-8")
        # Files of an earlier page.
        shutil.rmtree(Path(folder) / _SHEETS, ignore_errors=True)
    return Path(folder) / "index.html"


def _check_place(folder: Path) -> None:
    if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        if not (folder / "index.html").is_file() or not (folder / _SHEETS).is_dir():
            shown = _files.shown(folder, 200)
            raise ValueError(f"{shown} is not empty and holds no page of a store; choose another folder")


def _write(folder: Path, name: str, sheets: Any) -> None:
    place = folder / _SHEETS / name
    place.mkdir(parents=True)
    for number, content in enumerate(sheets):
        (place / f"{number}.jpg").write_bytes(content)


def _places(numbers: Sequence[int]) -> dict[int, int]:
    return {number: place for place, number in enumerate(numbers)}


def _rows(store: Any, table: Any, columns: Columns) -> dict[str, Any]:
    """Return what is shown of each row, by columns; of those with errors only these."""
    known = sorted({label for label in table["label"].to_pylist() if label is not None})
    index = {label: place for place, label in enumerate(known)}
    where = np.flatnonzero(table["error"].is_null().to_numpy(zero_copy_only=False))
    errors = table["error"].to_pylist()
    count = len(table)

    def spread(values: np.ndarray, missing: Any = None) -> list[Any]:
        found: list[Any] = [missing] * count
        for place, value in zip(where.tolist(), values.tolist(), strict=True):
            found[place] = value
        return found

    rated = []
    for metric, _ in store.plan.metrics:
        for method, _ in store.plan.methods:
            values = columns.lists(f"{metric}:{method}")[:, 0].astype(np.float64)
            shown = [None if not np.isfinite(v) else float(f"{v:.{_DIGITS}g}") for v in values.tolist()]
            better = scores.METRICS[metric].better
            name = f"{metric.replace('_', ' ')} of {_sheets.title_of(store, method)}"
            rated.append({"name": name, "better": better, "values": spread(np.array(shown, object))})
    wrong = None
    if store.plan.classes is not None:
        wrong = spread((columns.top[:, 0] != columns.label_index).astype(int), 0)
    best, odds = columns.top[:, :2], np.round(columns.probability[:, :2].astype(np.float64), _DIGITS)
    return {
        "names": list(store.plan.names),
        "path": table["path"].to_pylist(),
        "labels": known,
        "label": [-1 if label is None else index[label] for label in table["label"].to_pylist()],
        "top": [spread(best[:, k], -1) for k in range(best.shape[1])],
        "probability": [
            spread(np.round(odds[:, k].astype(np.float64), _DIGITS), 0) for k in range(best.shape[1])
        ],
        "target": spread(columns.target[:, 0], -1),
        "wrong": wrong,
        "error": {place: line for place, line in enumerate(errors) if line is not None},
        "rated": rated,
    }


def _means(store, columns: Columns, names, by: str | None, tiles, folder: Path) -> dict[str, Any]:
    """Write the mean maps of classes, and return what the classes are called."""
    by = by or ("label" if any(label is not None for label in columns.labels()) else "target")
    groups = store.groups(columns, by)
    # The largest classes; the search reaches the others.
    shown = sorted(sorted(groups, key=lambda name: -len(groups[name]))[:_CLASSES])
    for name in names:
        means = [
            _compared.first(store.mean_of(name, columns.index[groups[group]])[None])[0] for group in shown
        ]
        _write(folder, f"means-{name}", tiles.given(name, means))
    return {"by": by, "names": shown, "counts": [len(groups[name]) for name in shown], "all": len(groups)}


def _clustered(store, columns: Columns, count: int, places, tiles, folder: Path, content) -> None:
    """Cluster the maps of each class, and write the mean map of each cluster."""
    method = store.plan.methods[0][0]
    groups = store.groups(columns, "target")
    of, cards, means = [-1] * count, [], []
    for name in sorted(groups):
        if len(groups[name]) < 10:
            continue
        found = store.clusters(method, images=columns.index[groups[name]])
        # A single cluster means that there are none.
        for cluster in range(len(found)) if len(found) > 1 else ():
            members = found.members(cluster)
            for number in members.tolist():
                of[places[number]] = len(cards)
            cards.append({"name": name, "cluster": cluster + 1, "count": len(members)})
            means.append(found.means[cluster])
    if means:
        _write(folder, "clusters", tiles.given(method, means))
    content["clusters"] = {"of": of, "cards": cards, "title": _sheets.title_of(store, method)}


def _beside(store, other, compared: Compared, places, folder: Path, content) -> None:
    """Write the maps of the other store in the order of the rows."""
    mine = {int(number): place for place, number in enumerate(compared.one) if int(number) in places}
    tiles, name = _sheets.Tiles(other), compared.methods[1]
    # In the order of the rows, so that neighbours are in one sheet.
    order = sorted(mine, key=lambda number: places[number])
    _write(folder, "other", tiles.maps(name, [int(compared.other[mine[number]]) for number in order]))
    count = len(content["path"])
    at = [-1] * count
    similarity: list[Any] = [None] * count
    said: list[Any] = [None] * count
    for place, number in enumerate(order):
        row, where = places[number], mine[number]
        at[row] = place
        value = float(compared.similarity[where])
        similarity[row] = round(value, _DIGITS) if np.isfinite(value) else None
        said[row] = [compared.classes[where, 1], round(float(compared.probabilities[where, 1]), _DIGITS)]
    title = f"{other.path.name}: {_sheets.title_of(other, name)}"
    side = tiles.side
    content["other"] = {"title": title, "at": at, "said": said, "similarity": similarity, "side": side}
    content["other"]["pitch"] = _thumbnails.pitch(side)


def _document(store: Any, other: Any, compared: Compared | None, content: dict[str, Any]) -> str:
    plan, text = store.plan, report_page.text
    title = f"{store.path.name}: {len(content['path'])} images"
    lines = [f"{text(plan.model)}, sha256 <code>{text(plan.weights[:12])}</code>"]
    lines.append(text("; ".join(str(store.status()).splitlines())))
    if compared is not None:
        lines.append(text(f"beside {other.path.name}: {'; '.join(str(compared).splitlines())}"))
    body = (
        f"<header><h1>{text(title)}</h1>{''.join(f'<p class=facts>{line}</p>' for line in lines)}</header>"
        '<div id="cards"></div>'
        '<div class="toolbar" role="group" aria-label="Which rows, in which order"></div>'
        '<p id="count" role="status"></p>'
        "<noscript>The rows are drawn by a script of this page, which is turned off.</noscript>"
        '<div id="rows" role="list" aria-label="Images"></div>'
        f'<script type="application/json" id="data">{report_page.as_json(content)}</script>'
    )
    style = report_page.file("page.css") + report_page.file("page.css", "jaxai.dataset")
    script = report_page.file("page.js", "jaxai.dataset")
    return report_page.document(title, body, style=style, script=script, images="'self' file:")
