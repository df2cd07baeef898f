"""Properties of JAX's primitives: the one table that all readers of programs use.

A fact refers to floating-point operands; integers and booleans (indices, predicates) are held fixed, and for
complex numbers it states what holds for real factors. A primitive that is not in the table has no known
properties.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

Shape = tuple[int, ...]


class Window(NamedTuple):
    """The entries that results read along one axis: result i reads the operand's from i * stride - before on.

    Attributes:
        axis: The results' axis.
        size: Number of neighbours that the window spans, including dilation.
        stride: Distance between neighbouring windows.
        before: How far the first window starts before the operand, because of padding. Negative if the
            operand is cropped.
    """

    axis: int
    size: int = 1
    stride: int = 1
    before: int = 0


Reads = Window | Literal["all"] | None


@dataclass(frozen=True)
class Fact:
    """Properties of a primitive f.

    Attributes:
        elementwise: All operands that are not scalars have the results' shape, and a result depends only on
            the operands' values at its own position. With several results, each depends on the operand with
            the same number.
        aligned: Axis i of an operand with the results' rank corresponds to axis i of the results, in the same
            order, whatever their lengths and the window. Elementwise implies aligned.
        rearranges: Every result is a value of an operand, at a position that does not depend on the values.
        linear: f(a + b) = f(a) + f(b) and f(c a) = c f(a), in all operands together.
        homogeneous: f(c a) = c f(a) for c > 0, in all operands together.
        linear_in: Places of the operands in which f is linear while the other is fixed: products, quotients.
        picks: Results are maxima or minima of some of the operands' values.
        sums: Results are sums of values of the only operand.
        flat: The derivative is zero wherever it exists.
        nonnegative: No result is negative.
        keeps_sign: No result is negative if no operand is.
        window: `window(params, shapes, axis)`, what results read along an axis of the first operand; `shapes`
            are those of the operands, then of the results. "all" if each reads the whole axis, None if
            unknown. Elementwise functions and reductions have a window as well.
    """

    elementwise: bool = False
    aligned: bool = False
    rearranges: bool = False
    linear: bool = False
    homogeneous: bool = False
    linear_in: tuple[int, ...] = ()
    picks: bool = False
    sums: bool = False
    flat: bool = False
    nonnegative: bool = False
    keeps_sign: bool = False
    window: Callable[[dict[str, Any], Sequence[Shape], int], Reads] = lambda params, shapes, axis: None


def _same(params, shapes, axis):
    return Window(axis)


def _convolution(params, shapes, axis):
    numbers = params["dimension_numbers"]
    (batch, features, *places), out = numbers.lhs_spec, numbers.out_spec
    if axis == batch:
        return Window(out[0]) if params["batch_group_count"] == 1 else None
    groups = params["feature_group_count"]
    if axis == features:
        each = groups == shapes[0][features] == shapes[1][numbers.rhs_spec[0]]
        return Window(out[1]) if each else "all" if groups == 1 else None
    place = places.index(axis)
    if params["lhs_dilation"][place] != 1:
        return None
    size = (shapes[1][numbers.rhs_spec[2 + place]] - 1) * params["rhs_dilation"][place] + 1
    return Window(out[2 + place], size, params["window_strides"][place], params["padding"][place][0])


def _reduce_window(params, shapes, axis):
    if params["base_dilation"][axis] != 1:
        return None
    size = (params["window_dimensions"][axis] - 1) * params["window_dilation"][axis] + 1
    return Window(axis, size, params["window_strides"][axis], params["padding"][axis][0])


def _slice(params, shapes, axis):
    stride = 1 if params["strides"] is None else params["strides"][axis]
    return Window(axis, 1, stride, -params["start_indices"][axis])


def _pad(params, shapes, axis):
    low, _, inside = params["padding_config"][axis]
    return None if inside else Window(axis, 1, 1, low)


def _reshape(params, shapes, axis):
    """Find an axis again after a reshape: of the same length, after as many values as before."""
    if params.get("dimensions") is not None:
        return None
    before, after = shapes[0], shapes[1]
    for place, size in enumerate(after):
        if size == before[axis] and _product(after[:place]) == _product(before[:axis]):
            return Window(place)
    return None


def _product(sizes):
    total = 1
    for size in sizes:
        total *= size
    return total


def _dropped(axis, dimensions):
    """Return an axis's number after the axes dropped before it are removed."""
    return Window(axis - sum(d < axis for d in dimensions))


def _squeeze(params, shapes, axis):
    return None if axis in params["dimensions"] else _dropped(axis, params["dimensions"])


def _reduce(params, shapes, axis):
    return "all" if axis in params["axes"] else _dropped(axis, params["axes"])


def _along(params, shapes, axis):
    """Window of an operation along one axis: each result reads all of that axis."""
    return "all" if axis == params.get("axis", params.get("dimension")) else Window(axis)


def _dot_general(params, shapes, axis):
    (contracted, _), (batch, _) = params["dimension_numbers"]
    if axis in contracted:
        return "all"
    if axis in batch:
        return Window(batch.index(axis))
    return Window(len(batch) + axis - sum(d < axis for d in (*contracted, *batch)))


def _broadcast(params, shapes, axis):
    place = params["broadcast_dimensions"][axis]
    return Window(place) if shapes[0][axis] == shapes[-1][place] else "all"


def _concatenate(params, shapes, axis):
    return None if axis == params["dimension"] else Window(axis)


def _split(params, shapes, axis):
    return None if axis == params["axis"] else Window(axis)


def _stack(params, shapes, axis):
    return Window(axis + (axis >= params["axis"]))


def _unstack(params, shapes, axis):
    return None if axis == params["axis"] else _dropped(axis, (params["axis"],))


def _unreversed(params, shapes, axis):
    return None if axis in params["dimensions"] else Window(axis)


def _whole(params, shapes, axis):
    return Window(axis) if shapes[0][axis] == shapes[-1][axis] else None


def _tile(params, shapes, axis):
    return Window(axis) if params["reps"][axis] == 1 else None


def _transpose(params, shapes, axis):
    return Window(list(params["permutation"]).index(axis))


_ELEMENTWISE = Fact(elementwise=True, aligned=True, window=_same)
_MOVES = Fact(rearranges=True, linear=True, homogeneous=True, keeps_sign=True)
_KEEPS = replace(_MOVES, elementwise=True, aligned=True, window=_same)
_PICKS = Fact(homogeneous=True, picks=True, keeps_sign=True)
_SUMS = Fact(linear=True, homogeneous=True, sums=True, keeps_sign=True)
_PRODUCT = Fact(linear_in=(0, 1), keeps_sign=True)


def _all(names: str, known: Fact, **more: Any) -> dict[str, Fact]:
    return dict.fromkeys(names.split(), replace(known, **more))


FACTS: dict[str, Fact] = {
    # Functions of one number.
    **_all("log sin cos tan acos acosh atanh digamma lgamma", _ELEMENTWISE),
    **_all("log1p expm1 tanh asin atan sinh asinh cbrt erf erf_inv", _ELEMENTWISE, keeps_sign=True),
    **_all("exp exp2 logistic cosh erfc square", _ELEMENTWISE, nonnegative=True, keeps_sign=True),
    **_all("sqrt rsqrt", _ELEMENTWISE, nonnegative=True, keeps_sign=True),
    **_all("integer_pow", _ELEMENTWISE, keeps_sign=True),
    **_all("abs", _ELEMENTWISE, homogeneous=True, nonnegative=True, keeps_sign=True),
    **_all("neg", _ELEMENTWISE, linear=True, homogeneous=True),
    **_all("sign floor ceil round", _ELEMENTWISE, flat=True, keeps_sign=True),
    **_all("is_finite not and or xor eq ne lt le gt ge", _ELEMENTWISE, flat=True),
    # Functions of several numbers.
    **_all("add add_any", _ELEMENTWISE, linear=True, homogeneous=True, keeps_sign=True),
    **_all("sub", _ELEMENTWISE, linear=True, homogeneous=True),
    **_all("select_n", _ELEMENTWISE, linear=True, homogeneous=True, keeps_sign=True),
    **_all("mul", _PRODUCT, elementwise=True, aligned=True, window=_same),
    **_all("div", _ELEMENTWISE, linear_in=(0,), keeps_sign=True),
    **_all("pow", _ELEMENTWISE, keeps_sign=True),
    **_all("rem", _ELEMENTWISE, homogeneous=True, keeps_sign=True),
    **_all("atan2", _ELEMENTWISE, keeps_sign=True),
    **_all("nextafter", _ELEMENTWISE),
    **_all("real imag conj complex", _ELEMENTWISE, linear=True, homogeneous=True),
    **_all("max min", _PICKS, elementwise=True, aligned=True, window=_same),
    **_all("clamp", _ELEMENTWISE, homogeneous=True, keeps_sign=True),
    # Values at other positions.
    **_all("copy name reduce_precision convert_element_type optimization_barrier", _KEEPS),
    **_all("device_put sharding_constraint reshard", _KEEPS),
    **_all("stop_gradient", _KEEPS, flat=True),
    **_all("reshape", _MOVES, window=_reshape),
    **_all("transpose", _MOVES, window=_transpose),
    **_all("squeeze", _MOVES, window=_squeeze),
    **_all("broadcast_in_dim", _MOVES, window=_broadcast),
    **_all("slice", _MOVES, aligned=True, window=_slice),
    **_all("pad", _MOVES, aligned=True, window=_pad),
    **_all("concatenate", _MOVES, aligned=True, window=_concatenate),
    **_all("rev", _MOVES, window=_unreversed),
    **_all("split", _MOVES, aligned=True, window=_split),
    **_all("stack", _MOVES, window=_stack),
    **_all("unstack", _MOVES, window=_unstack),
    **_all("dynamic_slice dynamic_update_slice", _MOVES, aligned=True, window=_whole),
    **_all("tile", _MOVES, window=_tile),
    **_all("gather", _MOVES),
    **_all("scatter", _MOVES, window=_same),
    # Sums, maxima and minima.
    **_all("reduce_sum", _SUMS, window=_reduce),
    **_all("reduce_window_sum", _SUMS, aligned=True, window=_reduce_window),
    **_all("cumsum", _SUMS, aligned=True, window=_along),
    **_all("scatter-add", Fact(linear=True, homogeneous=True), window=_same),
    **_all("fft", Fact(linear=True, homogeneous=True)),
    **_all("reduce_max reduce_min", _PICKS, window=_reduce),
    **_all("reduce_window_max reduce_window_min", _PICKS, aligned=True, window=_reduce_window),
    **_all("cummax cummin", _PICKS, aligned=True, window=_along),
    **_all("sort", Fact(homogeneous=True, keeps_sign=True), window=_along),
    **_all("reduce_prod reduce_and reduce_or reduce_xor", Fact(keeps_sign=True), window=_reduce),
    **_all("cumprod cumlogsumexp", Fact(aligned=True), window=_along),
    **_all("argmax argmin", Fact(flat=True), window=_reduce),
    # Products.
    **_all("dot_general", _PRODUCT, window=_dot_general),
    **_all("conv_general_dilated", _PRODUCT, window=_convolution),
}

_UNKNOWN = Fact()


def fact(name: str) -> Fact:
    """Return the properties of a primitive."""
    return FACTS.get(name, _UNKNOWN)
