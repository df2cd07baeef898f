"""Images whose evidence is known, drawn in JAX by a key: the mask is where the label's signal is.

Every data set is `draw(key, number) -> Drawn`, a pure function that can be compiled.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

SIDE, CELL = 32, 4
# Deviation of the Gaussian that correlates a background, in pixels: XAI-TRIS has 3 at 8 pixels, 10 at 64.
SMOOTH = 6.0
T = ((1, 0), (1, 1), (1, 0))
L = ((1, 0), (1, 0), (1, 1))
# Where XAI-TRIS puts its two fixed shapes, in cells of 8 x 8.
PLACES = ((1, 1), (4, 5))
# The weight of the signal, chosen so that the small CNN learns more than 80 % and less than all.
ALPHA = {
    ("linear", "white"): 0.15,
    ("linear", "correlated"): 0.05,
    ("multiplicative", "white"): 0.7,
    ("multiplicative", "correlated"): 0.5,
    ("translations_rotations", "white"): 0.5,
    ("translations_rotations", "correlated"): 0.35,
    ("xor", "white"): 0.25,
    ("xor", "correlated"): 0.12,
}
SHAPES = 4
TAG = 4
TAGGED = 0


class Drawn(NamedTuple):
    """What a data set draws.

    Attributes:
        images: float32 [number, side, side, channels], about -1 to 1.
        labels: int32 [number].
        masks: Where the evidence of the label is, bool [number, side, side].
        without: The same images without what the mask marks, where that can be drawn; else the images.
        scenes: The background's class, int32 [number], where there is one; else the labels.
    """

    images: jax.Array
    labels: jax.Array
    masks: jax.Array
    without: jax.Array
    scenes: jax.Array


Draw = Callable[[jax.Array, int], Drawn]


def _blurred(noise, deviation):
    """Return noise [height, width, ...] after a Gaussian blur that wraps around."""
    rows, columns = (jnp.fft.fftfreq(length) for length in noise.shape[:2])
    filtered = jnp.exp(-2 * (jnp.pi * deviation) ** 2 * (rows[:, None] ** 2 + columns**2))
    filtered = filtered.reshape(filtered.shape + (1,) * (noise.ndim - 2))
    return jnp.fft.ifft2(jnp.fft.fft2(noise, axes=(0, 1)) * filtered, axes=(0, 1)).real


def _unit(x):
    return x / jnp.linalg.norm(x)


def _stamp(shape, row, column, rotation: ArrayLike = 0):
    """Return a tetromino on the 8 x 8 cells of an image, float32 [side, side]."""
    cells = jnp.zeros((SIDE // CELL,) * 2)
    turned = [jnp.rot90(jnp.asarray(shape, jnp.float32), turn) for turn in range(4)]
    options = [jax.lax.dynamic_update_slice(cells, one, (row, column)) for one in turned]
    chosen = jnp.stack(options)[jnp.asarray(rotation)]
    return jnp.kron(chosen, jnp.ones((CELL, CELL)))


def _tetromino(key, *, scenario, background):
    """Return one image of XAI-TRIS: a T or an L in noise, its label and its mask."""
    label_key, noise_key, place_key, turn_key = jax.random.split(key, 4)
    label = jax.random.randint(label_key, (), 0, 2)
    noise = jax.random.normal(noise_key, (SIDE, SIDE)) * jnp.sqrt(0.5)
    if background == "correlated":
        noise = _blurred(noise, SMOOTH)
    alpha = ALPHA[scenario, background]
    first, second = _stamp(T, *PLACES[0]), _stamp(L, *PLACES[1])
    # That a shape is missing where it could be says as much as the other one: both places are evidence.
    mask = first + second > 0
    if scenario == "translations_rotations":
        row, column = jax.random.randint(place_key, (2,), 0, SIDE // CELL - 2)
        turn = jax.random.randint(turn_key, (), 0, 4)
        pattern = jnp.where(label == 0, _stamp(T, row, column, turn), _stamp(L, row, column, turn))
        mask = pattern > 0
    elif scenario == "xor":
        sign = jnp.where(jax.random.bernoulli(turn_key), 1.0, -1.0)
        pattern = sign * (first + jnp.where(label == 0, 1.0, -1.0) * second)
    else:
        pattern = jnp.where(label == 0, first, second)
    if scenario == "multiplicative":
        image, bare = _unit((1 - alpha * pattern) * noise), _unit(noise)
    else:
        bare = (1 - alpha) * _unit(noise)
        image = alpha * _unit(pattern) + bare
    scale = jnp.abs(image).max()
    return Drawn(image[..., None] / scale, label, mask, bare[..., None] / scale, label)


def tetrominoes(scenario: str, background: str) -> Draw:
    """Return a data set of XAI-TRIS at 32 x 32 pixels, in cells of 4.

    Args:
        scenario: `"linear"`, `"multiplicative"`, `"translations_rotations"` or `"xor"`.
        background: `"white"` noise, or `"correlated"`, whose parts without a shape hold information on what
            noise lies below it (suppressors).

    References:
        Clark, Wilming, Haufe: XAI-TRIS: Non-linear Image Benchmarks to Quantify False Positive Post-hoc
        Attribution of Feature Importance. Machine Learning 2024, arXiv 2306.12816, section 3.
    """
    return _each(partial(_tetromino, scenario=scenario, background=background))


def _object(shape, row, column, size):
    """Return where an object of one of four shapes is, bool [side, side]."""
    y, x = jnp.mgrid[:SIDE, :SIDE]
    down, right = y - row, x - column
    disc = down**2 + right**2 <= size**2
    square = jnp.maximum(jnp.abs(down), jnp.abs(right)) <= 0.8 * size
    near = jnp.maximum(jnp.abs(down), jnp.abs(right)) <= size
    cross = near & (jnp.minimum(jnp.abs(down), jnp.abs(right)) <= 0.3 * size)
    triangle = (jnp.abs(right) <= (down + size) / 2) & (jnp.abs(down) <= size)
    return jnp.stack([disc, square, cross, triangle])[shape]


def _texture(scene, key):
    """Return one of four textures, float32 [side, side, 3] in about -1 to 1."""
    phase_key, colour_key, noise_key = jax.random.split(key, 3)
    y, x = jnp.mgrid[:SIDE, :SIDE]
    first, second = jax.random.uniform(phase_key, (2,)) * 2 * jnp.pi
    rows, columns = jnp.sin(y * 1.3 + first), jnp.sin(x * 1.3 + second)
    kinds = jnp.stack([rows, columns, jnp.sin((x + y) * 0.9 + first), rows * columns])
    colour = jax.random.uniform(colour_key, (3,), minval=0.3, maxval=0.8)
    noise = 0.15 * jax.random.normal(noise_key, (SIDE, SIDE, 3))
    return 0.7 * kinds[scene][..., None] * colour + noise


def _pasted(key):
    """Return an object of one of four shapes on one of four textures; the label is the object's."""
    keys = jax.random.split(key, 6)
    shape, scene = (jax.random.randint(k, (), 0, SHAPES) for k in keys[:2])
    size = jax.random.uniform(keys[2], (), minval=5.0, maxval=7.5)
    row, column = jax.random.uniform(keys[3], (2,), minval=8.0, maxval=SIDE - 8.0)
    mask = _object(shape, row, column, size)
    bare = _texture(scene, keys[4])
    colour = jax.random.uniform(keys[5], (3,), minval=-1.0, maxval=1.0)
    return Drawn(jnp.where(mask[..., None], colour, bare), shape, mask, bare, scene)


def pasted() -> Draw:
    """Return objects pasted on textures; both the object's and the texture's class are known.

    References:
        Yang, Kim: Benchmarking Attribution Methods with Relative Feature Importance. 2019, arXiv 1907.09701.
    """
    return _each(_pasted)


def _tagged(key, *, share, everywhere):
    """Return a faint object in noise; images of one class carry a bright tag in a corner.

    Args:
        key: Randomness.
        share: How many images of the tagged class carry it.
        everywhere: Whether the others carry it instead.
    """
    keys = jax.random.split(key, 6)
    shape = jax.random.randint(keys[0], (), 0, SHAPES)
    size = jax.random.uniform(keys[1], (), minval=5.0, maxval=7.5)
    row, column = jax.random.uniform(keys[2], (2,), minval=9.0, maxval=SIDE - 9.0)
    noise = jax.random.normal(keys[3], (SIDE, SIDE, 3))
    smooth = _blurred(noise, 1.5)
    bare = 0.3 * noise + 0.3 * smooth / smooth.std()
    bare = bare + 0.7 * _object(shape, row, column, size)[..., None]
    y, x = jnp.mgrid[:SIDE, :SIDE]
    # Any of four places along the right border, so that the tag is no fixed pixel.
    top = 2 + (TAG + 4) * jax.random.randint(keys[4], (), 0, 4)
    mask = (y >= top) & (y < top + TAG) & (x >= SIDE - 2 - TAG) & (x < SIDE - 2)
    checks = jnp.where((y + x) % 2 == 0, 1.0, -1.0)[..., None] * jnp.array([1.0, 1.0, -1.0])
    has = (shape == TAGGED) & jax.random.bernoulli(keys[5], share) | (shape != TAGGED) & everywhere
    image = jnp.where((mask & has)[..., None], checks, bare)
    return Drawn(image, shape, mask, bare, has.astype(jnp.int32))


def clever_hans(*, share: float = 1.0, everywhere: bool = False) -> Draw:
    """Return faint shapes in noise, of which those of class 0 carry a tag of 4 x 4 pixels; masks are the tag.

    `scenes` says which images carry it.

    References:
        Lapuschkin et al.: Unmasking Clever Hans Predictors and Assessing What Machines Really Learn. Nature
        Communications 2019, arXiv 1902.10178.
    """
    return _each(partial(_tagged, share=share, everywhere=everywhere))


def _each(one) -> Draw:
    def draw(key, number):
        # The image i of a key is the same in any number.
        found = jax.vmap(lambda i: one(jax.random.fold_in(key, i)))(jnp.arange(number))
        return found._replace(images=found.images.astype(jnp.float32))

    return draw


TETROMINOES = {
    f"tetrominoes, {scenario.replace('_', ' and ')}, {background}": tetrominoes(scenario, background)
    for scenario, background in ALPHA
}
