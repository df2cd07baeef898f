"""Receptive fields: how many pixels a unit of a layer looks at, read off the network's program."""

from dataclasses import dataclass
from typing import Any

from jax.extend.core import Literal

# Operations of which each output element sees the same element of each input of the same shape.
_ELEMENTWISE = frozenset(
    "abs add and cbrt clamp convert_element_type copy copy_p cos div eq erf exp exp2 expm1 ge gt integer_pow"
    " is_finite le log log1p logistic lt max min mul ne neg not or pow reduce_precision rem round rsqrt"
    " select_n sign sin sqrt square stop_gradient sub tan tanh xor optimization_barrier".split()
)
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclass(frozen=True)
class _Span:
    """What index i along an axis of an array sees: image lines `jump * i + low` to `jump * i + high`."""

    axis: int
    jump: int
    low: int
    high: int


class _Unknown(Exception):
    """An operation whose reach is not known."""


# Sees the whole image, whatever its size: what comes after a global mean.
_WHOLE = "whole"


def field(jaxpr: Any, output: int = 0) -> tuple[int, int] | None:
    """Return the rows and columns of the image that a unit sees if padding does not cut them off.

    Args:
        jaxpr: A closed jaxpr whose last input is the image, [batch, rows, columns, channels].
        output: Which of its outputs, with the positions along two axes.

    Returns:
        (rows, columns), of the local path if another one sees the whole image (a squeeze-excitation, say);
        None if there is none, or if the program has operations whose reach is not known.
    """
    inputs = jaxpr.jaxpr.invars
    image = (_Span(1, 1, 0, 0), _Span(2, 1, 0, 0))
    given = {variable: None for variable in (*inputs[:-1], *jaxpr.jaxpr.constvars)}
    try:
        found = _outputs(jaxpr.jaxpr, {**given, inputs[-1]: image})[output]
    except _Unknown:
        return None
    if found is None or _WHOLE in found:
        return None
    rows, columns = (int(span.high - span.low + 1) for span in found)
    return rows, columns


def _outputs(jaxpr: Any, known: dict[Any, Any]) -> list[Any]:
    """Return what each output sees: None for nothing of the image, or a span for rows and one for columns."""

    def read(atom):
        return None if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        seen = [read(atom) for atom in equation.invars]
        if all(one is None for one in seen):
            results = [None] * len(equation.outvars)
        else:
            results = _rule(equation, seen)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _rule(equation: Any, seen: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    for key in _CALLS:
        if key in params:
            inner = params[key]
            inner = getattr(inner, "jaxpr", inner)
            if len(inner.invars) != len(seen):
                raise _Unknown(name)
            blank = {variable: None for variable in inner.constvars}
            return _outputs(inner, {**blank, **dict(zip(inner.invars, seen, strict=True))})
    if name == "cond" and seen[0] is None:
        branches = [
            _outputs(branch.jaxpr, dict(zip(branch.jaxpr.invars, seen[1:], strict=True)))
            for branch in params["branches"]
        ]
        return [_union(results) for results in zip(*branches, strict=True)]
    if name in _ELEMENTWISE:
        return [_union(seen)] * len(equation.outvars)
    if name == "concatenate":
        found = _union(seen)
        if any(isinstance(span, _Span) and span.axis == params["dimension"] for span in found or ()):
            raise _Unknown(name)
        return [found]
    first, *rest = seen
    if first is None or any(one is not None for one in rest):
        raise _Unknown(name)
    shapes = [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]
    return [tuple(span if span == _WHOLE else _move(name, params, shapes, span) for span in first)]


def _union(seen):
    """Return what is seen by any; spans of one array have the same axis and jump."""
    spans = [one for one in seen if one is not None]
    if not spans:
        return None
    return tuple(_join([one[i] for one in spans]) for i in range(2))


def _join(spans):
    local = [span for span in spans if span != _WHOLE]
    if not local:
        return _WHOLE
    if len({(span.axis, span.jump) for span in local}) > 1:
        raise _Unknown("join")
    low, high = min(span.low for span in local), max(span.high for span in local)
    return _Span(local[0].axis, local[0].jump, low, high)


def _move(name, params, shapes, span):
    """Return the span after an operation with one input that sees the image."""
    axis = span.axis
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        if axis not in numbers.lhs_spec[2:]:
            raise _Unknown(name)
        place = numbers.lhs_spec[2:].index(axis)
        if params["lhs_dilation"][place] != 1:
            raise _Unknown(name)
        reach = (shapes[1][numbers.rhs_spec[2 + place]] - 1) * params["rhs_dilation"][place]
        moved = _window(span, reach, params["window_strides"][place], params["padding"][place][0])
        return _Span(numbers.out_spec[2 + place], moved.jump, moved.low, moved.high)
    if name.startswith("reduce_window") and params["base_dilation"][axis] == 1:
        reach = (params["window_dimensions"][axis] - 1) * params["window_dilation"][axis]
        return _window(span, reach, params["window_strides"][axis], params["padding"][axis][0])
    if name == "slice":
        stride = 1 if params["strides"] is None else params["strides"][axis]
        return _window(span, 0, stride, -params["start_indices"][axis])
    if name == "pad" and params["padding_config"][axis][2] == 0:
        return _window(span, 0, 1, params["padding_config"][axis][0])
    if name == "transpose":
        return _Span(params["permutation"].index(axis), span.jump, span.low, span.high)
    if name == "broadcast_in_dim":
        return _Span(params["broadcast_dimensions"][axis], span.jump, span.low, span.high)
    if name == "squeeze" and axis not in params["dimensions"]:
        return _Span(axis - sum(d < axis for d in params["dimensions"]), span.jump, span.low, span.high)
    if name == "rev" and axis not in params["dimensions"]:
        return span
    if name == "dot_general":
        return _contract(params, shapes, span)
    if name.startswith("reduce_") and "axes" in params:
        if axis in params["axes"]:
            return _WHOLE
        return _Span(axis - sum(d < axis for d in params["axes"]), span.jump, span.low, span.high)
    raise _Unknown(name)


def _window(span, reach, stride, padding):
    """Return the span of a window of `reach` + 1 elements after `padding` elements were put in front."""
    low = span.low - padding * span.jump
    high = span.high + (reach - padding) * span.jump
    return _Span(span.axis, span.jump * stride, low, high)


def _contract(params, shapes, span):
    (contracted, _), (batch, _) = params["dimension_numbers"]
    if span.axis in contracted:
        return _WHOLE
    if span.axis in batch:
        return _Span(batch.index(span.axis), span.jump, span.low, span.high)
    free = [d for d in range(len(shapes[0])) if d not in (*contracted, *batch)]
    return _Span(len(batch) + free.index(span.axis), span.jump, span.low, span.high)
