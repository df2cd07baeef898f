"""Operators that multiply matrices: dense layers and attention."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..._cpu import dense as _dense
from .node import Node, Result, operator
from .values import Value, aligned, numpy_of, plain


def _gemm_weights(node: Node, rank: int) -> tuple[int, ...]:
    # Stored as [inputs, features] either way.
    return (1, 0) if node.get("transB", 0) and rank == 2 else tuple(range(rank))


def _multiply(x: Any, kernel: Any) -> Any:
    """Multiply vectors by a matrix, with a gradient that is fast on the CPU."""
    return _dense.multiply(x, jnp.asarray(kernel), _dense.Settings(dtype=jnp.dtype(x.dtype)))


@operator("Gemm", storage={1: _gemm_weights})
def _gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Result:
    x = a.plain.T if node.get("transA", 0) else a.plain
    kernel = b.ordered((1, 0)) if node.get("transB", 0) else b.plain
    if x.ndim != 2 or kernel.ndim != 2 or x.shape[1] != kernel.shape[0]:
        raise ValueError(f"matrices of shapes {list(a.shape)} and {list(b.shape)}")
    y = _multiply(jnp.asarray(x), kernel)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = y if alpha == 1 else alpha * y
    if c is None:
        return plain(y)
    return plain(y + (c.plain if beta == 1 else beta * c.plain))


@operator("MatMul")
def _matmul(node: Node, a: Value, b: Value) -> Result:
    x, y = jnp.asarray(a.plain), jnp.asarray(b.plain)
    if y.ndim == 2 and x.ndim > 1 and x.shape[-1] == y.shape[0] and jnp.issubdtype(x.dtype, jnp.floating):
        return plain(_multiply(x, y))
    return plain(jnp.matmul(x, y))


@operator("Einsum")
def _einsum(node: Node, *values: Value) -> Result:
    return plain(jnp.einsum(node.get("equation", ""), *(value.plain for value in values)))


@operator("Attention")
def _attention(
    node: Node,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    padding: Value | None = None,
) -> Result:
    """Scaled dot products of opset 23."""
    if any(each is not None for each in (past_key, past_value, padding)) or len(node.outputs) > 1:
        raise ValueError("a cache of keys, padding lengths and further results are not supported")
    heads = node.get("q_num_heads", 0), node.get("kv_num_heads", 0)

    def split(value, count):
        if value.rank == 4:
            return value.plain
        batch, tokens, width = value.shape
        return value.plain.reshape(batch, tokens, count, width // count).transpose(0, 2, 1, 3)

    queries, keys, contents = split(q, heads[0]), split(k, heads[1]), split(v, heads[1])
    if (repeats := queries.shape[1] // keys.shape[1]) > 1:
        keys, contents = jnp.repeat(keys, repeats, 1), jnp.repeat(contents, repeats, 1)
    scale = node.attributes.get("scale", 1 / math.sqrt(queries.shape[-1]))
    scores = jnp.matmul(queries, keys.swapaxes(-1, -2)) * scale
    if (cap := node.get("softcap", 0.0)) > 0:
        scores = cap * jnp.tanh(scores / cap)
    if mask is not None:
        scores = _masked(scores, mask)
    if node.get("is_causal", 0):
        allowed = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(allowed, scores, -jnp.inf)
    found = jnp.matmul(jax.nn.softmax(scores, -1), contents)
    if q.rank == 4:
        return plain(found)
    batch, count, tokens, width = found.shape
    return plain(found.transpose(0, 2, 1, 3).reshape(batch, tokens, count * width))


def _masked(scores: Any, mask: Value) -> Any:
    (_, given), _ = aligned([plain(scores), mask])
    if given.dtype == jnp.bool_:
        return jnp.where(given, scores, -jnp.inf)
    return scores + given


@operator("RotaryEmbedding")
def _rotary(node: Node, x: Value, cos: Value, sin: Value, positions: Value | None = None) -> Result:
    """Rotated pairs of channels, opset 23, of values [batch, heads, tokens, channels]."""
    if node.get("rotary_embedding_dim", 0) or x.rank != 4:
        raise ValueError("only whole heads of values of four axes are supported")
    cosine, sine = cos.plain, sin.plain
    if positions is not None:
        where = numpy_of(positions, "position_ids")
        cosine, sine = cosine[where], sine[where]
    cosine, sine = cosine[:, None], sine[:, None]
    array = x.plain
    if node.get("interleaved", 0):
        one, two = array[..., ::2], array[..., 1::2]
    else:
        one, two = jnp.split(array, 2, -1)
    turned = cosine * one - sine * two, sine * one + cosine * two
    if node.get("interleaved", 0):
        return plain(jnp.stack(turned, -1).reshape(array.shape))
    return plain(jnp.concatenate(turned, -1))
