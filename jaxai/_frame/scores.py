"""The probability of a class, and detection of models that return probabilities.

- Scores [batch, classes] are logits of exclusive classes: the probability of a class is their softmax.
- One score, [batch, 1], is a logit: the probability of class 0 is its sigmoid.
- A model whose program ends in a softmax or a sigmoid returns probabilities: they are taken as they are.

The last case is read from the program, never from values, so it is the same for every image, at any
`batch_size` and under `jit`; only a black box, which has no program to read, is judged by all its scores.
"""

import math
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._program.graph import Constant, Graph, Node, Ref, graph_of, regions
from . import checks
from . import model as _model

# Beyond this, a float32 sigmoid can hardly be told from 0 or 1.
_SATURATED = 12
_ADVICE = "pass a callable target, such as lambda scores: scores[:, 0]"


def probabilities(scores: jax.Array, *, normalized: bool) -> jax.Array:
    """Return the probability of every class, float32 [batch, classes].

    Args:
        scores: [batch, classes].
        normalized: Whether they are probabilities already.
    """
    scores = scores.astype(jnp.float32)
    if normalized:
        return scores
    return jax.nn.sigmoid(scores) if scores.shape[-1] == 1 else jax.nn.softmax(scores, axis=-1)


def log_probabilities(scores: jax.Array) -> jax.Array:
    """Return the logarithm of `probabilities` of logits [batch, classes]."""
    scores = scores.astype(jnp.float32)
    return jax.nn.log_sigmoid(scores) if scores.shape[-1] == 1 else jax.nn.log_softmax(scores, axis=-1)


def ends_in_probabilities(model: Any, images: Any) -> bool:
    """Return whether a model's program ends in a softmax or a sigmoid."""
    return _read(*_model.abstract(model, images))


def are_probabilities(model: Any, images: jax.Array) -> bool:
    """Return whether a model's program ends in a softmax or a sigmoid, with a warning if it does."""
    found = ends_in_probabilities(model, images)
    if found:
        checks.warn(
            "`model` returns probabilities, not logits (it ends in a softmax or sigmoid): they are explained"
            " as they are, without a second softmax. To explain anything else return logits, or pass a"
            " callable target, scores -> float[batch]"
        )
    return found


@lru_cache(maxsize=64)
def _read(structure, leaves) -> bool:
    graph = graph_of(_model.program(structure, leaves), structured=True, opens=regions)
    return _Reader(graph).probability(graph.outputs[0])


# Operations that leave probabilities unchanged, and clips, which may keep them away from 0 and 1.
_SHAPES = frozenset(
    "reshape squeeze expand_dims broadcast_in_dim transpose convert_element_type reduce_precision copy name"
    " slice rev optimization_barrier".split()
)
_CLIPS = frozenset(("clamp", "max", "min"))


class _Reader:
    """Traces a value back to decide whether it must be a probability."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.producers = graph.producers()

    def source(self, ref: Ref) -> Ref:
        """Return the value before changes of shape and type."""
        while (node := self.node(ref)) is not None and node.name in _SHAPES:
            ref = node.inputs[0]
        return ref

    def node(self, ref: Ref) -> Node | None:
        return None if isinstance(ref, Constant) else self.producers.get(ref)

    def made_by(self, ref: Ref, name: str) -> Node | None:
        """Return the operation that computes this value, if it has this name."""
        node = self.node(self.source(ref))
        return node if node is not None and node.name == name else None

    def probability(self, ref: Ref) -> bool:
        node = self.node(self.source(ref))
        if node is None:
            return False
        if node.name == "logistic":
            return True
        if node.name in ("concatenate", "stack"):
            return all(map(self.probability, node.inputs))
        if node.name in _CLIPS:
            return sum(map(self.probability, node.inputs)) == 1
        if node.name == "sub":
            return self.graph.splat(node.inputs[0]) == 1 and self.probability(node.inputs[1])
        if node.name == "div":
            return self.softmax(*node.inputs) or self.sigmoid(*node.inputs) or self.mean(*node.inputs)
        if node.name == "exp":
            return self.exponential_of_log_softmax(node.inputs[0])
        return False

    def softmax(self, top: Ref, bottom: Ref) -> bool:
        """Return whether the quotient is exp(z) / sum(exp(z))."""
        total = self.made_by(bottom, "reduce_sum")
        same = total is not None and self.source(total.inputs[0]) == self.source(top)
        return same and self.made_by(top, "exp") is not None

    def sigmoid(self, top: Ref, bottom: Ref) -> bool:
        """Return whether the quotient is 1 / (1 + exp(-z))."""
        total = self.made_by(bottom, "add") if self.graph.splat(top) == 1 else None
        return total is not None and any(
            self.graph.splat(one) == 1 and self.made_by(other, "exp") is not None
            for one, other in (total.inputs, total.inputs[::-1])
        )

    def mean(self, top: Ref, bottom: Ref) -> bool:
        """Return whether the quotient is the mean of probabilities, those of an ensemble for example."""
        total, count = self.made_by(top, "reduce_sum"), self.graph.splat(bottom)
        if total is None or not self.probability(total.inputs[0]):
            return False
        before, after = (math.prod(self.graph.shape(ref)) for ref in (total.inputs[0], total.outputs[0]))
        return bool(count == before / after)

    def exponential_of_log_softmax(self, ref: Ref) -> bool:
        """Return whether the exponent is z - log(sum(exp(z)))."""
        difference = self.made_by(ref, "sub")
        if difference is None:
            return False
        log = self.made_by(difference.inputs[1], "log")
        total = None if log is None else self.made_by(log.inputs[0], "reduce_sum")
        exp = None if total is None else self.made_by(total.inputs[0], "exp")
        return exp is not None and self.source(exp.inputs[0]) == self.source(difference.inputs[0])


def extent(scores: jax.Array) -> jax.Array:
    """Return the smallest and the largest score, their sum and their number per row of scores: [batch, 4]."""
    scores = scores.astype(jnp.float32)
    number = jnp.full(scores.shape[0], scores.shape[1], jnp.float32)
    return jnp.stack([scores.min(-1), scores.max(-1), scores.sum(-1), number], axis=-1)


def sum_to_one(extents: np.ndarray) -> bool:
    """Return whether all rows of at least two scores lie in [0, 1] and sum to 1, as probabilities do."""
    several = bool(extents[0, 3] > 1)
    return several and _in_unit(extents) and bool((np.abs(extents[:, 2] - 1) < 1e-3).all())


def _in_unit(extents):
    low, high = extents[:, 0].min(), extents[:, 1].max()
    # Scores that never change tell nothing.
    return bool(0 <= low < high <= 1)


def warn_of(extents: np.ndarray, *, normalized: bool) -> None:
    """Warn if the scores of changed images contradict the assumption of logits or probabilities.

    Args:
        extents: `extent` of the scores, [images, 4].
        normalized: Whether they were treated as probabilities.
    """
    rule = "the sigmoid" if extents[0, 3] == 1 else "a softmax"
    if sum_to_one(extents):
        found = "lie in [0, 1] and sum to 1, as probabilities do"
    elif _in_unit(extents):
        found = "lie in [0, 1], as probabilities of independent labels do"
    elif extents[0, 3] == 1 and (np.abs(extents[:, 0]) > _SATURATED).all():
        found = f"are all beyond {_SATURATED}, where the sigmoid is 0 or 1"
    else:
        return
    how = "they are explained as they are" if normalized else f"{rule} was taken of them as of logits"
    checks.warn(f"the model's scores {found}: {how}. To explain anything else {_ADVICE}")
