"""The study in units: each is one file, written whole or not at all, so that a run can be resumed."""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

import jaxai
from jaxai import _files

REFERENCES = ("random", "centre", "edges", "image")


def path(folder: Path, *words: str) -> Path:
    """Return the file of a unit of work; different names have different files."""
    names = (re.sub(r"[^a-z0-9|]+", "_", word.lower().replace("+", " plus")).strip("_") for word in words)
    return folder.joinpath(*names).with_suffix(".json")


def done(file: Path, make) -> dict[str, Any]:
    """Return what a unit found: from its file, or by running it and writing the file."""
    if file.exists():
        return json.loads(file.read_text())
    _files.write(file, [(json.dumps(make()) + "\n").encode()])
    return json.loads(file.read_text())


def scored(
    run, model, images, targets, *, metrics, key, masks=None, options=None, references=(), batch_size=None
):
    """Return one method's scores by metric, and its seconds per image; references are scored if named.

    Everything is measured by `jaxai.metrics.compare`. A method that refuses the network, or what is
    explained, has no scores, and its words are kept.
    """
    began = time.perf_counter()
    methods = {"it": run} if run is not None else {"it": np.ones(images.shape[:3], np.float32)}
    try:
        table = jaxai.metrics.compare(
            model,
            images,
            targets,
            methods=methods,
            metrics=metrics,
            key=key,
            masks=masks,
            references=references,
            options=options,
            draws=1,
            batch_size=batch_size or len(images),
        )
    except (TypeError, ValueError) as refusal:
        nothing = {"it": {getattr(metric, "name", metric): [None] * len(images) for metric in metrics}}
        took = time.perf_counter() - began
        return {
            "rows": nothing,
            "better": {},
            "chance": {},
            "seconds": 0.0,
            "took": took,
            "refused": str(refusal),
        }
    rows = {}
    for name, scores in zip(table.rows, table.scores, strict=True):
        rows[name] = {
            metric: [None if np.isnan(x) else float(f"{x:.4g}") for x in values]
            for metric, values in zip(table.metrics, scores, strict=True)
        }
    return {
        "rows": rows,
        "better": dict(zip(table.metrics, table.better, strict=True)),
        "chance": dict(table.chance),
        "seconds": table.seconds.get("it"),
        "took": time.perf_counter() - began,
    }
