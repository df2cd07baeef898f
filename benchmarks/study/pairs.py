"""BAM's protocols: what a map says of an object, for pairs of networks and pairs of images.

One network tells objects, another the textures behind them: the object matters to the first alone. What a map
says of an object is the mean of its positive part over the object's pixels, clipped at its 99th percentile
and divided by it, so from 0 to 1.

References:
    Yang, Kim: Benchmarking Attribution Methods with Relative Feature Importance. 2019, arXiv 1907.09701,
    section 4.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxai.metrics import Metric

from . import datasets, training, truth, units
from .methods import entries, maps_for

OBJECTS, TEXTURES = "object on texture", "texture behind object"
IMAGES, POOL = 16, 128
PROTOCOLS = ("model_contrast", "input_dependence", "input_independence")
TOP = 99
# What a map says of a place is unchanged if it changes by at most this share.
UNCHANGED = 0.1
STEPS, RATE = 300, 0.02


class Seen(NamedTuple):
    """Images that both networks know.

    Attributes:
        images: With objects, [batch, 32, 32, 3].
        bare: Without.
        patched: `bare` with a patch in the object's place that does not change the texture network's logits.
        shapes: The objects' classes, int [batch].
        textures: The textures' classes.
        masks: Where the objects are, bool [batch, 32, 32].
        moved: By how much the patch changes the logits, as a share of what the object changes, [batch].
        size: The patch's norm, as a share of that of the object's difference to the texture, [batch].
    """

    images: jax.Array
    bare: jax.Array
    patched: jax.Array
    shapes: jax.Array
    textures: jax.Array
    masks: jax.Array
    moved: jax.Array
    size: jax.Array


def look(objects: Any, textures: Any, *, key: jax.Array, number: int = IMAGES) -> Seen:
    """Return images that a network of objects and one of textures tell rightly, with patches.

    The texture is told rightly without the object and with the patch, too.
    """
    drawn = jax.jit(datasets.pasted(), static_argnums=1)(key, POOL)
    patched = patches(textures, drawn)
    right = objects(drawn.images).argmax(-1) == drawn.labels
    for images in (drawn.images, drawn.without, patched):
        right &= textures(images).argmax(-1) == drawn.scenes
    chosen = jnp.asarray(np.flatnonzero(right)[:number])
    drawn, patched = jax.tree.map(lambda leaf: leaf[chosen], (drawn, patched))
    before, with_patch, with_object = (textures(images) for images in (drawn.without, patched, drawn.images))

    def norm(difference):
        return jnp.linalg.norm(difference.reshape(len(difference), -1), axis=-1)

    return Seen(
        drawn.images,
        drawn.without,
        patched,
        drawn.labels,
        drawn.scenes,
        drawn.masks,
        norm(with_patch - before) / norm(with_object - before),
        norm(patched - drawn.without) / norm(drawn.images - drawn.without),
    )


def patches(model: Any, drawn: datasets.Drawn) -> jax.Array:
    """Return images without objects, with patches in their places that leave the model's logits as they are.

    Patches begin as the objects, and stay in the range of the pixels.
    """
    there = drawn.masks[..., None]
    logits = model(drawn.without)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def loss(patch):
        return jnp.square(model(jnp.where(there, patch, drawn.without)) - logits).sum()

    # Not in a scan: XLA's CPU client runs convolutions inside of loops many times slower.
    @jax.jit
    def step(patch, state):
        change, state = optimizer.update(jax.grad(loss)(patch), state)
        return jnp.clip(optax.apply_updates(patch, change), -1, 1), state

    patch, state = drawn.images, optimizer.init(drawn.images)
    for _ in range(STEPS):
        patch, state = step(patch, state)
    return jnp.where(there, patch, drawn.without)


def share(values: Any, masks: Any) -> np.ndarray:
    """Return what maps [batch, height, width] say of places, from 0 to 1, [batch]."""
    positive = np.maximum(np.asarray(values, np.float64), 0)
    top = np.percentile(positive, TOP, axis=(1, 2), keepdims=True)
    # Where less than a hundredth of the pixels has a value, the largest is the end.
    top = np.where(top > 0, top, positive.max((1, 2), keepdims=True))
    shown = np.minimum(positive / np.where(top > 0, top, 1), 1)
    masks = np.asarray(masks)
    return (shown * masks).sum((1, 2)) / masks.sum((1, 2))


def model_contrast(said: Callable[[str], np.ndarray]) -> np.ndarray:
    """Return how much more the map of the network of objects says of the object than the other's, [batch].

    From -1 to 1. `said` returns what maps of a view say of the object's place (`metrics`).
    """
    return said("object") - said("texture")


def input_dependence(said: Callable[[str], np.ndarray]) -> np.ndarray:
    """Return whether the map says less of a place where an object hides the texture, 0 or 1, [batch]."""
    return (said("bare") > said("texture")).astype(float)


def input_independence(said: Callable[[str], np.ndarray]) -> np.ndarray:
    """Return whether a patch that changes no logit leaves what the map says of its place, 0 or 1, [batch]."""
    change = np.abs(said("bare") - said("patched"))
    return (change <= UNCHANGED * said("bare")).astype(float)


def metrics(seen: Seen, objects: Any, textures: Any) -> tuple[Metric, ...]:
    """Return the protocols as `jaxai.metrics.compare` takes them; a method explains each view once."""
    views = {
        "object": (objects, seen.images, seen.shapes),
        "texture": (textures, seen.images, seen.textures),
        "bare": (textures, seen.bare, seen.textures),
        "patched": (textures, seen.patched, seen.textures),
    }

    @cache
    def said(method, view):
        return share(maps_for(method, *views[view]), seen.masks)

    found: list[Metric] = []
    for protocol in (model_contrast, input_dependence, input_independence):
        one = partial(_measured, protocol, said)
        one.__name__ = protocol.__name__  # pyright: ignore[reportAttributeAccessIssue]
        question = "Does a map say of an object what the network makes of it?"
        span = "-1 to 1" if protocol is model_contrast else "0 or 1"
        found.append(Metric(one, question, "method", "higher", span))
    return tuple(found)


def _measured(protocol, said, method, model, images, targets, *, batch_size=None):
    return protocol(partial(said, method))


def run(folder: Path, *, seeds: int, number: int = IMAGES, steps: int = training.STEPS, only=None):
    """Yield what is done, a line a unit."""
    chosen = {name: entry for name, entry in entries(datasets.SIDE).items() if only is None or name in only}
    for seed in range(seeds):
        objects, textures = (truth.network(name, seed, folder, steps=steps) for name in (OBJECTS, TEXTURES))
        key = jax.random.fold_in(jax.random.key(1907), seed)
        seen = look(objects.model, textures.model, key=key, number=number)
        where = folder / "pairs" / str(seed)
        about = {
            "task": "pairs",
            "seed": seed,
            "accuracy": min(objects.accuracy, textures.accuracy),
            "learnt": min(objects.accuracy, textures.accuracy) >= training.LEARNT,
            "images": len(seen.images),
            "patch_moves_logits": float(seen.moved.mean()),
            "patch_size": float(seen.size.mean()),
        }
        units.done(where / "about.json", partial(dict, about))
        yield f"seed {seed}: {len(seen.images)} images, accuracy {about['accuracy']:.3f}"
        if len(seen.images) < number:
            continue
        for title, entry in {**chosen, "random": None}.items():
            one = partial(_scored, title, entry, objects.model, textures.model, seen, seed)
            units.done(units.path(where, title), one)
        yield f"seed {seed}: {len(chosen)} methods"


def _random(key, model, images, targets):
    """Return noise, other for every network and image."""
    seed = jnp.abs(model(images)).sum() * 1e3
    return jax.random.normal(jax.random.fold_in(key, seed.astype(jnp.uint32)), images.shape[:3])


def _scored(title, entry, objects, textures, seen, seed):
    key = jax.random.key(seed)
    found = units.scored(
        entry.run if entry else partial(_random, key),
        objects,
        seen.images,
        seen.shapes,
        metrics=metrics(seen, objects, textures),
        key=key,
    )
    return {"method": title, "passes": entry.passes if entry else "", **found}
