"""Layer-wise relevance propagation through any JAX function."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from .._frame import batching, checks
from .._frame import targets as _targets
from .._program.named import marked
from . import _products, _relevance
from ._composites import COMPOSITES, EXCITATION, Composite, Gradient, Norm, Pass, ZBox
from ._grouping import network
from ._operations import Network, Operation


class Report(NamedTuple):
    """What the rules find in a function.

    Attributes:
        operations: How many operations there are of each kind: conv, dense, relu, activation, affine, pool,
            max, sum, shape, and those without a rule.
        unsupported: Primitives without a rule of their own, through which the gradient is used instead.
    """

    operations: dict[str, int]
    unsupported: tuple[str, ...]


def report(fn: Callable[..., Any], x: Any) -> Report:
    """Say what relevance propagation finds in a function, without running it.

    Args:
        fn: Callable pytree, `fn(images) -> scores`.
        x: Images, an array or `jax.ShapeDtypeStruct`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: jax.nn.relu(jnp.sort(x, axis=1)).mean((1, 2))
        >>> jaxai.rules.report(net, jnp.ones((1, 4, 4, 2)))
        Report(operations={'other': 1, 'pool': 1, 'relu': 1}, unsupported=('sort',))
    """
    net, _ = network(_targets.as_model(fn), jnp.zeros(x.shape, x.dtype) if not hasattr(x, "aval") else x)
    kinds = [operation.kind for operation in net.operations]
    return Report({kind: kinds.count(kind) for kind in sorted(set(kinds))}, unsupported(net))


def unsupported(net: Network, kinds: tuple[str, ...] = ("other",)) -> tuple[str, ...]:
    """Return the primitives of a network that have no rule."""
    return tuple(sorted({operation.name for operation in net.operations if operation.kind in kinds}))


def check_support(names: tuple[str, ...], strict: bool, method: str) -> None:
    """Warn, or raise ValueError if `strict`, when some primitives have no rule."""
    if not names:
        return
    message = f"{method} has no rule for {', '.join(names)}"
    if strict:
        raise ValueError(f"{message}; with strict=False the gradient is used there")
    warnings.warn(f"{message}: the gradient is used there (jaxai.rules.report lists them)", stacklevel=2)


def lrp(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    composite: str | Composite = "epsilon_plus_flat",
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    relevance: str = "one_hot",
    strict: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Propagate relevance from the score back to the pixels, layer by layer, with a rule for each layer.

    Works on any JAX function: its operations are read from its jaxpr. Biases and batch norms (any affine map
    by channel) are folded into the convolution or dense layer before them; biases take part in the
    denominators, so they absorb relevance. ReLUs and other elementwise functions pass relevance unchanged, a
    ReLU6 also where it is saturated. Max-pools send it to the winner. Averages and sums of two branches
    share it by contribution with a stabilizer of 1e-6. Batch norms that follow no layer pass it unchanged.
    A product of a signal and a gate that both depend on the image (squeeze-and-excitation, attention) gives
    all to the signal, other products half to each factor; `Composite(product=...)` chooses. Operations
    without a rule (sorting, `cond`, `while`, ...) use their gradient, with a warning.

    As in zennit, an output z loses 1e-6 / (|z| + 1e-6) of its relevance to each rule's stabilizer, about 1e-6
    of the whole on a small network without biases; with stabilizers of 1e-9 relevance is kept to rounding.

    Args:
        model: Callable pytree, `model(images) -> scores`.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain (see `jaxai.targets`).
        composite: Which layer gets which rule: `"epsilon_plus"`, `"epsilon_plus_flat"`,
            `"epsilon_gamma_box"`, `"epsilon_alpha2_beta1"`, `"epsilon_alpha2_beta1_flat"` (zennit's layer
            maps and constants), or a `jaxai.rules.Composite`.
        low: Lowest pixel values for the z-box rule, in the model's input units (after normalisation); a
            number or an array that broadcasts to `images`.
        high: Highest pixel values.
        relevance: What to start from: `"one_hot"`, 1 at the target as zennit does, or `"score"`, the target's
            logit, so that conserving rules on a network without biases sum to it.
        strict: Whether an operation without a rule is an error.
        batch_size: At most so many images in flight; None chooses by size.

    Returns:
        Signed relevances [batch, height, width, channels]; [batch, k, ...] for k classes an image.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, a class, a composite or a layer it names does not exist, the z-box
            rule lacks its bounds, or `strict` finds an operation without a rule.

    References:
        Bach, Binder, Montavon, Klauschen, Mueller, Samek: On Pixel-wise Explanations for Non-Linear
        Classifier Decisions by Layer-wise Relevance Propagation. PLOS ONE 2015.
        Montavon, Lapuschkin, Binder, Samek, Mueller: Explaining nonlinear classification decisions with deep
        Taylor decomposition. Pattern Recognition 2017, arXiv 1512.02479.
        Montavon, Binder, Lapuschkin, Samek, Mueller: Layer-Wise Relevance Propagation: An Overview. 2019.
        Anders, Neumann, Samek, Mueller, Lapuschkin: Software for Dataset-wide XAI (zennit). arXiv 2106.13200.

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
    model, images, targets = _targets.prepare(model, images, targets)
    composite = as_composite(composite)
    rules = (composite.conv, composite.dense, composite.first, *(rule for _, rule in composite.layers))
    if any(isinstance(rule, ZBox) for rule in rules) and (low is None or high is None):
        raise ValueError(
            "the z-box rule needs `low` and `high`, the lowest and highest pixel values as the model takes"
            f" them; got low={low!r}, high={high!r}"
        )
    return _lrp(
        model,
        images,
        targets,
        None if low is None else _bound(low, images, "low"),
        None if high is None else _bound(high, images, "high"),
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


def _bound(value, images, name):
    value = jnp.asarray(value, images.dtype)
    try:
        return jnp.broadcast_to(value, images.shape)
    except ValueError:
        raise ValueError(
            f"`{name}` must broadcast to the images' shape {images.shape}; got {value.shape}"
        ) from None


@partial(jax.jit, static_argnames=("composite", "relevance", "strict", "batch_size"))
def _lrp(model, images, targets, low, high, *, composite, relevance, strict, batch_size):
    batch_size = batching.chunk_size(batch_size, model, images)

    def chunk(arguments):
        x, t, below, above = arguments
        named = Partial(marked, model) if composite.layers else model
        net, flat = network(named, x)
        check_support(unsupported(net), strict, "lrp")
        bounds = None if below is None or above is None else (below, above)
        propagate = propagation(net, flat, x, composite, bounds)
        scores, pull = propagate
        return start(scores, t, relevance, pull, batch_size)

    return batching.map_chunks(chunk, (images, targets, low, high), batch_size=batch_size)


def start(scores, targets, relevance, pull, batch_size):
    """Run `pull` from the targets' relevance: once, or once for each of k classes."""
    targets = targets if callable(targets) else _targets.freeze(scores, targets)
    directions = _targets.cotangents(scores, targets)
    if relevance == "score":
        directions = directions * scores
    if directions.ndim == scores.ndim:
        return pull(directions)
    chunk = None if batch_size is None else max(1, batch_size // scores.shape[0])
    return jnp.moveaxis(batching.map_chunks(jax.vmap(pull), directions, batch_size=chunk), 0, 1)


def propagation(
    net: Network, flat: list[Any], images: jax.Array, composite: Composite, bounds: Any
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Return the scores, and a function from relevances of the scores to those of the images."""
    env = net.forward(flat)
    rules = choose(net, composite)
    silent = _silent_where_dead(net, rules)
    limits = None
    if any(isinstance(rule, ZBox) for rule in rules):
        limits = _limits(net, flat, rules, bounds)

    def pull(relevance):
        total: dict[int, jax.Array] = {net.output: relevance}
        for operation, rule in zip(reversed(net.operations), reversed(rules), strict=True):
            arrived = tuple(total.pop(out, None) for out in operation.outputs)
            if all(r is None for r in arrived):
                continue
            parts = through(operation, rule, env, arrived, operation.outputs[0] in silent, limits)
            for ref, part in zip(operation.inputs, parts, strict=True):
                if jnp.issubdtype(env[ref].dtype, jnp.floating):
                    total[ref] = part if ref not in total else total[ref] + part
        return total.get(net.image, jnp.zeros_like(images)).astype(images.dtype)

    return env[net.output], pull


def through(operation: Operation, rule: Any, env, arrived, silent: bool, limits: Any) -> tuple:
    """Return the relevances of an operation's inputs."""
    if operation.linear is not None:
        context = _relevance.Context(
            layer=operation.linear.merged(env),
            linear=operation.linear,
            x=env[operation.inputs[0]],
            y=env[operation.outputs[0]],
            nonnegative=operation.nonnegative,
            dead_are_zero=silent,
            bounds=limits.get(operation.inputs[0]) if limits else None,
        )
        return (_relevance.linear_relevance(rule, context, arrived[0]),)
    if isinstance(rule, _products.Parts):
        return _products.share(operation, rule, env, arrived[0])
    if isinstance(rule, Norm):
        return _relevance.shared(operation, env, arrived[0], rule.stabilizer)
    if isinstance(rule, Pass):
        return (arrived[0],)
    if operation.kind == "max":
        return _relevance.to_winner(operation, env, arrived[0])
    return _relevance.by_gradient(operation, env, arrived)


def choose(net: Network, composite: Composite) -> list[Any]:
    """Return each operation's rule.

    Raises:
        ValueError: If a layer that the composite names does not exist.
    """
    by_layer = dict(composite.layers)
    existing = [node.params["name"] for node in net.graph.nodes if node.name == "name"]
    for name in by_layer:
        if name not in existing:
            known = ", ".join(dict.fromkeys(existing)) or "none (mark them or use a layered model)"
            raise ValueError(f"unknown layer {name!r} in the composite; the layers are {known}")
    others = {
        "pool": composite.pool,
        "sum": composite.residual,
        "relu": composite.activation,
        "activation": composite.activation,
        "affine": composite.activation,
    }
    rules: list[Any] = []
    first_seen = False
    for operation in net.operations:
        if operation.kind == "product":
            rules.append(_products.parts(net, operation, composite.product))
            continue
        if operation.linear is None:
            rules.append(others.get(operation.kind, Gradient()))
            continue
        rule = composite.conv if operation.kind == "conv" else composite.dense
        if composite.first is not None and not first_seen and operation.kind in composite.first_kinds:
            rule, first_seen = composite.first, True
        rules.append(by_layer.get(operation.layer, rule))
    return rules


# Rules of a linear layer under which an input of zero gets no relevance.
_NEEDS_INPUT = ("Epsilon", "Gamma", "ZPlus", "AlphaBeta", "Norm")


def _silent_where_dead(net: Network, rules: list[Any]) -> set[int]:
    """Return the values that get no relevance where they are negative, because a ReLU alone reads them."""
    keeps_zero: dict[int, bool] = {net.output: False}

    def note(refs, value):
        for ref in refs:
            keeps_zero[ref] = keeps_zero.get(ref, True) and value

    silent = set()
    for operation, rule in zip(reversed(net.operations), reversed(rules), strict=True):
        zero_stays = all(keeps_zero.get(o, True) for o in operation.outputs)
        if operation.kind == "relu":
            # Negative inputs give zero outputs; positive ones keep the relevance they get.
            note(operation.inputs, False)
            if zero_stays:
                silent.update(operation.inputs)
        elif operation.linear is not None:
            note(operation.inputs, type(rule).__name__ in _NEEDS_INPUT)
        elif isinstance(rule, Norm):
            note(operation.inputs, True)
        elif operation.kind == "max" and operation.name in ("max_pool", "reduce_window_max", "reduce_max"):
            # The winner of a pool is zero where it is dead, and only winners get relevance.
            note(operation.inputs, zero_stays)
        elif operation.kind == "shape" and operation.name not in ("pad", "select_n", "concatenate"):
            note(operation.inputs, zero_stays)
        else:
            note(operation.inputs, False)
    readers: dict[int, int] = {}
    for operation in net.operations:
        for ref in operation.inputs:
            readers[ref] = readers.get(ref, 0) + 1
    return {ref for ref in silent if readers[ref] == 1 and ref != net.output}


def _limits(net: Network, flat: list[Any], rules: list[Any], bounds: Any) -> dict[int, Any]:
    """Return the lowest and highest inputs of the layers with a z-box rule.

    Raises:
        ValueError: If anything but scaling, shifting and rearranging comes before such a layer.
    """
    wanted = {o.inputs[0] for o, rule in zip(net.operations, rules, strict=True) if isinstance(rule, ZBox)}
    reached, values = {net.image}, []
    for operation in net.operations:
        if operation.kind in ("affine", "shape") and set(operation.inputs) <= reached:
            reached.update(operation.outputs)
    if not wanted <= reached:
        raise ValueError("the z-box rule must meet a layer whose input is the image, scaled at most")
    for bound in bounds:
        env = net.forward(flat)
        env[net.image] = bound
        for operation in net.operations:
            if operation.kind in ("affine", "shape") and set(operation.inputs) <= reached:
                results = operation.call(env)(*(env[ref] for ref in operation.inputs))
                results = results if isinstance(results, tuple) else (results,)
                env.update(zip(operation.outputs, results, strict=True))
        values.append(env)
    # A negative scale turns the two around.
    return {
        ref: (jnp.minimum(values[0][ref], values[1][ref]), jnp.maximum(values[0][ref], values[1][ref]))
        for ref in wanted
    }


def excitation_backprop(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    targets: _targets.Targets = None,
    *,
    strict: bool = False,
    batch_size: int | None = None,
) -> Float[Array, "batch *k height width channels"]:
    """Propagate the probability of winning down along excitatory connections.

    Every convolution and dense layer shares by the positive contributions (the z-plus rule, biases in the
    denominator as in zennit); averages and sums of branches share by contribution; ReLUs and all else keep
    their gradient. Starts from 1 at the target.

    Args:
        model: Callable pytree, `model(images) -> scores`; give the head of `jaxai.split` and its activations
            for the map of a layer, as in the paper.
        images: Model input, float [batch, height, width, channels].
        targets: What to explain (see `jaxai.targets`).
        strict: Whether an operation without a rule is an error.
        batch_size: At most so many images in flight; None chooses by size.

    Returns:
        Signed values [batch, height, width, channels]; [batch, k, ...] for k classes an image. The paper's
        map is their sum over channels.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If shapes do not fit, a class does not exist, or `strict` finds an operation without a
            rule.

    References:
        Zhang, Lin, Brandt, Shen, Sclaroff: Top-down Neural Attention by Excitation Backprop. ECCV 2016,
        arXiv 1608.00507, equations 3 to 5.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxai
        >>> net = lambda x: x.reshape(1, 2) @ jnp.array([[3.0], [-1.0]])
        >>> jaxai.excitation_backprop(net, jnp.ones((1, 1, 2, 1)), 0).ravel().round(3).tolist()
        [1.0, 0.0]
    """
    return lrp(model, images, targets, composite=EXCITATION, strict=strict, batch_size=batch_size)
