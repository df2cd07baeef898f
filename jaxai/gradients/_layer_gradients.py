"""Gradient attributions to the activations of a layer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import layers
from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.describe import Passes, describes, one_head
from ._paths import as_baseline, path_nodes


@describes(title="layer gradients", result="layer", cost=one_head, signed=True)
def layer_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    times_activation: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch *k h w features"]:
    """Return the gradient of the score with respect to a layer's activations, or its product with them.

    Args:
        times_activation: Multiply by the activations.

    References:
        As Captum's LayerGradientXActivation.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.layer_gradients(net, x, 1, layer="features", times_activation=True).ravel().tolist()
        [0.0, 0.25, 0.0, 0.75, 0.0, 1.25, 0.0, 1.75]
    """
    model, images, targets = _targets.prepare(model, images, targets)
    return _layer_gradients(
        model,
        images,
        targets,
        layer=layers.resolve(model, layer, images),
        times_activation=bool(times_activation),
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames=("layer", "times_activation", "batch_size"))
def _layer_gradients(model, images, targets, *, layer, times_activation, batch_size):
    def chunk(x, t):
        acts, head = layers.split(model, layer, x)
        grads = t.gradients(head, acts, batch_size=batch_size)[1]
        return _beside(acts, grads) * grads if times_activation else grads

    together = batching.chunk_size(batch_size, model, images)
    return batching.map_images(chunk, images, targets, batch_size=together)


def _beside(acts, grads):
    return acts if acts.ndim == grads.ndim else acts[:, None]


@describes(
    title="layer integrated gradients",
    result="layer",
    cost=lambda o: Passes(2, heads=o.steps + o.steps * o.targets),
    signed=True,
)
def layer_integrated_gradients(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    baseline: ArrayLike | None = None,
    steps: int = 50,
    method: str = "gauss_legendre",
    batch_size: int | None = None,
) -> Float[Array, "batch *k h w features"]:
    """Integrate the gradient along the line between two activations of a layer, times their difference.

    The image and the baseline pass through the network once; only the head is differentiated. The
    attributions sum to score(image) - score(baseline).

    Args:
        method: Quadrature, as in `path_nodes`.

    References:
        Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks. ICML 2017, arXiv 1703.01365,
        equation 1; at a layer as Captum's LayerIntegratedGradients.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.layer_integrated_gradients(net, x, 1, layer="features").round(4).ravel().tolist()
        [0.0, 0.25, 0.0, 0.75, 0.0, 1.25, 0.0, 1.75]
    """
    model, images, targets = _targets.prepare(model, images, targets)
    nodes, weights = path_nodes(steps, method=method)
    return _layer_integrated(
        model,
        images,
        targets,
        as_baseline(baseline, images),
        jnp.asarray(nodes, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        layer=layers.resolve(model, layer, images),
        batch_size=checks.batch_size(batch_size),
    )


@partial(jax.jit, static_argnames=("layer", "batch_size"))
def _layer_integrated(model, images, targets, baseline, nodes, weights, *, layer, batch_size):
    def chunk(x, t, start):
        acts, head = layers.split(model, layer, x)
        origin = layers.Body(model, layer)(start)
        t = t.frozen(head(acts))

        def one(position):
            point = origin + position.astype(acts.dtype) * (acts - origin)
            return t.gradients(head, point)[1].astype(jnp.float32)

        def some(samples, valid):
            positions, weight = samples
            return jnp.tensordot(weight * valid, jax.vmap(one)(positions), axes=1)

        size = batching.groups(batching.chunk_size(batch_size, model, acts), x.shape[0])
        grads = batching.sum_chunks(some, (nodes, weights), batch_size=size)
        return _beside((acts - origin).astype(jnp.float32), grads) * grads

    together = batching.chunk_size(batch_size, model, images)
    return batching.map_images(chunk, images, targets, baseline, batch_size=together)


@describes(
    title="internal influence",
    result="layer",
    cost=lambda o: Passes(1 + o.steps, heads=o.steps * o.targets),
    signed=True,
)
def internal_influence(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    baseline: ArrayLike | None = None,
    steps: int = 50,
    method: str = "gauss_legendre",
    batch_size: int | None = None,
) -> Float[Array, "batch *k h w features"]:
    """Average the gradient with respect to a layer's activations along the line from a baseline to the image.

    Args:
        method: Quadrature.

    References:
        Leino et al.: Influence-Directed Explanations for Deep Convolutional Networks. ITC 2018, arXiv
        1802.03788, definition 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.internal_influence(net, x, 1, layer="features").round(4).ravel().tolist()
        [0.0, 0.25, 0.0, 0.25, 0.0, 0.25, 0.0, 0.25]
    """
    model, images, targets = _targets.prepare(model, images, targets)
    nodes, weights = path_nodes(steps, method=method)
    return _along_input(
        model,
        images,
        targets,
        as_baseline(baseline, images),
        jnp.asarray(nodes, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        layer=layers.resolve(model, layer, images),
        rule="influence",
        batch_size=batching.chunk_size(batch_size, model, images),
    )


RULES = ("trapezoid", "left")


@describes(
    title="conductance",
    result="layer",
    cost=lambda o: Passes(3 + o.steps, heads=(1 + o.steps) * o.targets),
    signed=True,
)
def conductance(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    layer: str | None = None,
    baseline: ArrayLike | None = None,
    steps: int = 50,
    rule: str = "trapezoid",
    batch_size: int | None = None,
) -> Float[Array, "batch *k h w features"]:
    """Return the part of integrated gradients that flows through each activation of a layer.

    Along the line from the baseline to the image, each change of an activation is multiplied by the gradient
    with respect to it. The result sums to score(image) - score(baseline), up to the error of the steps.

    Args:
        steps: Number of equal steps; `steps + 1` gradients.
        rule: `"trapezoid"`: the mean gradient of a step's two ends; `"left"`: the gradient at its beginning,
            as in Captum (whose `method="riemann_trapezoid"` takes the same steps).

    References:
        Dhamdhere, Sundararajan, Yan: How Important Is a Neuron? ICLR 2019, arXiv 1805.12233, equation 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = jaxai.chain({"features": lambda x: x, "logits": lambda x: x.mean((1, 2))})
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
        >>> jaxai.conductance(net, x, 1, layer="features").ravel().tolist()
        [0.0, 0.25, 0.0, 0.75, 0.0, 1.25, 0.0, 1.75]
    """
    model, images, targets = _targets.prepare(model, images, targets)
    steps = checks.positive(steps, "steps")
    return _along_input(
        model,
        images,
        targets,
        as_baseline(baseline, images),
        jnp.linspace(0, 1, steps + 1, dtype=jnp.float32),
        jnp.ones(steps + 1, jnp.float32),
        layer=layers.resolve(model, layer, images),
        rule=checks.choice(rule, "rule", RULES),
        batch_size=batching.chunk_size(batch_size, model, images),
    )


@partial(jax.jit, static_argnames=("layer", "rule", "batch_size"))
def _along_input(model, images, targets, baseline, nodes, weights, *, layer, rule, batch_size):
    def chunk(x, t, start):
        t = t.frozen(model(x))

        def one(position):
            point = start + position.astype(x.dtype) * (x - start)
            acts, head = layers.split(model, layer, point)
            grads = t.gradients(head, acts)[1].astype(jnp.float32)
            return acts.astype(jnp.float32), grads

        size = batching.groups(batch_size, x.shape[0])
        if rule == "influence":

            def some(samples, valid):
                positions, weight = samples
                return jnp.tensordot(weight * valid, jax.vmap(one)(positions)[1], axes=1)

            return batching.sum_chunks(some, (nodes, weights), batch_size=size)
        return _steps(one, nodes, rule, size)

    return batching.map_images(chunk, images, targets, baseline, batch_size=batch_size)


def _steps(one, nodes, rule, size):
    """Sum gradient x change over the steps between `nodes`, a few nodes at a time."""

    def change(acts, grads):
        difference = acts[1:] - acts[:-1]
        mean = grads[:-1] if rule == "left" else (grads[:-1] + grads[1:]) / 2
        return (jax.vmap(_beside)(difference, mean) * mean).sum(0)

    def beginning():
        """Return the activations at the baseline and the gradient to use there."""
        acts, grads = one(nodes[0])
        return (acts, grads) if rule == "left" else (acts, one(nodes[1])[1])

    # The last node of a chunk is the first of the next; repeated nodes at the end change nothing.
    acts, grads = jax.tree.map(lambda a: a[None], beginning())
    count = nodes.shape[0] - 1
    chunks, size = batching.even_chunks(count, size)
    rest = jnp.concatenate([nodes[1:], jnp.repeat(nodes[-1:], chunks * size - count)])

    def step(state, some):
        total, acts, grads = state
        more_acts, more_grads = jax.vmap(one)(some)
        total = total + change(jnp.concatenate([acts, more_acts]), jnp.concatenate([grads, more_grads]))
        return (total, more_acts[-1:], more_grads[-1:]), None

    state = (jnp.zeros(grads.shape[1:], jnp.float32), acts, grads)
    return jax.lax.scan(step, state, rest.reshape(chunks, size))[0][0]
