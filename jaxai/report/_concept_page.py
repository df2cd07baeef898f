"""The sheets of concepts as one self-contained page: maps with their raw values, bars, curves and numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _page as page
from ._page import shown_number, text

_LINES = 6
# Sizes of the drawings, in their own units.
_WIDTH, _ROW, _CURVES = 256, 20, 120
_LEFT, _RIGHT = 46, 8


def concept_page(
    sheets: Sequence[Any],
    *,
    labels: Sequence[str] | None,
    photos: Sequence[str] | None,
    title: str,
    rows: Sequence[tuple[str, str]] = (),
    failed: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        sheets: What `jaxai.concepts.concept_sheets` returns.
        labels: Names of the network's classes.
        photos: Names of the photos.
        title: Of the page.
        rows: How it was made, as `_page.made_by` takes it.
        failed: Lines about what went wrong.
    """
    seen: set[int] = set()
    body = [
        f"<header><h1>{text(title)}</h1>{page.made_by(rows, failed)}",
        page.toolbar("", "all maps of the same photo show their values there."),
        "</header>",
        _contents(sheets, labels) if len(sheets) > 1 else "",
        "<main>",
        *(_section(sheet, labels, photos, seen) for sheet in sheets),
        "</main>",
        page.colours(),
    ]
    style = page.file("page.css") + page.file("concepts.css")
    return page.document(title, "".join(body), style=style, script=page.file("page.js"))


def _contents(sheets: Sequence[Any], labels: Sequence[str] | None) -> str:
    links = []
    for sheet in sheets:
        icon = sheet.photos[0] if sheet.drawn is None else np.clip(sheet.drawn, 0, 1)
        about = "" if sheet.classes is None else f"<br>{text(_class(sheet.classes[0], labels), 40)}"
        links.append(
            f'<li><a href="#concept{sheet.concept}"><img src="{page.jpeg(icon, 48)}" alt="" width="48"'
            f' height="48"><span>{sheet.concept}{about}</span></a></li>'
        )
    return f'<nav aria-label="Concepts"><ol>{"".join(links)}</ol></nav>'


def _section(sheet: Any, labels: Sequence[str] | None, photos: Sequence[str] | None, seen: set[int]) -> str:
    name = f"concept {sheet.concept}"
    left = []
    if sheet.drawn is not None:
        source = page.jpeg(np.clip(sheet.drawn, 0, 1))
        left.append(
            f'<figure class="drawn"><img src="{source}" alt="image optimised to show {name}">'
            "<figcaption>optimised to show it</figcaption></figure>"
        )
    if sheet.classes is not None:
        names = [text(_class(c, labels), 60) for c in sheet.classes]
        left += [
            f"<figure><figcaption>logits lost without it</figcaption>{_bars(sheet, names)}</figure>",
            f"<figure><figcaption>probability when it is scaled</figcaption>{_curves(sheet)}</figure>",
        ]
    bounds = (0.0, max(float(np.nanmax(sheet.maps)), 1e-9))
    maps = "".join(_photo(sheet, i, bounds, photos, seen) for i in range(len(sheet.photos)))
    about = f'<div class="about">{"".join(left)}</div>' if left else ""
    table = "" if sheet.classes is None else _numbers(sheet, names)
    return (
        f'<section id="concept{sheet.concept}" aria-labelledby="name{sheet.concept}">'
        f'<h2 id="name{sheet.concept}">{name}</h2>'
        f'<div class="concept">{about}<div class="row{"" if left else " only"}">{maps}</div></div>'
        f"{table}</section>"
    )


def _photo(sheet: Any, i: int, bounds: tuple[float, float], photos: Any, seen: set[int]) -> str:
    """Return a photo with the map of the concept; the page holds the pixels of each photo once."""
    number = int(sheet.indices[i])
    name = text(f"photo {number}" if photos is None else photos[number], 60)
    height, width = sheet.photos[i].shape[:2]
    source = f'data-same="pixels{number}"'
    if number not in seen:
        seen.add(number)
        source = f'id="pixels{number}" src="{page.jpeg(sheet.photos[i])}"'
    shown = page.map_figure(
        np.asarray(sheet.maps[i], np.float64),
        bounds,
        signed=False,
        title=f"concept {sheet.concept}",
        name=name,
        photo=number,
        method="concept",
        unit=f"largest code {shown_number(float(sheet.amounts[i]))}",
    )
    return (
        f'<div><figure class="photo"><img {source} width="{width}" height="{height}" alt="{name}">'
        f"<figcaption>{name}</figcaption></figure>{shown}</div>"
    )


def _class(index: Any, labels: Sequence[str] | None) -> str:
    return f"class {int(index)}" if labels is None else str(labels[int(index)])


def _bars(sheet: Any, names: Sequence[str]) -> str:
    """Return the drop of each class's logit with its standard error where there is one, as a drawing."""
    known = np.nan_to_num(sheet.errors)
    low = min(0.0, float((sheet.effects - known).min()))
    high = max(float((sheet.effects + known).max()), low + 1e-9)

    def x(value):
        return 1 + (float(value) - low) / (high - low) * (_WIDTH - 2)

    parts = []
    for i, (effect, error) in enumerate(zip(sheet.effects, sheet.errors, strict=True)):
        top = 2 * i * _ROW
        left, right = sorted((x(0), x(effect)))
        ends = x(effect - error), x(effect + error)
        whisker = (
            f'<path class="axis" d="M{ends[0]:.1f} {top + 25}H{ends[1]:.1f}M{ends[0]:.1f} {top + 21}v8'
            f'M{ends[1]:.1f} {top + 21}v8"></path>'
        )
        parts.append(
            f'<text x="0" y="{top + 14}">{names[i]}</text>'
            f'<rect x="{left:.1f}" y="{top + 19}" width="{right - left:.1f}" height="12"'
            f' fill="var(--line{i % _LINES})"></rect>{whisker if np.isfinite(error) else ""}'
        )
    height = 2 * _ROW * len(names)
    zero = f'<path class="axis" d="M{x(0):.1f} 0V{height}"></path>'
    about = "bars with standard errors" if np.isfinite(sheet.errors).any() else "bars"
    return _drawing(height, f"{about}; the numbers are in the table", "".join(parts) + zero)


def _curves(sheet: Any) -> str:
    """Return the mean probabilities over the factors, with bands of a standard error where there is one."""
    factors = np.asarray(sheet.factors, float)
    high = float((sheet.curves + np.nan_to_num(sheet.curve_errors)).max())
    first, last = float(factors.min()), max(float(factors.max()), float(factors.min()) + 1e-9)
    high = max(high, 1e-9)

    def x(value):
        return _LEFT + (value - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y(value):
        return 8 + (1 - min(max(value / high, 0.0), 1.0)) * (_CURVES - 8)

    order = np.argsort(factors, kind="stable")
    parts = []
    for i in range(sheet.curves.shape[1]):
        mean, error = sheet.curves[order, i], sheet.curve_errors[order, i]
        places = [x(f) for f in factors[order]]
        line = " ".join(f"{a:.1f},{y(b):.1f}" for a, b in zip(places, mean, strict=True))
        upper = [(a, y(b)) for a, b in zip(places, mean + error, strict=True)]
        lower = [(a, y(b)) for a, b in zip(places, mean - error, strict=True)]
        band = " ".join(f"{a:.1f},{b:.1f}" for a, b in (*upper, *lower[::-1]))
        colour = f"var(--line{i % _LINES})"
        if np.isfinite(error).all():
            parts.append(f'<polygon points="{band}" fill="{colour}" opacity=".2"></polygon>')
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"></polyline>'
        )
    ticks = "".join(
        f'<text class="faint" x="{x(f):.1f}" y="{_CURVES + 14}" text-anchor="middle">{f:g}</text>'
        for f in factors
    )
    axis = (
        f'<path class="axis" d="M{_LEFT} 8V{_CURVES}H{_WIDTH - _RIGHT}"></path>{ticks}'
        f'<text class="faint" x="{_LEFT - 4}" y="14" text-anchor="end">{shown_number(high)}</text>'
        f'<text class="faint" x="{_LEFT - 4}" y="{_CURVES}" text-anchor="end">0</text>'
    )
    if first <= 1 <= last:
        axis += f'<path class="axis" stroke-dasharray="3 3" d="M{x(1):.1f} 8V{_CURVES}"></path>'
    return _drawing(
        _CURVES + 20, "curves of the probabilities; the numbers are in the table", axis + "".join(parts)
    )


def _drawing(height: float, about: str, inside: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{about}">{inside}</svg>'


def _numbers(sheet: Any, names: Sequence[str]) -> str:
    """Return what the drawings show as a table."""
    heads = "".join(f"<th scope='col'>× {factor:g}</th>" for factor in sheet.factors)
    rows = []
    for i, name in enumerate(names):
        curve = zip(sheet.curves[:, i], sheet.curve_errors[:, i], strict=True)
        cells = "".join(f"<td>{_with_error(mean, error)}</td>" for mean, error in curve)
        swatch = f"<i class='swatch' style='background: var(--line{i % _LINES})'></i>"
        lost = _with_error(sheet.effects[i], sheet.errors[i])
        rows.append(f"<tr><th scope='row'>{swatch}{name}</th><td>{lost}</td>{cells}</tr>")
    return (
        "<details><summary>Numbers</summary><div class='wide' tabindex='0' role='region'"
        f" aria-label='Classes of concept {sheet.concept}'><table class='numbers'><thead><tr>"
        f"<th scope='col'>class</th><th scope='col'>logits lost without it</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div><p class='facts'>Probabilities when the concept is"
        f" scaled; {_over(len(sheet.photos))}.</p></details>"
    )


def _with_error(mean: Any, error: Any) -> str:
    known = shown_number(float(error)) if np.isfinite(error) else "–"
    return f"{shown_number(float(mean))} ± {known}"


def _over(count: int) -> str:
    if count == 1:
        return "of the photo above alone, which leaves the standard error unknown (–)"
    return f"means over the {count} photos above, ± their standard errors"
