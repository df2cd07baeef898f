"""Truth by construction: methods on small networks whose data say where the evidence is."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxai

from . import datasets, training, units
from .methods import entries

IMAGES, POOL = 16, 512
METRICS = ("rank_accuracy", "mass_accuracy", "auc", "pointing_game", "relevance_gain")
OPTIONS: dict[str, Any] = {"pointing_game": {"tolerance": 0.0}, "relevance_gain": {"steps": 8}}


@dataclass(frozen=True)
class Task:
    """A question that small networks are trained to answer.

    Attributes:
        draw: The data set.
        classes: How many.
        kind: Of network; one that sees products of distant places for what is told by these.
        answer: What the network tells: `"labels"` or `"scenes"`.
        outside: Whether the evidence is what the mask does not mark.
        must_need: Whether only images count whose answer changes without what the mask marks.
        mosaic_of: The task whose networks see mosaics of its images, two of one class and two of another; the
            evidence is the tiles of the class in question.
    """

    draw: datasets.Draw
    classes: int
    kind: str = "CNN"
    answer: str = "labels"
    outside: bool = False
    must_need: bool = False
    mosaic_of: str | None = None

    @property
    def side(self) -> int:
        """Pixels of an image."""
        return datasets.SIDE * (2 if self.mosaic_of else 1)


TASKS = {
    **{
        name: Task(draw, 2, "dense CNN" if "xor" in name else "CNN")
        for name, draw in datasets.TETROMINOES.items()
    },
    "Clever Hans tag": Task(datasets.clever_hans(), datasets.SHAPES, must_need=True),
    "object on texture": Task(datasets.pasted(), datasets.SHAPES),
    "texture behind object": Task(datasets.pasted(), datasets.SHAPES, answer="scenes", outside=True),
    "mosaic of objects": Task(datasets.pasted(), datasets.SHAPES, mosaic_of="object on texture"),
    "Clever Hans tag, ViT": Task(datasets.clever_hans(), datasets.SHAPES, "ViT", must_need=True),
}

# The tasks that run first: XAI-TRIS' fixed places and products, and transformers, come after them.
LATER = tuple(name for name in TASKS if "linear" in name or "multiplicative" in name or "ViT" in name)
FIRST = tuple(name for name in TASKS if name not in LATER)


def network(name: str, seed: int, folder: Path, *, steps: int = training.STEPS) -> training.Trained:
    """Return the network of a task and a seed, trained once."""
    task = TASKS[name]
    name = task.mosaic_of or name
    key = jax.random.fold_in(jax.random.key(2026), seed)

    def like():
        return training.MAKERS[task.kind](key, task.draw(key, 1).images, task.classes)

    file = units.path(folder, "networks", f"{name} {seed} {steps}").with_suffix(".npz")
    return training.kept(
        file,
        lambda: training.train(
            task.kind, task.draw, key=key, classes=task.classes, answer=task.answer, steps=steps
        ),
        like,
    )


def images(name: str, seed: int, model: Any, number: int = IMAGES) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return new images that the network answers rightly, their answers, and where the evidence is."""
    task = TASKS[name]
    key = jax.random.fold_in(jax.random.key(414), seed)
    drawn = jax.jit(task.draw, static_argnums=1)(key, POOL)
    answers = getattr(drawn, task.answer)
    good = np.asarray(model(drawn.images).argmax(-1) == answers)
    if task.must_need:
        needed = np.asarray(model(drawn.without).argmax(-1) != answers)
        good = good & needed & np.asarray(drawn.scenes == 1)
    if task.mosaic_of:
        return _mosaics(drawn.images, np.where(good, np.asarray(answers), -1), key, number)
    chosen = np.flatnonzero(good)[:number]
    masks = ~drawn.masks if task.outside else drawn.masks
    return drawn.images[chosen], answers[chosen], masks[chosen]


def _mosaics(tiles, answers, key, number):
    """Return mosaics of tiles that the network tells rightly, the first class of each, and where it is."""
    rng, wanted, first, second = np.random.default_rng(0), [], [], []
    for _ in range(number):
        one, other = rng.permutation(datasets.SHAPES)[:2]
        some = [rng.choice(np.flatnonzero(answers == label), 2, replace=False) for label in (one, other)]
        wanted.append(one)
        first.append(tiles[some[0]])
        second.append(tiles[some[1]])
    made, masks, _ = jaxai.metrics.mosaics(np.stack(first), np.stack(second), key=key)
    return made, np.array(wanted), masks


def run(folder: Path, *, seeds: int, tasks=tuple(TASKS), number=IMAGES, steps=training.STEPS, only=None):
    """Yield what is done, a line a unit; the seeds in the outer loop, so that what ran is balanced."""
    for seed in range(seeds):
        for name in tasks:
            found = entries(TASKS[name].side, transformer=TASKS[name].kind == "ViT")
            methods = {title: entry for title, entry in found.items() if only is None or title in only}
            trained = network(name, seed, folder, steps=steps)
            facts = {"accuracy": trained.accuracy, "steps": trained.steps, "seconds": trained.seconds}
            facts["learnt"] = trained.accuracy >= training.LEARNT
            x, answers, masks = images(name, seed, trained.model, number)
            facts["images"] = len(x)
            # A chain has its layers already; a transformer's are found in its program.
            model = jaxai.layers.find(trained.model, x) if TASKS[name].kind == "ViT" else trained.model
            where = folder / "truth" / f"{units.path(Path(), name).stem}_{seed}"
            units.done(where / "about.json", partial(dict, facts, task=name, seed=seed))
            yield f"{name}, seed {seed}: accuracy {trained.accuracy:.3f} after {trained.steps} steps"
            if not facts["learnt"] or len(x) < number:
                continue
            for title, entry in {**methods, "references": None}.items():
                make = partial(_scored, title, entry, model, x, answers, masks, seed)
                units.done(units.path(where, title), make)
            yield f"{name}, seed {seed}: {len(methods)} methods"


def _scored(title, entry, model, x, answers, masks, seed):
    found = units.scored(
        entry.run if entry else None,
        model,
        x,
        answers,
        metrics=METRICS,
        key=jax.random.key(seed),
        masks=masks,
        options=OPTIONS,
        references=() if entry else units.REFERENCES,
    )
    return {"method": title, "passes": entry.passes if entry else "", **found}
