"""FunnyBirds' protocols: what a map says of parts, against what happens when a network does not see them.

As the authors' released evaluation does it: the attribution of a part is summed over its pixels and those
next to it, parts above a share of the whole sum are important, and one share for each method and network is
chosen, that of the best completeness and distractibility.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxai.metrics import Metric

from . import birds, training, units
from .methods import entries, maps_for

IMAGES, POOL = 16, 64
SHARES = np.linspace(0.01, 0.5, 80)
# A part whose absence changes the class's logit by less does not matter.
SMALL = 0.05
PARTS = len(birds.PARTS)
REGIONS = PARTS + birds.OBJECTS
PROTOCOLS = (
    "sufficient_parts",
    "preservation",
    "deletion",
    "distractibility",
    "single_deletion",
    "target_sensitivity",
)


class Seen(NamedTuple):
    """What a network does with birds and with what is left of them.

    Attributes:
        images: [batch, 48, 48, 3].
        labels: Of birds that the network knows, int [batch].
        regions: The parts and then the objects, and the pixels next to them, bool [batch, 13, 48, 48].
        scores: Logits where the bits of the second index say which parts are there, [batch, 32, classes].
        without: Logits without one object, [batch, 8, classes].
    """

    images: jax.Array
    labels: np.ndarray
    regions: np.ndarray
    scores: np.ndarray
    without: np.ndarray


def look(model: Any, *, key: jax.Array, number: int = IMAGES) -> Seen:
    """Return birds that a network knows, and its scores of every version of them."""
    scene = birds.scenes(key, POOL)
    images, shown = jax.jit(birds.whole)(scene)
    right = np.asarray(model(images).argmax(-1) == scene.label)
    chosen = np.flatnonzero(right)[:number]
    scene = jax.tree.map(lambda leaf: leaf[chosen], scene)
    regions = np.asarray(shown)[chosen][:, None] == 1 + np.arange(REGIONS)[:, None, None]
    subsets = (np.arange(2**PARTS)[:, None] >> np.arange(PARTS) & 1).astype(bool)
    objects = ~np.eye(birds.OBJECTS, dtype=bool)

    @jax.jit
    def versions(one):
        every = jnp.ones(birds.OBJECTS, bool)
        of_parts, _ = jax.vmap(lambda there: birds.render(one, there, every))(subsets)
        of_objects, _ = jax.vmap(lambda there: birds.render(one, jnp.ones(PARTS, bool), there))(objects)
        return model(of_parts), model(of_objects)

    singles = [jax.tree.map(lambda leaf, i=i: leaf[i], scene) for i in range(len(chosen))]
    scores, without = (
        np.stack([np.asarray(x) for x in some]) for some in zip(*map(versions, singles), strict=True)
    )
    return Seen(images[chosen], np.asarray(scene.label), _near(regions), scores, without)


def _near(regions):
    """Return regions and the pixels next to them; the authors add two pixels of 256."""
    padded = np.pad(regions, ((0, 0), (0, 0), (1, 1), (1, 1)))
    size = regions.shape[-1]
    moved = [padded[..., i : i + size, j : j + size] for i in range(3) for j in range(3)]
    return np.any(moved, axis=0)


def importances(values: Any, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Return the attribution of each part and object, [batch, 13], and of the whole image, [batch]."""
    values = np.asarray(values, np.float64)
    return np.einsum("nhw,nrhw->nr", values, seen.regions), values.sum((1, 2))


def by_share(importance: np.ndarray, total: np.ndarray, seen: Seen) -> dict[str, np.ndarray]:
    """Return the protocols that ask which parts are important, [batch, shares] each; higher is better."""
    important = importance[:, None, :] > total[:, None, None] * SHARES[:, None]
    kept = important[..., :PARTS]
    number = (kept << np.arange(PARTS)).sum(-1)
    answers = seen.scores.argmax(-1)
    rows = np.arange(len(answers))[:, None]
    before = answers[:, -1:]
    sets = birds.sufficient()
    found = np.array(
        [
            [max(np.mean(some[list(group)]) for group in sets[label]) for some in kept[i]]
            for i, label in enumerate(seen.labels)
        ]
    )
    idle = _irrelevant(seen)
    spared = (important & idle[:, None]).sum(-1) / np.maximum(idle.sum(-1), 1)[:, None]
    return {
        "sufficient_parts": found,
        "preservation": (answers[rows, number] == before).astype(float),
        "deletion": (answers[rows, 2**PARTS - 1 - number] != before).astype(float),
        "distractibility": np.where(idle.any(-1)[:, None], 1 - spared, np.nan),
    }


def _drops(seen):
    """Return the label's logit, [batch], and how much lower it is without each region, [batch, 13]."""
    rows = np.arange(len(seen.labels))
    whole = seen.scores[rows, -1, seen.labels]
    parts = [seen.scores[rows, 2**PARTS - 1 - 2**part, seen.labels] for part in range(PARTS)]
    objects = [seen.without[rows, number, seen.labels] for number in range(birds.OBJECTS)]
    return whole, whole[:, None] - np.stack([*parts, *objects], axis=1)


def _irrelevant(seen):
    whole, drops = _drops(seen)
    return (np.abs(drops) < SMALL * np.abs(whole)[:, None]) | (drops < 0)


def background_independence(seen: Seen) -> float:
    """Return the share of objects whose absence does not lower the label's logit by 5 % or more."""
    return float(_irrelevant(seen)[:, PARTS:].mean())


def best_share(found: dict[str, np.ndarray]) -> int:
    """Return the number of the share with the best sum of completeness and distractibility."""
    mean = {name: np.nan_to_num(np.nanmean(values, axis=0)) for name, values in found.items()}
    complete = (mean["sufficient_parts"] + mean["preservation"] + mean["deletion"]) / 3
    return int(np.argmax(complete + mean["distractibility"]))


def thresholded(name: str, seen: Seen, values: Any) -> np.ndarray:
    """Return a protocol of `by_share` at the best share of all maps, [batch]."""
    found = by_share(*importances(values, seen), seen)
    return found[name][:, best_share(found)]


def single_deletion(seen: Seen, values: Any) -> np.ndarray:
    """Return the rank correlation of parts' importance and logit drops, from 0 to 1; 0.5 is chance."""
    importance, _ = importances(values, seen)
    _, drops = _drops(seen)
    found = np.full(len(drops), np.nan)
    for i, (ours, theirs) in enumerate(zip(importance[:, :PARTS], drops[:, :PARTS], strict=True)):
        # Spearman's coefficient of a constant is not defined.
        if np.ptp(ours) > 0:
            found[i] = 0.5 + 0.5 * stats.spearmanr(ours, theirs).statistic
    return found


def target_sensitivity(
    seen: Seen,
    method: Callable,
    model: Any,
    images: jax.Array,
    targets: Any,
    *,
    batch_size: int | None = None,
) -> np.ndarray:
    """Return whether parts that only one of two classes shares count more in its own map: 0, 0.5 or 1.

    NaN where the network does not work like this: where a class's logit falls no more without the parts that
    it shares than without those of the other. All images are explained at once.
    """
    pairs = [birds.rivals()[label] for label in seen.labels]
    of_class = []
    for number in (0, 1):
        values = maps_for(method, model, images, [pair[number] for pair in pairs])
        of_class.append(importances(values, seen)[0])
    found = np.full(len(pairs), np.nan)
    for i, (first, second, *shared) in enumerate(pairs):
        bits = [2**PARTS - 1 - sum(2 ** int(part) for part in some) for some in shared]
        fall = {
            c: [seen.scores[i, -1, c] - seen.scores[i, number, c] for number in bits] for c in (first, second)
        }
        if not (fall[first][0] > fall[first][1] and fall[second][1] > fall[second][0]):
            continue
        sums = [[importance[i, some].sum() for some in shared] for importance in of_class]
        found[i] = np.mean([sums[0][0] > sums[1][0], sums[1][1] > sums[0][1]])
    return found


def metrics(seen: Seen) -> tuple[Metric, ...]:
    """Return the protocols as `jaxai.metrics.compare` takes them."""
    found: list[Metric] = []
    for name in PROTOCOLS:
        if name == "target_sensitivity":
            function, takes = partial(target_sensitivity, seen), "method"
        elif name == "single_deletion":
            function, takes = partial(single_deletion, seen), "maps"
        else:
            function, takes = partial(thresholded, name, seen), "maps"
        function.__name__ = name  # pyright: ignore[reportAttributeAccessIssue]
        found.append(
            Metric(function, "Do maps of parts say what the network does?", takes, "higher", "0 to 1")
        )
    return tuple(found)


def network(seed: int, folder: Path, *, steps: int = training.STEPS) -> training.Trained:
    """Return the network of a seed, trained once."""
    key = jax.random.fold_in(jax.random.key(1350), seed)

    def make():
        return training.train(
            "CNN", birds.training, key=key, classes=birds.CLASSES, steps=steps, held_out=birds.complete
        )

    def like():
        return training.cnn(key, birds.complete(key, 1).images, birds.CLASSES)

    return training.kept(
        units.path(folder, "networks", f"birds {seed} {steps}").with_suffix(".npz"), make, like
    )


def run(folder: Path, *, seeds: int, number: int = IMAGES, steps: int = training.STEPS, only=None):
    """Yield what is done, a line a unit."""
    methods = {name: entry for name, entry in entries(birds.SIDE).items() if only is None or name in only}
    for seed in range(seeds):
        trained = network(seed, folder, steps=steps)
        seen = look(trained.model, key=jax.random.fold_in(jax.random.key(414), seed), number=number)
        where = folder / "birds" / str(seed)
        about = {
            "task": "birds",
            "seed": seed,
            "accuracy": trained.accuracy,
            "steps": trained.steps,
            "seconds": trained.seconds,
            "learnt": trained.accuracy >= training.LEARNT,
            "images": len(seen.labels),
            "background_independence": background_independence(seen),
        }
        units.done(where / "about.json", partial(dict, about))
        yield f"birds, seed {seed}: accuracy {trained.accuracy:.3f} after {trained.steps} steps"
        for title, entry in {**methods, "references": None}.items():
            units.done(units.path(where, title), partial(_scored, title, entry, trained.model, seen, seed))
        yield f"birds, seed {seed}: {len(methods)} methods"


def _scored(title, entry, model, seen, seed):
    found = units.scored(
        entry.run if entry else None,
        model,
        seen.images,
        jnp.asarray(seen.labels),
        metrics=metrics(seen),
        key=jax.random.key(seed),
        references=() if entry else units.REFERENCES,
    )
    return {"method": title, "passes": entry.passes if entry else "", **found}
