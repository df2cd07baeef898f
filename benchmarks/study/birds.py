"""Birds whose class is a combination of parts, drawn in JAX; each part and object can be left out.

A plane version of FunnyBirds (Hesse, Schaub-Meyer, Roth: FunnyBirds: A Synthetic Vision Dataset for a
Part-Based Analysis of Explainable AI Methods. ICCV 2023, arXiv 2308.06248).
"""

import itertools
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 48
PARTS = ("beak", "eye", "foot", "tail", "wing")
VARIANTS, CLASSES, OBJECTS = 3, 16, 8
# How often training leaves out each part.
LEFT_OUT = 0.25


class Scene(NamedTuple):
    """What is drawn: a bird and what lies behind it, each field with the images first.

    Attributes:
        label: The bird's class, int32.
        place: Row and column of the middle and the scale, float32 [3].
        tint: The colour of the body, float32 [3].
        ground: The colour of the background, float32 [3].
        objects: Row, column, radius, roundness and colour of each object, float32 [8, 7].
        grain: The key of the noise.
    """

    label: jax.Array
    place: jax.Array
    tint: jax.Array
    ground: jax.Array
    objects: jax.Array
    grain: jax.Array


class Flock(NamedTuple):
    """Images for training, as `datasets.Drawn` has them.

    Attributes:
        images: float32 [number, 48, 48, 3], in -1 to 1.
        labels: The classes that have all the parts that are shown, equally probable, float32 [number, 16].
    """

    images: jax.Array
    labels: jax.Array


@lru_cache(1)
def classes() -> np.ndarray:
    """Return the variant of each part of each class, int [16, 5].

    Any two classes differ in two parts or more, and each has two `rivals`.
    """
    every = np.array(list(itertools.product(range(VARIANTS), repeat=len(PARTS))))
    for seed in itertools.count():
        chosen: list[np.ndarray] = []
        for code in np.random.default_rng(seed).permutation(every):
            if len(chosen) < CLASSES and all((code != other).sum() >= 2 for other in chosen):
                chosen.append(code)
        table = np.array(chosen)
        if all(any(_rivals(table, label)) for label in range(CLASSES)):
            return table
    raise AssertionError


def _rivals(table, label):
    """Yield pairs of classes that share two parts with one, none of them the same, and these parts."""
    same = table == table[label]
    near = np.flatnonzero(same.sum(1) == 2)
    for first, second in itertools.combinations(near.tolist(), 2):
        if not (same[first] & same[second]).any():
            yield first, second, np.flatnonzero(same[first]), np.flatnonzero(same[second])


@lru_cache(1)
def sufficient() -> list[list[tuple[int, ...]]]:
    """Return for each class the smallest sets of parts that no other class has all of."""
    found: list[list[tuple[int, ...]]] = []
    table = classes()
    for label, code in enumerate(table):
        sets: list[tuple[int, ...]] = []
        for size in range(1, len(PARTS) + 1):
            for some in itertools.combinations(range(len(PARTS)), size):
                alike = (table[:, some] == code[list(some)]).all(1)
                if alike.sum() == 1 and not any(set(less) <= set(some) for less in sets):
                    sets.append(some)
        found.append(sets)
        assert alike[label]
    return found


@lru_cache(1)
def rivals() -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Return for each class two others and the two parts that each shares with it, none of them the same."""
    return [next(_rivals(classes(), label)) for label in range(CLASSES)]


def scenes(key: jax.Array, number: int) -> Scene:
    """Draw what is to be seen; the scene i of a key is the same in any number."""

    def one(i):
        keys = jax.random.split(jax.random.fold_in(key, i), 6)
        middle = SIDE / 2 + jax.random.uniform(keys[1], (2,), minval=-2.0, maxval=2.0)
        scale = jax.random.uniform(keys[2], (1,), minval=0.95, maxval=1.1)
        tint = 0.1 + 0.15 * jax.random.normal(keys[3], (3,))
        ground, *rest = jax.random.uniform(keys[4], (8,), minval=-1.0, maxval=1.0), keys[5]
        where = jax.random.uniform(rest[0], (OBJECTS, 7))
        objects = jnp.concatenate(
            [where[:, :2] * SIDE, 2 + 2.5 * where[:, 2:3], where[:, 3:4], 2 * where[:, 4:] - 1], axis=1
        )
        return Scene(
            jax.random.randint(keys[0], (), 0, CLASSES),
            jnp.concatenate([middle, scale]),
            tint,
            0.5 * ground[:3] - 0.2,
            objects,
            keys[0],
        )

    return jax.vmap(one)(jnp.arange(number))


def _disc(u, v, radius):
    return jnp.hypot(u, v) - radius


def _oval(u, v, across, down):
    return (jnp.hypot(u / across, v / down) - 1) * min(across, down)


def _box(u, v, across, down):
    return jnp.maximum(jnp.abs(u) - across, jnp.abs(v) - down)


def _triangle(u, v, *corners):
    """Return the distance to a triangle whose corners (u, v) go round clockwise, negative inside."""
    edges = []
    for (u0, v0), (u1, v1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        along, down = u1 - u0, v1 - v0
        edges.append(((u - u0) * down - (v - v0) * along) / (along**2 + down**2) ** 0.5)
    return jnp.maximum(jnp.maximum(edges[0], edges[1]), edges[2])


def _shapes(u, v):
    """Return the distances to and colours of the variants, part by part: [5, 3, side, side], [5, 3, 3]."""
    stripes = jnp.where(jnp.sin(1.6 * u) > 0, 1.0, 4.0)
    drawn = [
        (_triangle(u, v, (13, -10), (19, -7), (13, -4)), (1.0, 0.3, -1.0)),
        (_oval(u - 16, v + 7, 4.5, 1.4), (1.0, 1.0, -0.8)),
        (_disc(u - 14.5, v + 5.5, 2.8), (-0.8, -0.4, 1.0)),
        (_disc(u - 10, v + 8, 2.0), (-1.0, -1.0, -1.0)),
        (_disc(u - 10, v + 8, 2.4), (1.0, 1.0, 1.0)),
        (_box(u - 10, v + 8, 2.0, 2.0), (1.0, -0.9, -0.9)),
        (_box(jnp.abs(u) - 3, v - 10, 1.0, 4.5), (1.0, 0.3, -1.0)),
        (_triangle(u, v, (0, 5), (6, 14), (-6, 14)), (-0.9, -0.2, 1.0)),
        (_box(u, v - 10, 2.2, 4.5), (-0.9, 0.6, -0.9)),
        (_triangle(u, v, (-8, -1), (-18, 4), (-18, -8)), (1.0, -0.8, -0.8)),
        (_box(u + 13.5, v + 1, 5.5, 1.5), (-0.9, 0.9, 0.9)),
        (_disc(u + 13.5, v + 3, 4.2), (0.9, -0.8, 0.9)),
        (_oval(u + 1, v + 0.5, 6.0, 3.8), (-0.8, 0.7, -0.8)),
        (_triangle(u, v, (-7, -4), (6, -3), (-2, 5.5)), (0.3, -0.9, 0.8)),
        (_box(u + 1, v, 4.5, 3.2) * stripes, (1.0, 0.9, -0.9)),
    ]
    distances = jnp.stack([distance for distance, _ in drawn])
    colours = jnp.array([colour for _, colour in drawn])
    return distances.reshape(len(PARTS), VARIANTS, SIDE, SIDE), colours.reshape(len(PARTS), VARIANTS, 3)


def render(scene: Scene, parts: jax.Array, objects: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw one scene.

    Args:
        scene: Of one image.
        parts: Which of the five parts are there, bool [5].
        objects: Which of the eight objects are there, bool [8].

    Returns:
        The image, float32 [48, 48, 3], and what each pixel shows, int32 [48, 48]: 0 body and background, 1 to
        5 the parts, 6 to 13 the objects.
    """
    y, x = jnp.mgrid[:SIDE, :SIDE]
    image = jnp.broadcast_to(scene.ground, (SIDE, SIDE, 3))
    shown = jnp.zeros((SIDE, SIDE), jnp.int32)

    def paint(image, shown, distance, colour, number, there):
        cover = jnp.clip(0.5 - distance, 0, 1) * there
        image = image + cover[..., None] * (colour - image)
        return image, jnp.where(cover > 0.5, number, shown)

    for number in range(OBJECTS):
        row, column, radius, round_, *colour = scene.objects[number]
        round_shape, square = _disc(x - column, y - row, radius), _box(x - column, y - row, radius, radius)
        distance = jnp.where(round_ > 0.5, round_shape, square)
        image, shown = paint(
            image, shown, distance, jnp.stack(colour), 1 + len(PARTS) + number, objects[number]
        )
    row, column, scale = scene.place
    u, v = (x - column) / scale, (y - row) / scale
    code = jnp.asarray(classes())[scene.label]
    distances, colours = _shapes(u, v)
    order = [PARTS.index(name) for name in ("tail", "foot", "wing", "beak", "eye")]
    body = jnp.minimum(_oval(u, v, 10.0, 7.0), _disc(u - 9, v + 7, 5.0))
    for number in order[:2]:
        image, shown = paint(
            image,
            shown,
            distances[number, code[number]],
            colours[number, code[number]],
            1 + number,
            parts[number],
        )
    image, shown = paint(image, shown, body, scene.tint, 0, True)
    for number in order[2:]:
        image, shown = paint(
            image,
            shown,
            distances[number, code[number]],
            colours[number, code[number]],
            1 + number,
            parts[number],
        )
    noise = 0.05 * jax.random.normal(scene.grain, image.shape)
    return jnp.clip(image + noise, -1, 1), shown


def whole(scene: Scene) -> tuple[jax.Array, jax.Array]:
    """Draw scenes with all that is in them: images [number, 48, 48, 3] and what their pixels show."""
    number = len(scene.label)
    return jax.vmap(render)(scene, jnp.ones((number, len(PARTS)), bool), jnp.ones((number, OBJECTS), bool))


def complete(key: jax.Array, number: int) -> Flock:
    """Draw birds that have all their parts."""
    scene = scenes(key, number)
    return Flock(whole(scene)[0], jax.nn.one_hot(scene.label, CLASSES))


def training(key: jax.Array, number: int) -> Flock:
    """Draw birds of which parts are left out, so that a network has seen what protocols show it."""
    scene = scenes(key, number)
    keys = jax.random.split(jax.random.fold_in(key, number), 2)
    parts = jax.random.bernoulli(keys[0], 1 - LEFT_OUT, (number, len(PARTS)))
    objects = jax.random.bernoulli(keys[1], 0.8, (number, OBJECTS))
    images, _ = jax.vmap(render)(scene, parts, objects)
    table = jnp.asarray(classes())
    fits = ((table == table[scene.label][:, None]) | ~parts[:, None]).all(-1)
    return Flock(images, fits / fits.sum(-1, keepdims=True))
