"""Transformers with some tokens removed: hidden patches are absent rather than grey."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Float

from .._frame import checks
from .._frame.contract import completed
from .._frame.model import as_model
from .._program import layout
from .._program.graph import Constant, Node
from .._program.layouts import Tokens
from .._program.run import evaluate, run_node
from . import _matrices

# A token is kept if more than this fraction of its patch is visible.
SHARE = 0.5


@completed
def drop_tokens(
    model: Callable[..., Any],
    images: Float[Array, "batch height width channels"],
    *,
    tokens: Tokens | None = None,
) -> tuple[Callable[..., Any], Float[Array, "batch height width channels_and_one"]]:
    r"""Return a transformer that leaves out the tokens of hidden patches, and images that mark these.

    A convolutional network needs some content where a photograph is hidden, such as grey or a blur, and
    treats it as part of the image. A transformer can do without the token: the attention matrices become
    those of the remaining tokens, $A'_{ij} = A_{ij} m_j / \sum_k A_{ik} m_k$ with $m_j = 1$ for these and 0
    for the others, which equals a softmax over the remaining tokens; a mean over tokens becomes a mean over
    these.

    The images get one more channel, 1 where the photograph is visible. With `fill=0.0` every method that
    hides parts of images (`lime`, `kernel_shap`, `rise`, `occlusion`, `feature_ablation`, `sobol`, ...) sets
    it to 0 there, and the returned network leaves out the patches of which at most half is visible. Segments
    made of whole patches hide exactly these: `jaxai.segment(images, method="grid", rows=..., columns=...)`,
    with as many rows and columns as patches, or a divisor of these numbers.

    Args:
        model: A transformer, unmodified; its attention matrices are found in its program.
        images: Input of the network.
        tokens: Layout of the tokens on the images, if the program does not determine it:
            `jaxai.layers.Tokens(grid=(rows, columns), prefix=n)`.

    Returns:
        The network, which takes images of one more channel, as a callable pytree; and the images with that
        channel, [batch, height, width, channels + 1].

    Raises:
        ValueError: If there are no attention matrices of one set of tokens, patches do not fill the images,
            or the scores depend on hidden patches (tokens that overlap, or that are mixed outside of
            attention and means).

    References:
        Naseer et al.: Intriguing Properties of Vision Transformers. NeurIPS 2021, arXiv 2105.10497, section
        3.1 drops patches; Covert, Kim, Lee: Learning to Estimate Shapley Values with Vision Transformers.
        ICLR 2023, arXiv 2206.05282, section 4.1 masks attention for Shapley values.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import jaxai
        >>> def net(x):  # four tokens of one pixel each, mixed once
        ...     tokens = x.reshape(x.shape[0], 4, 3)
        ...     matrix = jax.nn.softmax(tokens @ tokens.swapaxes(1, 2))
        ...     return (matrix @ tokens).mean(1)
        >>> x = jnp.zeros((1, 2, 2, 3)).at[0, 1, 0, 2].set(1.0)
        >>> dropping, seen = jaxai.attention.drop_tokens(net, x)
        >>> segments = jaxai.segment(x, method="grid", rows=2, columns=2)
        >>> jaxai.feature_ablation(dropping, seen, 2, segments=segments, fill=0.0).heatmap.argmax().item()
        2
    """
    model, images = as_model(model), checks.images(images)
    if tokens is not None and not isinstance(tokens, Tokens):
        raise TypeError(f"`tokens` must be a jaxai.layers.Tokens; got {tokens!r}")
    grid = _matrices.find(model, images[:1], tokens).tokens.grid
    if images.shape[1] % grid[0] or images.shape[2] % grid[1]:
        raise ValueError(
            f"images must be filled by the network's {grid[0]} x {grid[1]} patches to drop these; they have"
            f" {images.shape[1]} x {images.shape[2]} pixels"
        )
    dropping = Partial(partial(_scores, tokens=tokens), model)
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((model, images))):
        _check(dropping, images[:1], grid)
    return dropping, jnp.concatenate([images, jnp.ones_like(images[..., :1])], axis=-1)


def _scores(model, images, *, tokens):
    photos, seen = images[..., :-1], images[..., -1]
    found = _matrices.find(model, photos[:1], tokens)
    rows, columns = found.tokens.grid
    patches = seen.reshape(len(seen), rows, seen.shape[1] // rows, columns, seen.shape[2] // columns)
    kept = patches.mean((2, 4)) > SHARE
    outputs = jax.vmap(partial(_one, found))(photos[:, None], kept)
    return jax.tree.unflatten(found.program.tree, outputs)


def _one(found: _matrices.Attention, image: jax.Array, kept: jax.Array) -> list[jax.Array]:
    """Return the network's output for an image [1, height, width, channels], without the batch axis.

    Args:
        found: The network.
        image: The image.
        kept: Which patches are visible, bool [rows, columns].
    """
    graph = found.program.graph
    keys = {matrix.value: matrix.keys for matrix in found.matrices}
    means = _means(found)
    whole = _there(kept, found.count, found.tokens.prefix)

    def each(node: Node, operands: Sequence[Any]) -> Sequence[Any]:
        out = node.outputs[0] if node.outputs else None
        if out in means:
            axis, prefix = means[out]
            size = operands[0].shape[axis]
            there = _there(kept, size, prefix)
            # The next operation divides by the number of all tokens.
            scale = size / jnp.maximum(there.sum(), 1)
            operands = [operands[0] * _along(there, axis, operands[0]) * scale.astype(operands[0].dtype)]
        results = list(run_node(node, operands))
        for place, value in enumerate(node.outputs):
            if value in keys:
                left = results[place] * _along(whole, keys[value], results[place])
                total = left.sum(keys[value], keepdims=True)
                # Zeros if no token is left.
                results[place] = left / jnp.where(total == 0, 1, total)
        return results

    return [x[0] for x in evaluate(graph, [*found.flat[:-1], image], each=each)]


def _there(kept, size, prefix):
    """Return which tokens are kept; tokens outside the grid always are."""
    return jnp.ones(size, bool).at[prefix : prefix + kept.size].set(kept.ravel())


def _along(mask, axis, value):
    """Return a mask [tokens] in the shape and type of a value with the tokens on an axis."""
    shape = [1] * value.ndim
    shape[axis] = value.shape[axis]
    return mask.reshape(shape).astype(value.dtype)


def _means(found: _matrices.Attention) -> dict[Any, tuple[int, int]]:
    """Return sums over tokens that are divided by their number: the axis, and the grid's first token."""
    graph, axes = found.program.graph, found.program.axes
    readers, means = graph.readers(), {}
    for node in graph.nodes:
        if node.name != "reduce_sum" or isinstance(node.inputs[0], Constant):
            continue
        runs, shape = axes[node.inputs[0]], graph.shape(node.inputs[0])
        for axis in node.params["axes"]:
            along = None if runs is None or len(runs) != len(shape) else _grid(runs[axis], shape[axis])
            if along is None or along.grid != found.tokens.grid:
                continue
            others = [shape[other] for other in node.params["axes"] if other != axis]
            if _divides(
                readers.get(node.outputs[0], []), node.outputs[0], shape[axis] * int(np.prod(others))
            ):
                means[node.outputs[0]] = axis, along.prefix
    return means


def _grid(axis, size: int) -> Tokens | None:
    found = layout.name(((), axis, ()), (1, size, 1)) if isinstance(axis, tuple) else None
    return found if isinstance(found, Tokens) else None


def _divides(nodes: Sequence[Node], value: int, size: int) -> bool:
    """Return whether all readers of a value divide it by a size."""
    factors = {"div": size, "mul": 1 / size}
    for node in nodes:
        constants = [ref.value for ref in node.inputs if isinstance(ref, Constant)]
        if (
            node.name not in factors
            or len(constants) != 1
            or (node.name == "div" and node.inputs[0] != value)
        ):
            return False
        if not np.allclose(np.asarray(constants[0], np.float64), factors[node.name], rtol=1e-3):
            return False
    return bool(nodes)


def _check(dropping, image, grid):
    """Check with one image that scores do not depend on hidden content.

    Raises:
        ValueError: If they do.
    """
    kept = np.indices(grid).sum(0) % 3 != 1
    seen = np.repeat(np.repeat(kept, image.shape[1] // grid[0], 0), image.shape[2] // grid[1], 1)[
        None, ..., None
    ]
    versions = [jnp.where(seen, image, other) for other in (image, image[:, ::-1, ::-1] + 1.0)]
    both = jnp.concatenate([jnp.concatenate([x, jnp.asarray(seen, x.dtype)], -1) for x in versions])
    for scores in jax.tree.leaves(jax.jit(_apply)(dropping, both)):
        first, second = np.asarray(scores, np.float64)
        largest = np.abs(first).max(initial=0)
        if not np.abs(first - second).max(initial=0) <= 1e-3 * max(largest, 1e-6):
            raise ValueError(
                "the scores of `model` must not depend on patches whose tokens are dropped; they do (its"
                " tokens overlap, or are mixed outside of attention and means)"
            )


def _apply(model, images):
    return model(images)
