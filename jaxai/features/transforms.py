"""Random transforms between an image and the network, which make visualizations robust to small changes.

All geometry (jitter, scale, rotation, crop, flip, blur) is one linear warp of static shape. An affine map is
done in two passes, along the rows and along the columns; each pass shears by a logarithmic shifter (whole
pixels by selects of shifted copies, the fraction linearly) and scales by small interpolation matrices, of
blocks of a line where pixels cannot move far. So there is no gather forward and no scatter backward, shapes
never change, and every image has its own draw.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._cpu import threefry
from .._frame import checks

# Samples whose interpolation is one small matrix.
_BLOCK = 56


class Draw(NamedTuple):
    """The random draw for an image (or, with a leading axis, for several)."""

    matrix: jax.Array
    """[2, 2], maps an output pixel (row, column, from the centre) to the input's."""
    offset: jax.Array
    """[2], the input position of the output's centre, from the input's centre, in pixels."""
    blur: jax.Array
    """Standard deviation of the blur in output pixels."""
    color: jax.Array
    """[3]: brightness added, contrast and saturation multiplied."""
    key: jax.Array
    """The key of the noise."""


@dataclass(frozen=True)
class Transforms:
    """Ranges of random transforms; hashable, so that it is a static part of a compiled program.

    Lengths are fractions of the image's smaller side, so that a recipe made for 224 pixels also works for 32.

    Attributes:
        jitter: Widths of the range of a shift in whole pixels, before and after scale and rotation.
        scales: Magnifications, all equally likely.
        angles: Rotations in degrees, below 90 either way, all equally likely.
        crop: Smallest and largest part of the image's side to show, magnified to the output; None shows the
            whole image at its own size. The centre is drawn around the image's with standard deviation 0.15.
        flip: Whether to mirror left and right half of the time.
        blur: Largest standard deviation of a Gaussian blur, drawn uniformly, in pixels.
        noise: Standard deviation of normal noise, with uniform noise of as much amplitude: those of MACO.
        brightness: Largest brightness added or taken.
        contrast: Largest change of contrast, as a fraction.
        saturation: Largest change of saturation, as a fraction.
        fill: Value outside the image.
        output: Side of the square output in pixels; None means the size of the image. It is cut out around
            the centre, unless `crop` is given, which resizes: `crop=(1.0, 1.0)` fits all of the image.
    """

    jitter: tuple[float, float] = (0.0, 0.0)
    scales: tuple[float, ...] = (1.0,)
    angles: tuple[float, ...] = (0.0,)
    crop: tuple[float, float] | None = None
    flip: bool = False
    blur: float = 0.0
    noise: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    fill: float = 0.5
    output: int | None = None

    def __post_init__(self):
        if min(self.jitter) < 0 or len(self.jitter) != 2:
            raise ValueError(f"`jitter` must be two fractions of the side, at least 0; got {self.jitter!r}")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"`scales` must be positive; got {self.scales!r}")
        if not self.angles or max(map(abs, self.angles)) >= 90:
            raise ValueError(f"`angles` must lie between -90 and 90 degrees; got {self.angles!r}")
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1]:
            raise ValueError(f"`crop` must be (smallest, largest) part of the side; got {self.crop!r}")
        if min(self.blur, self.noise, self.brightness, self.contrast, self.saturation) < 0:
            raise ValueError("`blur`, `noise` and the changes of colour must be at least 0")
        if self.output is not None:
            checks.positive(self.output, "output")

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the output's size (rows, columns) for images of `size`."""
        return size if self.output is None else (self.output, self.output)


# Offsets and angles that Lucid draws from; a zero angle is more likely than another.
LUCID = Transforms(
    jitter=(8 / 224, 4 / 224),
    scales=tuple(1 + (i - 5) / 50 for i in range(11)),
    angles=(*map(float, range(-10, 11)), *(0.0,) * 5),
)
# Wider ranges, so that what is found is large, repeated or both, and other networks see it too.
WIDE = Transforms(
    jitter=(64 / 224, 16 / 224),
    scales=tuple(round(0.5 + 0.05 * i, 2) for i in range(21)),
    angles=tuple(map(float, range(-20, 21))),
)
NONE = Transforms()


def draw(
    config: Transforms, key: jax.Array, size: tuple[int, int], progress: jax.Array | None = None
) -> Draw:
    """Draw transforms for one image.

    Args:
        config: The ranges.
        key: Typed key.
        size: The image's (rows, columns).
        progress: Position in the run, 0 to 1. If given, the part that a crop shows is its range's end at 0
            and its start at 1, with a normal deviation of 0.05 (MACO's), instead of uniform in the range.
    """
    # One call of the generator: each would be compiled on its own.
    numbers = jax.random.uniform(key, (12,), jnp.float32)
    out = config.size(size)
    before, after = (
        _whole(numbers[2 * i : 2 * i + 2], width) for i, width in enumerate(_jitter(config, size))
    )
    scale = _choice(numbers[4], config.scales)
    angle = jnp.deg2rad(_choice(numbers[5], config.angles))
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])]) / scale
    offset = matrix @ after + before
    if config.crop is not None:
        low, high = config.crop
        wander = jax.random.normal(jax.random.fold_in(key, 1), (3,), jnp.float32)
        if progress is None:
            part = low + (high - low) * numbers[6]
        else:
            part = high + (low - high) * progress + 0.05 * wander[0] * float(low < high)
            part = jnp.clip(part, min(low, 0.05), max(high, 1.0))
        sides = jnp.asarray(size, jnp.float32)
        matrix = part * (sides / jnp.asarray(out, jnp.float32))[:, None] * matrix
        if low < 1:
            offset += 0.15 * sides * wander[1:]
    if config.flip:
        matrix = matrix * jnp.where(numbers[7] < 0.5, jnp.array([1.0, -1.0]), 1.0)
    reach = jnp.array([config.brightness, config.contrast, config.saturation])
    color = reach * (2 * numbers[8:11] - 1) + jnp.array([0.0, 1.0, 1.0])
    return Draw(matrix, offset, config.blur * numbers[11], color, jax.random.fold_in(key, 2))


def _jitter(config, size):
    """Return the widths of the two jitters in pixels."""
    return [round(max(part * min(size), 1.0)) if part else 0 for part in config.jitter]


def _whole(numbers, width):
    """Return whole pixels in a range of `width` around zero, of numbers in [0, 1)."""
    return jnp.floor(numbers * (width + 1)) - width // 2


def _choice(number, values):
    index = jnp.floor(number * len(values)).astype(jnp.int32)
    return jnp.asarray(values, jnp.float32)[jnp.minimum(index, len(values) - 1)]


def apply(
    config: Transforms, draws: Draw, images: Float[Array, "batch height width channels"]
) -> Float[Array, "batch rows columns channels"]:
    """Transform images as drawn, each by its own draw.

    Args:
        config: The ranges, which bound how far pixels can move.
        draws: A draw for each image, stacked along a first axis.
        images: Images in [0, 1].
    """
    size = (images.shape[1], images.shape[2])
    moves = config.jitter != (0, 0) or config.scales != (1.0,) or config.angles != (0.0,)
    if moves or config.crop or config.flip or config.blur or config.size(size) != size:
        images = _warp(config, draws, images)
    if config.brightness or config.contrast or config.saturation:
        images = _recolor(draws.color, images)
    if config.noise:
        images = images + config.noise * jax.vmap(partial(_noise, images.shape[1:]))(draws.key)
    return images


def _noise(shape, key):
    normal, uniform = jax.random.split(key)
    return threefry.normal(normal, shape) + threefry.uniform(uniform, shape, -1, 1)


def _recolor(color, images):
    brightness, contrast, saturation = (color[:, i, None, None, None] for i in range(3))
    grey = images.mean(-1, keepdims=True)
    images = grey + saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdims=True)
    return mean + contrast * (images - mean) + brightness


def _warp(config, draws, images):
    """Sample images at matrix @ p + offset for each output pixel p, both counted from the centres.

    With v, u the output's row and column and y, x the input's, y = a v + b u + f and x = c v + d u + e give
    x = (d - c b / a) u + (c / a)(y - f) + e: first along each row y, then along each column u.
    """
    batch, height, width, channels = images.shape
    rows, columns = config.size((height, width))
    a, b = draws.matrix[:, 0, 0], draws.matrix[:, 0, 1]
    c, d = draws.matrix[:, 1, 0], draws.matrix[:, 1, 1]
    f, e = draws.offset[:, 0], draws.offset[:, 1]
    blur = draws.blur if config.blur else None
    first, second = _reaches(config, (height, width), (rows, columns))
    near, far = _wanders(config, (height, width), (rows, columns))

    x: Any = (images - config.fill).transpose(0, 3, 1, 2).reshape(batch, channels * height, width)
    y = jnp.tile(_centered(height), channels)
    x = _pass(x, y[None] * (c / a)[:, None], d - c * b / a, e - c / a * f, columns, first, near, blur)
    x = x.reshape(batch, columns * channels, height)
    u = jnp.repeat(_centered(columns), channels)
    x = _pass(x, u[None] * b[:, None], a, f, rows, second, far, blur)
    return x.reshape(batch, rows, columns, channels) + config.fill


def _reaches(config, size, out):
    """Return by how many whole pixels the shears of the two passes can shift at most."""
    steepest = math.radians(max(map(abs, config.angles)))
    if steepest == 0:
        return 0, 0
    zoom = 1 / min(config.scales)
    if config.crop:
        # A row's and a column's magnification differ unless the image is of the output's shape.
        zoom *= max(config.crop[1], 1.0) * max(size[0] / out[0], size[1] / out[1])
        aspect = max(size[1] * out[0] / (size[0] * out[1]), 1.0)
    else:
        aspect = 1.0
    first = math.tan(steepest) * aspect * size[0] / 2
    second = math.sin(steepest) * zoom * out[1] / 2
    return math.ceil(first) + 1, math.ceil(second) + 1


def _wanders(config, size, out):
    """Return how far the two passes' scales and offsets can move a pixel that lies between the centres."""
    if config.crop or config.flip:
        return math.inf, math.inf
    steepest = math.radians(max(map(abs, config.angles)))
    smallest, largest = min(config.scales), max(config.scales)
    before, after = ((width + 1) // 2 for width in _jitter(config, size))
    offset = before + (math.cos(steepest) + math.sin(steepest)) / smallest * after
    ranges = (
        (1 / largest, 1 / (smallest * math.cos(steepest)), (1 + math.tan(steepest)) * offset, out[1]),
        (math.cos(steepest) / largest, 1 / smallest, offset, out[0]),
    )
    # One more, since a sample mixes two pixels.
    return tuple(max(1 - low, high - 1) * (count - 1) / 2 + moved + 1 for low, high, moved, count in ranges)


def _pass(x: Any, shifts, scale, offset, count, reach, wander, blur):
    """Sample lines [batch, lines, length] at scale * u + offset + the line's shift: [batch, count, lines]."""
    length = x.shape[-1]
    if reach:
        x = _shift(x, shifts, length + 2 * reach, -reach, reach)
    positions = scale[:, None] * _centered(count)[None] + offset[:, None] + (length - 1) / 2 + reach
    if blur is not None:
        weights = _gaussian(blur, count) @ _linear(positions, 0, x.shape[-1])
        return jnp.einsum("bul,brl->bur", weights, x)
    return _sample(x, positions, (length - count) / 2 + reach, wander)


def _linear(positions, low, high):
    """Return the weights [batch, count, high - low] that interpolate pixels low to high at positions."""
    return jnp.maximum(
        1 - jnp.abs(positions[..., None] - jnp.arange(low, high, dtype=jnp.float32)[None, None]), 0
    )


def _blocks(count, length, first, wander):
    """Return for each block of samples: its start and stop, and those of the pixels that it can see."""
    # A matrix of all samples and pixels is at most as much work where blocks see nearly everything.
    size = _BLOCK if _BLOCK + 2 * wander < 0.75 * length else count
    blocks = []
    for start in range(0, count, size):
        stop = min(start + size, count)
        low = max(start + first - wander, 0)
        high = min(stop - 1 + first + wander + 1, length)
        low = min(math.floor(low), length - 1)
        blocks.append((start, stop, low, max(math.ceil(high), low + 1)))
    return blocks


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sample(x, positions, first, wander):
    """Sample lines [batch, lines, length] linearly at positions [batch, count]: [batch, count, lines].

    Args:
        x: Lines; zero outside.
        positions: Where, in pixels; at most `wander` from `first + index`. No gradient goes to them.
        first: Where the first sample would lie if it did not move.
        wander: Bound of the moves; may be infinite.
    """
    parts = [
        jnp.einsum("bul,brl->bur", _linear(positions[:, start:stop], low, high), x[..., low:high])
        for start, stop, low, high in _blocks(positions.shape[1], x.shape[2], first, wander)
    ]
    return jnp.concatenate(parts, 1)


def _sample_forward(x, positions, first, wander):
    return _sample(x, positions, first, wander), (positions, x.shape[-1])


def _sample_backward(first, wander, residuals, cotangent):
    # Block by block of the pixels, so that no block's gradient has to be added to another's.
    positions, length = residuals
    parts = [
        jnp.einsum("bul,bur->brl", _linear(positions[:, low:high], start, stop), cotangent[:, low:high])
        for start, stop, low, high in _blocks(length, positions.shape[1], -first, wander)
    ]
    return jnp.concatenate(parts, -1), jnp.zeros_like(positions)


_sample.defvjp(_sample_forward, _sample_backward)


def _centered(count):
    return jnp.arange(count, dtype=jnp.float32) - (count - 1) / 2


def _gaussian(deviation, count):
    """Return matrices [batch, count, count] that blur a line, with weights that sum to one inside it."""
    distance = _centered(count)[:, None] - _centered(count)
    weights = jnp.exp(-0.5 * jnp.square(distance / jnp.maximum(deviation, 1e-3)[:, None, None]))
    return weights / weights.sum(-1, keepdims=True)


def _shift_plain(x, shifts, count, first, reach):
    whole = jnp.floor(shifts)
    fraction = (shifts - whole)[..., None].astype(x.dtype)
    code = (whole.astype(jnp.int32) + reach)[..., None]
    bits = (2 * reach).bit_length()
    left = reach - first
    right = count + 1 + (1 << bits) - 1 - left - x.shape[-1]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 1) + [(left, right, 0)])
    for bit in reversed(range(bits)):
        step = 1 << bit
        # Fused, the chain of selects would read two to the power of its length values per pixel.
        x = jax.lax.optimization_barrier(jnp.where((code >> bit) & 1 == 1, x[..., step:], x[..., :-step]))
    return (1 - fraction) * x[..., :-1] + fraction * x[..., 1:]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _shift(x, shifts, count, first, reach):
    """Sample lines [..., length] at i + first + shift, i = 0 ... count - 1, linearly; zero outside.

    Args:
        x: Lines.
        shifts: A shift for each line, at most `reach` either way.
        count: How many samples.
        first: Position of the first sample of a line that is not shifted.
        reach: Bound of the shifts.
    """
    return _shift_plain(x, shifts, count, first, reach)


def _shift_forward(x, shifts, count, first, reach):
    return _shift_plain(x, shifts, count, first, reach), (shifts, x.shape[-1])


def _shift_backward(count, first, reach, residuals, cotangent):
    # The adjoint of a shift with zeros outside is the opposite shift.
    shifts, length = residuals
    return _shift_plain(cotangent, -shifts, length, -first, reach + 1), jnp.zeros_like(shifts)


_shift.defvjp(_shift_forward, _shift_backward)
