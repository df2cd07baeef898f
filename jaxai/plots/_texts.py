"""Literal drawing of titles and labels, which are data such as names of files and classes."""

from functools import cache
from typing import Any

from matplotlib import font_manager, rcParams

from .._files import shown

# Fonts of many scripts, where they are installed; Matplotlib's own has no Chinese, Japanese or Korean.
_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAexGothic", "NanumGothic"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "Nirmala UI", "Segoe UI"),
    *("Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai", "FreeSans", "Unifont"),
)
_GENERIC = ("serif", "sans-serif", "cursive", "fantasy", "monospace")
_NO_GLYPH = "\N{WHITE SQUARE}"
_LONGEST = 1000


def plain(words: str, *, weight: str = "normal") -> tuple[str, dict[str, Any]]:
    """Return a text and the keyword arguments with which Matplotlib draws it as it is written.

    Nothing in it is mathematics or TeX. Control characters become question marks, and characters that no font
    here has become squares.
    """
    text = "\n".join(shown(line, _LONGEST) for line in words.split("\n"))
    families = list(rcParams["font.family"])
    missing = set(text) - {"\n"}
    for family in _named(families):
        missing -= _covered(family, weight, missing)
    for family in _FONTS:
        # Many of these have one weight only, and Matplotlib's search for others would be logged.
        if missing and (covered := _covered(family, "normal", missing)):
            families.append(family)
            weight = "normal"
            missing -= covered
    text = "".join(_NO_GLYPH if c in missing else c for c in text)
    return text, {"parse_math": False, "usetex": False, "fontfamily": families, "fontweight": weight}


def _named(families: list[str]) -> list[str]:
    """Return names of fonts, those that a generic family stands for included."""
    settings: Any = rcParams
    return [name for f in families for name in (settings[f"font.{f}"] if f in _GENERIC else [f])]


def _covered(family: str, weight: str, characters: set[str]) -> set[str]:
    path = _path(family, weight)
    if path is None:
        return set()
    font = font_manager.get_font(path)
    return {character for character in characters if font.get_char_index(ord(character))}


@cache
def _path(family: str, weight: str) -> str | None:
    if family not in font_manager.get_font_names():
        return None
    return font_manager.findfont(font_manager.FontProperties(family=[family], weight=weight))
