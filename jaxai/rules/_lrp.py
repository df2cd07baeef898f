"""Layer-wise relevance propagation through any JAX function."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._frame.describe import Passes, describes
from .._program.named import marked
from ._composites import COMPOSITES, Composite
from ._context import Context
from ._grouping import network
from ._layer import Layer, finite
from ._operations import Operation
from ._relevance import Rule
from ._report import check_support, unsupported


@describes(title="LRP", result="pixels", cost=lambda o: Passes(2, backward=o.targets), signed=True)
def lrp(
    model: Callable[..., Any],
    images: Float[Array, "batch *positions channels"],
    targets: _targets.Targets = None,
    *,
    composite: str | Composite = "epsilon_plus_flat",
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    relevance: str = "one_hot",
    strict: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch ..."]:
    """Propagate relevance from the score back to the pixels, layer by layer, with a rule per layer.

    Works on any JAX function: its operations are read from its jaxpr. Biases and batch norms (any affine map
    per channel) are folded into the convolution or dense layer before them; biases are part of the
    denominators, so they absorb relevance. ReLUs and other elementwise functions pass relevance unchanged, a
    ReLU6 also where it is saturated. Max-pools pass it to the winner. Averages and sums of two branches
    distribute it by contribution with a stabilizer of 1e-6. Batch norms that do not follow a layer pass it
    unchanged. A product of a signal and a gate that both depend on the image (squeeze-and-excitation,
    attention) gives all relevance to the signal, other products give half to each factor;
    `Composite(product=...)` chooses. Operations without a rule (sorting, `cond`, `while`, ...) use their
    gradient, with a warning.

    As in zennit, an output z loses 1e-6 / (|z| + 1e-6) of its relevance to each rule's stabilizer, about 1e-6
    of the whole on a small network without biases; with stabilizers of 1e-9 relevance is kept to rounding.

    Args:
        composite: Assignment of rules to layers: `"epsilon_plus"`, `"epsilon_plus_flat"`,
            `"epsilon_gamma_box"`, `"epsilon_alpha2_beta1"`, `"epsilon_alpha2_beta1_flat"` (zennit's layer
            maps and constants); for transformers `"attn_lrp"` or `"cp_lrp"`; or a `jaxai.rules.Composite`.
        low: Lowest pixel values for the z-box rule, in the model's input units (after normalisation); a
            number or an array that broadcasts to `images`.
        high: Highest pixel values.
        relevance: Initial relevance: `"one_hot"`, 1 at the target as in zennit, or `"score"`, the target's
            logit, so that conserving rules on a network without biases sum to it.

    Returns:
        Signed relevances [batch, height, width, channels]; [batch, k, ...] for k classes per image.

    Raises:
        ValueError: If a layer that the composite names does not exist, or the z-box rule lacks its bounds.

    References:
        Bach, Binder, Montavon, Klauschen, Mueller, Samek: On Pixel-wise Explanations for Non-Linear
        Classifier Decisions by Layer-wise Relevance Propagation. PLOS ONE 2015.
        Montavon, Lapuschkin, Binder, Samek, Mueller: Explaining nonlinear classification decisions with deep
        Taylor decomposition. Pattern Recognition 2017, arXiv 1512.02479.
        Montavon, Binder, Lapuschkin, Samek, Mueller: Layer-Wise Relevance Propagation: An Overview. 2019.
        Anders, Neumann, Samek, Mueller, Lapuschkin: Software for Dataset-wide XAI (zennit). arXiv 2106.13200.
        Achtibat et al.: AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers. ICML
        2024, arXiv 2402.05602, equations 5 to 9.
        Ali et al.: XAI for Transformers: Better Explanations through Conservative Propagation (CP-LRP). ICML
        2022, arXiv 2202.07304.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: x.reshape(1, 2) @ jnp.array([[1.0], [3.0]])
        >>> epsilon = jaxai.rules.Composite(dense=jaxai.rules.Epsilon())
        >>> x = jnp.ones((1, 1, 2, 1))
        >>> relevance = jaxai.lrp(net, x, 0, composite=epsilon, relevance="score")
        >>> bool(jnp.allclose(relevance.ravel(), jnp.array([1.0, 3.0])))
        True
    """
    model, images, targets = _targets.prepare(model, images, targets, plane=False)
    composite = as_composite(composite)
    if composite.needs_bounds and (low is None or high is None):
        raise ValueError(
            "the z-box rule needs `low` and `high`, the lowest and highest pixel values as the model takes"
            f" them; got low={low!r}, high={high!r}"
        )
    return _lrp(
        model,
        images,
        targets,
        None if low is None else checks.like_images(low, images, "low"),
        None if high is None else checks.like_images(high, images, "high"),
        composite=composite,
        relevance=checks.choice(relevance, "relevance", ("one_hot", "score")),
        strict=bool(strict),
        batch_size=checks.batch_size(batch_size),
    )


def as_composite(composite: Any) -> Composite:
    """Return a composite by name, or itself.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is neither.
    """
    if isinstance(composite, Composite):
        return composite
    if not isinstance(composite, str):
        raise TypeError(f"`composite` must be a name or a jaxai.rules.Composite; got {composite!r}")
    return COMPOSITES[checks.choice(composite, "composite", tuple(COMPOSITES))]


@partial(jax.jit, static_argnames=("composite", "relevance", "strict", "batch_size"))
def _lrp(model, images, targets, low, high, *, composite, relevance, strict, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)

    def chunk(x, t, below, above):
        named, t = _targets.join(Partial(marked, model) if composite.layers else model, x, t)
        net, flat = network(named, x)
        check_support(unsupported(net), strict, "lrp")
        env = net.forward(flat)
        head = net.head()
        net = replace(net, output=head[0].inputs[0]) if head else net
        context = Context(net, composite.choose(net), env, None if below is None else (below, above))

        def pull(relevance):
            found = net.backward(relevance, [partial(_through, *step, context) for step in context.steps])
            return jnp.zeros_like(x) if found is None else found.astype(x.dtype)

        if head:
            return _from_logits(head, env, t, relevance, pull, batch_size)
        return start(env[net.output], t, relevance, pull, batch_size)

    return batching.map_images(chunk, images, targets, low, high, batch_size=batch_size)


def start(scores, targets, relevance, pull, batch_size):
    """Run `pull` from the targets' relevance: once, or once per class for k classes."""
    targets = targets.frozen(scores)
    directions = targets.cotangents(scores)
    if relevance == "score":
        directions = directions * finite(scores)
    return targets.pull(pull, directions, batch_size=batch_size)


def _from_logits(head: Sequence[Operation], env: dict[int, Any], targets, relevance, pull, batch_size):
    """Run `pull` from the logits instead of the probabilities.

    Relevance of the outputs moves to the logits of the same classes, bypassing the softmax and the
    elementwise functions after it. A callable target is a function of the outputs, which are a function of
    the logits.
    """

    def follow(logits, *, moves_only):
        value = logits
        for operation in head:
            if operation.kind == "shape" or not moves_only:
                value = operation.call(env)(value)
        return value

    logits = env[head[0].inputs[0]]
    if targets.function is not None:
        outputs, back = jax.vjp(partial(follow, moves_only=False), logits)
        (direction,) = back(targets.cotangents(outputs))
        return pull(direction * finite(logits) if relevance == "score" else direction)
    scores, back = jax.vjp(partial(follow, moves_only=True), logits)
    return start(scores, targets, relevance, lambda r: pull(*back(r)), batch_size)


def _through(operation: Operation, rule: Rule, context: Context, relevance: Any) -> tuple:
    """Return the relevances of an operation's inputs under its rule.

    Raises:
        ValueError: If the rule's results do not have the inputs' shapes.
    """
    layer = Layer(operation, context.env, context)
    found = rule(layer, relevance)
    found = found if isinstance(found, tuple) else (found,)
    expected = [x.shape for x in layer.inputs]
    if len(found) != len(expected) or any(
        r is not None and r.shape != shape for r, shape in zip(found, expected, strict=True)
    ):
        raise ValueError(
            f"{type(rule).__name__}() must return relevance of shape {', '.join(map(str, expected))} for"
            f" {operation.name}; got {', '.join(str(getattr(r, 'shape', r)) for r in found)}"
        )
    return found
