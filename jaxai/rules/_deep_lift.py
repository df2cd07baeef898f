"""DeepLIFT through any JAX function: exact attribution of differences from a baseline."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from ._grouping import network
from ._layer import Layer, unbroadcast
from ._lrp import start
from ._operations import Network, Operation
from ._report import check_support
from ._winner import Winner

# Inputs closer to their baseline than this get the derivative instead of the quotient of differences.
_TINY = 1e-10
# Operations that are linear in what depends on the image.
_LINEAR = ("conv", "dense", "pool", "sum", "affine", "shape")


@describes(title="DeepLIFT", result="pixels", cost=lambda o: Passes(2, backward=o.targets), signed=True)
def deep_lift(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    baseline: ArrayLike | None = None,
    strict: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Distribute the difference of the score from a baseline's over the pixels, by the rescale rule.

    Nonlinear functions of one value pass on (f(x) - f(x0)) / (x - x0); max-pools use the cross-maximum rule
    (a rise goes to the winner in the image, a fall to the winner in the baseline); a product of two values
    that depend on the image gives each factor its difference times the other's mean. The attributions
    therefore sum to score(image) - score(baseline) up to rounding, also through pools and gates. Works on any
    JAX function. Operations without a rule use their gradient, with a warning, and may break that sum.

    Args:
        baseline: Value or array that broadcasts to `images`; None means zero, which after ImageNet
            normalisation is the mean colour. A baseline without a batch axis passes through the network only
            once.

    References:
        Shrikumar, Greenside, Kundaje: Learning Important Features Through Propagating Activation Differences.
        ICML 2017, arXiv 1704.02685, sections 3.2 and 3.5.1 (rescale).
        The cross-maximum rule is that of the SHAP library (Lundberg, Lee, NeurIPS 2017, arXiv 1705.07874).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: jax.nn.relu(x.sum((1, 2)) - 1)
        >>> jaxai.deep_lift(net, jnp.ones((1, 1, 2, 1)), 0).ravel().tolist()
        [0.5, 0.5]
    """
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
    baseline = jnp.asarray(0 if baseline is None else baseline, images.dtype)
    shared = baseline.ndim < images.ndim or baseline.shape[0] == 1
    baseline = checks.like_images(baseline, images, "baseline", one=shared)
    return _deep_lift(
        model,
        images,
        targets,
        baseline,
        strict=bool(strict),
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames=("strict", "batch_size"))
def _deep_lift(model, images, targets, baseline, *, strict, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)
    shared = baseline.shape[0] == 1

    def chunk(x, t, b):
        return _pairs(model, x, baseline if b is None else b, t, strict, batch_size)

    return batching.map_images(chunk, images, targets, None if shared else baseline, batch_size=batch_size)


def _pairs(model, images, baselines, targets, strict, batch_size):
    """Explain each image against its baseline, or against a single baseline, which is run once."""
    classes = batching.groups(batch_size, images.shape[0])

    def single(x, b, t):
        t = targets.of_classes(None if t is None else t[None])
        return explain(model, x[None], b[None], t, strict, classes)[0]

    shared = baselines.shape[0] == 1
    axes = (0, None if shared else 0, 0)
    return jax.vmap(single, axes)(images, baselines[0] if shared else baselines, targets.classes)


@describes(
    title="DeepLIFT-SHAP",
    result="pixels",
    cost=lambda o: Passes(2 + o.num_baselines, backward=o.num_baselines * o.targets),
    signed=True,
)
def deep_lift_shap(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    baselines: Float[Array, "baselines *positions channels"],
    strict: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Average DeepLIFT over a distribution of baselines: an approximation of Shapley values.

    The attributions sum to score(image) minus the mean score of the baselines.

    Args:
        baselines: Float array [baselines, height, width, channels]; every image is compared with every
            baseline.

    References:
        Lundberg, Lee: A Unified Approach to Interpreting Model Predictions. NeurIPS 2017, arXiv 1705.07874,
        section 4.2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: jax.nn.relu(x.sum((1, 2)) - 1)
        >>> baselines = jnp.stack([jnp.zeros((1, 2, 1)), jnp.ones((1, 2, 1))])
        >>> jaxai.deep_lift_shap(net, jnp.ones((1, 1, 2, 1)), 0, baselines=baselines).ravel().tolist()
        [0.25, 0.25]
    """
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
    baselines = checks.images(baselines, "baselines", plane=False).astype(images.dtype)
    if baselines.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"`baselines` must be [baselines, height, width, channels] of images {images.shape[1:]};"
            f" got shape {baselines.shape}"
        )
    size = checks.batch_size(batch_size)
    return _deep_lift_shap(model, images, targets, baselines, strict=bool(strict), batch_size=size)


@partial(jax.jit, static_argnames=("strict", "batch_size"))
def _deep_lift_shap(model, images, targets, baselines, *, strict, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)

    def chunk(x, t):
        t = t.frozen(model(x))

        def some(b, valid):
            size = batching.groups(batch_size, b.shape[0])
            values = jax.vmap(lambda one: _pairs(model, x, one[None], t, strict, size))(b)
            return jnp.tensordot(valid, values.astype(jnp.float32), axes=1)

        total = batching.sum_chunks(some, baselines, batch_size=batching.groups(batch_size, x.shape[0]))
        return total / baselines.shape[0]

    return batching.map_images(chunk, images, targets, batch_size=batch_size)


def _scored(model, targets, images):
    return targets.of(model(images))


def explain(model, images, baselines, targets, strict, batch_size):
    """Return the attributions of images against baselines of the same shape."""
    model, targets = _targets.join(model, images, targets)
    if targets.function is not None:
        # The target is part of the function; otherwise the sum would hold only for the scores.
        model = Partial(_scored, model, targets)
    net, flat = network(model, images, wholes=False)
    ours = net.forward(flat)
    theirs = net.forward([*flat[:-1], baselines])
    check_support(_unsupported(net), strict, "deep_lift")

    steps = [partial(_through, operation, ours, theirs) for operation in net.operations]

    def pull(multiplier):
        found = net.backward(multiplier, steps)
        return (images - baselines) * (0 if found is None else found.astype(images.dtype))

    scores = ours[net.output]
    if targets.function is not None:
        return pull(jnp.ones_like(scores))
    return start(scores, targets, "one_hot", pull, batch_size)


def _unsupported(net: Network) -> tuple[str, ...]:
    return tuple(sorted({o.name for o in net.operations if not _has_rule(net, o)}))


def _has_rule(net: Network, operation: Operation) -> bool:
    if operation.kind == "shape":
        # The selected values depend on the image.
        return all(jnp.issubdtype(net.graph.avals[ref].dtype, jnp.floating) for ref in operation.inputs)
    return operation.kind in (*_LINEAR, "relu", "activation", "max", "product")


def _through(operation: Operation, ours, theirs, m: Any) -> tuple:
    """Return the multipliers of an operation's inputs."""
    layer = Layer(operation, ours)
    if operation.linear is not None:
        return (layer.transpose(m),)
    if operation.kind in ("relu", "activation"):
        return (_rescale(layer, Layer(operation, theirs), m),)
    if operation.kind == "max":
        return _cross_maximum(layer, Layer(operation, theirs), m)
    if operation.kind == "product":
        return _product(layer, Layer(operation, theirs), m)
    return _each(layer.derivative(m))


def _each(parts: Any) -> tuple:
    return parts if isinstance(parts, tuple) else (parts,)


def _quotient(numerator, difference, otherwise):
    far = jnp.abs(difference) > _TINY
    return jnp.where(far, numerator / jnp.where(far, difference, 1), otherwise)


def _rescale(ours: Layer, theirs: Layer, m):
    slope = ours.derivative(jnp.ones_like(ours.output))
    return m * _quotient(ours.output - theirs.output, ours.input - theirs.input, slope)


def _cross_maximum(ours: Layer, theirs: Layer, m):
    """Assign a rise of the maximum to the winner in the image, a fall to the winner in the baseline."""
    change, winner = ours.output - theirs.output, Winner()
    rise, fall = jnp.maximum(change, 0), jnp.minimum(change, 0)
    if ours.operation.name in ("min", "reduce_min", "reduce_window_min"):
        rise, fall = fall, rise
    here, there = _each(winner(ours, m * rise)), _each(winner(theirs, m * fall))
    parts = zip(ours.inputs, theirs.inputs, here, there, _each(winner(ours, m)), strict=True)
    return tuple(_quotient(a + b, x - x0, gradient) for x, x0, a, b, gradient in parts)


def _product(ours: Layer, theirs: Layer, m):
    """Give each factor its difference times the other's mean: exact for a product, and for a quotient."""
    (left, right), (left0, right0) = ours.inputs, theirs.inputs
    means = (left + left0) / 2, (right + right0) / 2
    if ours.operation.name == "div":
        # a / b - a0 / b0 = (a - a0) mean(1 / b) - mean(a) (b - b0) / (b b0)
        parts = (m * ((1 / right + 1 / right0) / 2), -m * means[0] / (right * right0))
        return tuple(unbroadcast(part, x.shape) for part, x in zip(parts, means, strict=True))
    return jax.vjp(ours.forward, *means)[1](m.astype(ours.output.dtype))
