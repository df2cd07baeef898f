"""One self-contained HTML page: photos, classes, maps with their raw values, options and digests.

Names, labels and lines of others are data: every text is escaped, and the page's policy lets no script run
but its own and nothing be fetched.
"""

import base64
import hashlib
import html
import io
import json
import zlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from .. import plots
from ..plots._colors import colormap
from . import _classes as classes
from ._figures import score_texts, shown_values, unsure_pixels
from ._record import Part, Subject
from ._shown import readable

_LEVELS = 65534
_QUALITY = 92
_DIGITS = 4


def page(
    results: Sequence[tuple[Subject, Sequence[Part]]], *, call: str = "", failed: Sequence[str] = ()
) -> str:
    """Return the page.

    Args:
        results: Photos, and what methods say of each.
        call: The command or the call that made them.
        failed: Lines about what went wrong.
    """
    title = f"{len(results)} photo{'s' if len(results) != 1 else ''} explained"
    if len(results) == 1:
        title = results[0][0].photo.name
    methods = {part.method.name: part for _, parts in results for part in parts}
    body = [
        f"<header><h1>{text(title)}</h1>{_summary(results, call, failed)}{_toolbar(methods)}</header>",
        *([_contents(results)] if len(results) > 1 else []),
        "<main>",
        *(_section(i, subject, parts) for i, (subject, parts) in enumerate(results)),
        _options(methods),
        "</main>",
    ]
    body.append(colours())
    return document(title, "".join(body), style=file("page.css"), script=file("page.js"))


def document(title: str, body: str, *, style: str, script: str, images: str = "") -> str:
    """Return a page that runs its own script, and fetches nothing but images of its own.

    Args:
        title: Of the window, as text.
        body: As HTML.
        style: As CSS.
        script: That runs at the end.
        images: Where images may come from besides the page itself, as a content security policy has it.
    """
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data: {images}; style-src 'unsafe-inline';"
    policy += f" script-src 'sha256-{allowed}'"
    # A browser reads text of one byte a character faster than text that has others among it.
    body = body.encode("ascii", "xmlcharrefreplace").decode()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{text(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head>\n'
        f"<body>{body}"
        f"<script>{script}</script></body></html>\n"
    )


def file(name: str, package: str = "jaxai.report") -> str:
    """Return the text of a file beside a page's code."""
    return resources.files(package).joinpath(name).read_text("utf-8")


def text(value: object, limit: int = 300) -> str:
    """Return a text of others as HTML that shows it as it is written."""
    return html.escape(readable(value, limit))


def as_json(value: Any) -> str:
    """Return JSON that a script element can hold."""
    return json.dumps(value).replace("<", "\\u003c")


def shown_number(value: float) -> str:
    """Return a value with three digits, and with the sign that minus is in print."""
    return f"{value:.{_DIGITS - 1}g}".replace("-", "\N{MINUS SIGN}")


def _summary(results: Sequence[tuple[Subject, Sequence[Part]]], call: str, failed: Sequence[str]) -> str:
    if not results:
        return made_by([], failed)
    facts = results[0][0].facts
    network, random = facts["model"], ("random numbers", f"<code>{text(facts['random']['key'])}</code>")
    return made_by(origin(call, network, facts["run"], facts["versions"], random), failed)


def origin(
    call: str, network: dict[str, Any], run: dict[str, Any], versions: dict[str, str], *more: tuple[str, str]
) -> list[tuple[str, str]]:
    """Return the rows of `made_by` that every page has.

    Args:
        call: The command or the call.
        network: Its `name` and `weights_sha256`.
        run: As `_session.describe` returns it.
        versions: As `_session.versions` returns them.
        more: Further names with their HTML.
    """
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    return [
        ("made by", f"<code>{text(call, 4000)}</code>"),
        ("network", f"{text(network['name'])} <code>sha256 {text(network['weights_sha256'])}</code>"),
        ("computed on", f"{text(run['device_kind'])}, {text(run['precision'])}, {text(run['platform'])}"),
        *more,
        ("versions", text(listed, 1000)),
    ]


def made_by(rows: Sequence[tuple[str, str]], failed: Sequence[str]) -> str:
    """Return what went wrong and how a page was made: names with their HTML."""
    lines = [f'<p class="failed" role="alert">{text(line, 500)}</p>' for line in failed]
    if rows:
        listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
        lines.append(f"<details><summary>How this was made</summary><dl>{listed}</dl></details>")
    return "".join(lines)


def _toolbar(methods: dict[str, Part]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" checked data-method="{text(name)}">'
        f" {text(part.method.description.title)}</label>"
        for name, part in methods.items()
    )
    return toolbar(boxes, "every method shows its value there.")


def toolbar(more: str, hint: str) -> str:
    """Return the slider of all maps, what else is chosen there, and what pointing at a map does."""
    return (
        '<div class="toolbar" role="group" aria-label="What is shown">'
        '<label class="all">opacity of all maps'
        ' <input type="range" id="opacity" min="0" max="100" value="65"></label>'
        f"{more}</div>"
        f'<p class="hint">Point at a map, or move in it with the arrow keys: {hint}</p>'
        "<noscript>The maps are drawn by a script of this page, which is turned off.</noscript>"
    )


def _contents(results: Sequence[tuple[Subject, Sequence[Part]]]) -> str:
    links = "".join(
        f'<li><a href="#photo{i}"><img src="{jpeg(subject.pixels, 48)}" alt="" width="48" height="48">'
        f"<span>{text(subject.photo.name, 40)}</span></a></li>"
        for i, (subject, _) in enumerate(results)
    )
    return f'<nav aria-label="Photos"><ol>{links}</ol></nav>'


def _section(number: int, subject: Subject, parts: Sequence[Part]) -> str:
    height, width = subject.pixels.shape[:2]
    name = text(subject.photo.source)
    top = "".join(
        f'<li><meter min="0" max="1" value="{item["probability"]:.4f}" aria-hidden="true"></meter>'
        f" {item['probability']:.1%} {text(item['label'])} ({item['index']})</li>"
        for item in subject.facts["top"]
    )
    source = f'id="pixels{number}" src="{jpeg(subject.pixels)}"'
    rows = []
    for k, item in enumerate(subject.named):
        rows.append(
            f'<h3>{text(classes.named(item))}</h3><div class="row"><figure class="photo"><img {source}'
            f' width="{width}" height="{height}" alt="photo {name}"><figcaption>as the network sees it'
            f"</figcaption></figure>{''.join(_map(number, subject, part, k) for part in parts)}</div>"
        )
        # The script fills in the same pixels again.
        source = f'data-same="pixels{number}"'
    image = subject.facts["image"]
    facts = {**{k: v for k, v in image.items() if k not in ("source", "sha256")}}
    facts |= {"superpixels": subject.facts["superpixels"]} if "superpixels" in subject.facts else {}
    failed = "".join(
        f'<p class="failed">{text(line, 500)}</p>' for line in subject.facts.get("failed", {}).values()
    )
    return (
        f'<section id="photo{number}" aria-labelledby="name{number}"><h2 id="name{number}">{name}</h2>'
        f"{failed}<ul class='classes'>{top}</ul>{''.join(rows)}"
        f"<p class='facts'>sha256 <code>{text(image['sha256'])}</code> {text(_plain(facts), 1000)}</p>"
        "</section>"
    )


def _map(number: int, subject: Subject, part: Part, k: int) -> str:
    values, signed, bounds = shown_values(subject, part, k)
    method = part.method
    unit = text(method.description.label)
    hatched = None
    if (unsure := part.unsure(k)) is not None and (pixels := unsure_pixels(subject, part, k)) is not None:
        some = "hatched: " if unsure.any() else ""
        unit += (
            f"<br>{some}{int(unsure.sum())} of {unsure.size} superpixels within two standard errors of zero"
        )
        hatched = pixels if unsure.any() else None
    if rated := ", ".join(text(one) for one in score_texts(part.facts, k)):
        unit += f"<br>{rated}"
    return map_figure(
        values,
        bounds,
        signed=signed,
        pale=method.result == "pixels",
        title=text(method.description.title),
        name=text(subject.photo.name, 60),
        photo=number,
        method=text(method.name),
        unit=unit,
        hatched=hatched,
    )


def map_figure(
    values: np.ndarray,
    bounds: tuple[float, float],
    *,
    signed: bool,
    pale: bool = False,
    title: str,
    name: str,
    photo: int,
    method: str,
    unit: str,
    hatched: np.ndarray | None = None,
) -> str:
    """Return the figure of a map on the image `pixels{photo}`; a script draws it when it is looked at.

    Args:
        values: The map, [height, width].
        bounds: The values at the ends of its colours.
        signed: Values have signs: colours diverge from zero.
        pale: Zero is drawn, too, rather than shows the photo.
        title: Of the map, as HTML; so are the other texts.
        name: Of the photo.
        photo: The number of its image.
        method: What a checkbox of the toolbar shows or hides.
        unit: What stands below.
        hatched: Where slanted lines are laid over it, bool [height, width].
    """
    packed, low, high = _packed(values)
    height, width = values.shape
    about = {"low": low, "high": high, "from": bounds[0], "to": bounds[1], "signed": signed}
    about |= {"cmap": plots.DIVERGING if signed else plots.SEQUENTIAL, "pale": pale}
    ends = [shown_number(end) for end in bounds]
    clipped = (low < bounds[0], high > bounds[1])
    marks = [f"{'≤ ' if clipped[0] else ''}{ends[0]}", f"{'≥ ' if clipped[1] else ''}{ends[1]}"]
    middle = "<span>0</span>" if signed else ""
    lines = ""
    if hatched is not None:
        lines = f'<script type="text/plain" class="hatched">{_compressed(hatched)}</script>'
    return (
        f'<figure class="map" data-method="{method}" data-photo="{photo}"'
        f' data-about="{html.escape(json.dumps(about))}"><figcaption>{title}</figcaption>'
        f'<div class="stack"><canvas width="{width}" height="{height}" tabindex="0" role="img"'
        f' aria-label="{title} of {name}; arrow keys move the pointer"></canvas></div>'
        f'<div class="bar {"signed" if signed else ""}"><i></i><div><span>{marks[0]}</span>{middle}'
        f"<span>{marks[1]}</span></div></div><output>&nbsp;</output>"
        f'<p class="unit">{unit}</p>'
        f'<input type="range" min="0" max="100" value="65" aria-label="opacity of {title} of {name}">'
        f'<script type="text/plain">{packed}</script>{lines}</figure>'
    )


def _packed(values: np.ndarray) -> tuple[str, float, float]:
    """Return a map in 65535 levels between its ends, and these; level 0 is what is not finite."""
    finite = np.isfinite(values)
    low, high = (float(f(values[finite])) for f in (np.min, np.max)) if finite.any() else (0.0, 0.0)
    scale = _LEVELS / (high - low) if high > low else 0.0
    levels = np.where(finite, 1 + np.round((np.where(finite, values, low) - low) * scale), 0)
    return _compressed(levels), low, high


def _compressed(levels: np.ndarray) -> str:
    """Return whole numbers below 65536 as text: their differences along rows, in two planes of bytes."""
    steps = np.diff(levels.astype(np.uint16).ravel(), prepend=np.uint16(0))
    planes = np.concatenate([steps & 255, steps >> 8]).astype(np.uint8)
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode()


def colours() -> str:
    """Return the colour maps for the script: 256 colours each, six hexadecimal digits a colour."""
    shares = np.linspace(0, 1, 256)
    tables = {
        name: colormap(name)(shares, bytes=True)[:, :3].tobytes().hex()
        for name in (plots.SEQUENTIAL, plots.DIVERGING)
    }
    return f'\n<script type="application/json" id="colours">{as_json(tables)}</script>'


def jpeg(pixels: np.ndarray, side: int | None = None) -> str:
    """Return pixels in [0, 1] as the address of a JPEG image, of this side if one is given."""
    data = plots.photo_panel(pixels).image
    picture = Image.fromarray(data)
    if side:
        picture = picture.resize((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _plain(facts: dict[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False)[1:-1].replace('"', "")


def _options(methods: dict[str, Part]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{text(part.method.description.title)}<br><code>{text(name)}</code></th>"
        f"<td>{text(_plain(part.facts['options']), 2000) or '–'}</td>"
        f"<td>{text(part.facts['layer'] or '–')}</td>"
        f"<td>{part.facts['seconds_of_batch']:.2f}</td><td>{text(part.facts['paper'])}</td></tr>"
        for name, part in methods.items()
    )
    heads = "".join(
        f"<th scope='col'>{name}</th>" for name in ("method", "options", "layer", "seconds", "paper")
    )
    return (
        "<section aria-labelledby='methods'><h2 id='methods'>Methods</h2><div class='wide' tabindex='0'"
        " role='region' aria-label='Methods and their options'>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
