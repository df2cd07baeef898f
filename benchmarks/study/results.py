"""What the units found, gathered in one file for each part, and as `jaxai.metrics.Comparison`s."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxai import _files
from jaxai.metrics import Comparison

from . import photos, units

REFERENCES = (*units.REFERENCES, "truth")
DRAWS, CONFIDENCE = 1000, 0.95
OUT = Path(__file__).parent.parent / "results" / "study"


def gather(work: Path, out: Path = OUT) -> None:
    """Write what the units of a work folder found to a folder, a file a part.

    What the folder's files hold of other tasks, trainings, photographs and methods stays, so that a part can
    be measured on several machines.
    """
    groups = {
        part: sorted(path.parent for path in (work / part).glob("*/about.json"))
        for part in ("truth", "birds", "pairs")
    }
    alone = {part: [work / part] for part in (*photos.PARTS, "sanity")}
    for part, folders in {**groups, **alone}.items():
        found = [one for one in map(_group, folders) if one["rows"] or "accuracy" in one]
        if found:
            found = _merged(read(part, out), found)
            written = [_scores(group, lambda x: round(1000 * x)) for group in found]
            text = json.dumps({"part": part, "unit": 0.001, "groups": written}, separators=(",", ":"))
            _files.write(out / f"{part}.json", [(text.replace("},{", "},\n{") + "\n").encode()])


def _merged(before, new):
    """Return the groups of before and the new ones; a method that both have measured is the new one's."""
    merged = {_name(group): group for group in before}
    for group in new:
        old = merged.get(_name(group))
        # Trained anew on another machine, it is another network: nothing of the old one can stay.
        same = (
            old is not None
            and old.get("accuracy") == group.get("accuracy")
            and old.get("images") == group.get("images")
        )
        if old is None or not same:
            merged[_name(group)] = group
            continue
        joined = {name: old.get(name, {}) | group[name] for name in ("rows", "costs", "better", "chance")}
        refused = {m: why for m, why in old.get("refused", {}).items() if m not in group["rows"]} | group.get(
            "refused", {}
        )
        merged[_name(group)] = old | group | joined | ({"refused": refused} if refused else {})
    return list(merged.values())


def _name(group):
    return group.get("task"), group.get("seed")


def _group(folder):
    about = folder / "about.json"
    found: dict[str, Any] = json.loads(about.read_text()) if about.exists() else {}
    found |= {"rows": {}, "costs": {}, "better": {}, "chance": {}}
    for path in sorted(folder.glob("*.json")):
        unit = json.loads(path.read_text())
        if path == about:
            continue
        rows = unit["rows"]
        if unit["method"] == "references":
            found["rows"] |= {name: rows[name] for name in REFERENCES if name in rows}
        else:
            found["rows"][unit["method"]] = rows["it"]
            found["costs"][unit["method"]] = [unit.get("passes", ""), round(unit["seconds"], 3)]
        found["better"] |= unit["better"]
        found["chance"] |= unit["chance"]
        found |= {name: unit[name] for name in ("layers",) if name in unit}
        if "refused" in unit:
            found.setdefault("refused", {})[unit["method"]] = unit["refused"]
    return found


def _scores(group, change):
    """Return a group with its scores changed; those that are None stay."""

    def row(scores):
        return {name: [None if x is None else change(x) for x in values] for name, values in scores.items()}

    return group | {"rows": {method: row(scores) for method, scores in group["rows"].items()}}


def read(part: str, out: Path = OUT) -> list[dict[str, Any]]:
    """Return the groups of a part: one for each task and training, or one of all photographs."""
    path = out / f"{part}.json"
    if not path.exists():
        return []
    # Scores are written in thousandths: half the size.
    return [_scores(group, lambda x: x / 1000) for group in json.loads(path.read_text())["groups"]]


def pooled(groups: Iterable[dict[str, Any]], metrics: Iterable[str], *, seed: int = 0) -> Comparison:
    """Return the rows that all groups have as a table whose intervals are over groups and images.

    A draw takes groups with replacement, and images of each with replacement.
    """
    groups, metrics = list(groups), tuple(metrics)
    rows = [name for name in groups[0]["rows"] if all(name in group["rows"] for group in groups)]
    methods = tuple(name for name in rows if name not in REFERENCES)
    extra = tuple(name for name in REFERENCES if name in rows)
    sizes = [len(next(iter(next(iter(group["rows"].values())).values()))) for group in groups]
    absent = [[None] * size for size in sizes]
    scores = np.array(
        [
            [
                np.concatenate(
                    [
                        np.array(group["rows"][name].get(metric, none), float)
                        for group, none in zip(groups, absent, strict=True)
                    ]
                )
                for metric in metrics
            ]
            for name in (*methods, *extra)
        ]
    )
    rng, starts = np.random.default_rng(seed), np.cumsum([0, *sizes])
    draws = np.zeros((DRAWS, starts[-1]), int)
    for draw in draws:
        chosen = rng.integers(0, len(groups), len(groups))
        parts = [starts[g] + rng.integers(0, sizes[g], sizes[g]) for g in chosen]
        draw[:] = np.resize(np.concatenate(parts), len(draw))
    better: dict[str, Any] = {}
    for group in groups:
        better |= group["better"]
    return Comparison(
        methods,
        extra,
        metrics,
        tuple(better[metric] for metric in metrics),
        scores,
        {m: float(np.mean([g["chance"][m] for g in groups])) for m in metrics if m in groups[0]["chance"]},
        {name: float(np.median([g["costs"][name][1] for g in groups])) for name in methods},
        draws,
        CONFIDENCE,
        passes={name: groups[0]["costs"][name][0] for name in methods},
    )
