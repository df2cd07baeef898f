"""The table of primitives: each of its facts, checked numerically on random operands."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxai._program.facts import FACTS, Window
from jaxai._program.graph import Constant, graph_of
from jaxai._program.run import values

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def uniform(low, high, *shape):
    return RNG.uniform(low, high, size=shape).astype(np.float32)


def complexes(*shape):
    return (normal(*shape) + 1j * normal(*shape)).astype(np.complex64)


def predicate(*shape):
    return RNG.normal(size=shape) > 0


def conv(x, kernel, strides=(1, 1), padding="VALID", numbers=("NHWC", "HWIO", "NHWC"), **more):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, **more)


def windows(start, function):
    """Return sums or extremes over windows: strided, padded, dilated, and over a dilated operand."""

    def over(size, strides, padding, **more):
        return lambda x: lax.reduce_window(x, start, function, size, strides, padding, **more)

    return [
        (over((1, 3, 2, 1), (1, 2, 1, 1), "VALID"), normal(1, 8, 5, 2)),
        (over((1, 3, 3, 1), (1, 2, 3, 1), "SAME"), normal(2, 7, 8, 1)),
        (over((1, 2, 1, 1), (1, 1, 1, 1), "VALID", window_dilation=(1, 3, 1, 1)), normal(1, 7, 2, 1)),
        (over((2, 1, 1, 1), (2, 1, 1, 1), "VALID", base_dilation=(1, 2, 1, 1)), normal(4, 3, 2, 1)),
    ]


# What each primitive is tried on: functions that contain it once, and their operands.
EXAMPLES = {
    "acosh": [(lax.acosh, uniform(1.1, 4, 3, 4))],
    "add_any": [(jax.grad(lambda x: (jnp.sin(x) + jnp.cos(x)).sum()), normal(3, 4))],
    "argmax": [(lambda x: jnp.argmax(x, 1), normal(3, 4, 2))],
    "argmin": [(lambda x: jnp.argmin(x, 1), normal(3, 4, 2))],
    "broadcast_in_dim": [
        (lambda x: lax.broadcast_in_dim(x, (2, 3, 5, 4), (1, 3)), normal(3, 4)),
        (lambda x: lax.broadcast_in_dim(x, (3, 4), (0, 1)), normal(3, 1)),
    ],
    "clamp": [
        (lax.clamp, uniform(-1, 0, 3, 4), normal(3, 4), uniform(0, 1, 3, 4)),
        (lambda x: lax.clamp(-1.0, x, 1.0), normal(3, 4)),
    ],
    "complex": [(lax.complex, normal(3, 4), normal(3, 4))],
    "concatenate": [(lambda x, y: lax.concatenate([x, y], 1), normal(3, 2), normal(3, 4))],
    "conv_general_dilated": [
        (conv, normal(1, 6, 5, 2), normal(3, 2, 2, 3)),
        (partial(conv, strides=(2, 1), padding="SAME"), normal(2, 8, 5, 2), normal(3, 3, 2, 3)),
        (
            partial(conv, strides=(1, 2), padding=((-1, 2), (3, 0)), rhs_dilation=(2, 1)),
            normal(1, 9, 6, 1),
            normal(3, 2, 1, 2),
        ),
        (partial(conv, feature_group_count=3), normal(1, 4, 5, 3), normal(2, 2, 1, 3)),
        (partial(conv, feature_group_count=2), normal(1, 4, 5, 4), normal(2, 2, 2, 4)),
        (partial(conv, numbers=("NCHW", "OIHW", "NHWC")), normal(1, 2, 5, 6), normal(3, 2, 2, 3)),
        (
            partial(conv, padding=((1, 1), (0, 0)), lhs_dilation=(2, 1)),
            normal(1, 4, 5, 2),
            normal(3, 3, 2, 1),
        ),
    ],
    "convert_element_type": [
        (lambda x: x.astype(jnp.float16), normal(3, 4)),
        (lambda x: x.astype(jnp.float32), jnp.asarray(normal(2, 3), jnp.bfloat16)),
    ],
    "copy": [(jnp.copy, normal(3, 4))],
    "device_put": [(jax.device_put, normal(3, 4))],
    "dot_general": [
        (jnp.matmul, normal(3, 4), normal(4, 5)),
        (
            partial(lax.dot_general, dimension_numbers=(((2,), (1,)), ((1,), (0,)))),
            normal(2, 3, 4),
            normal(3, 4, 5),
        ),
    ],
    "dynamic_slice": [(lambda x, i: lax.dynamic_slice(x, (i, 0), (2, 4)), normal(5, 4), np.int32(1))],
    "dynamic_update_slice": [
        (lambda x, y, i: lax.dynamic_update_slice(x, y, (i, 0)), normal(5, 4), normal(2, 4), np.int32(1))
    ],
    "fft": [(lambda x: lax.fft(x, "FFT", (4,)), complexes(3, 4))],
    "gather": [(lambda x, i: x.at[i].get(mode="clip"), normal(5, 4), np.array([3, 0, 3]))],
    "integer_pow": [
        (lambda x: x**3, normal(3, 4)),
        (lambda x: x**-1, uniform(0.5, 2, 3, 4)),
    ],
    "name": [(lambda x: checkpoint_name(x, "layer"), normal(3, 4))],
    "not": [(lax.bitwise_not, predicate(3, 4))],
    "optimization_barrier": [
        (lax.optimization_barrier, normal(3, 4)),
        (lambda x, y: lax.optimization_barrier((x, y)), normal(3, 4), normal(2, 3)),
    ],
    "pad": [
        (lambda x, y: lax.pad(x, y, [(1, 2, 0), (-1, 1, 0), (0, 0, 1)]), normal(3, 4, 2), normal()),
        (lambda x: lax.pad(x, np.float32(0), [(1, 1, 0), (0, 2, 0)]), normal(3, 4)),
    ],
    "pow": [(lax.pow, uniform(0.1, 2, 3, 4), uniform(0, 2, 3, 4))],
    "reduce_precision": [(lambda x: lax.reduce_precision(x, 8, 23), normal(3, 4))],
    "reduce_sum": [(lambda x: x.sum((1, 2)), normal(2, 3, 4, 5)), (jnp.sum, normal(2, 3))],
    "reduce_window_max": windows(-np.inf, lax.max),
    "reduce_window_min": windows(np.inf, lax.min),
    "reduce_window_sum": windows(0.0, lax.add),
    "reshape": [
        (lambda x: x.reshape(2, 12, 2), normal(2, 3, 4, 2)),
        (lambda x: x.reshape(3, 2, 2, 1), normal(3, 4)),
        (lambda x: x.reshape(4, 3), normal(3, 4)),
    ],
    "rev": [(lambda x: lax.rev(x, (1,)), normal(2, 3))],
    "scatter": [
        (lambda x, y: x.at[np.array([3, 0])].set(y, unique_indices=True), normal(5, 4), normal(2, 4))
    ],
    "scatter-add": [(lambda x, y: x.at[np.array([3, 0, 3])].add(y), normal(5, 4), normal(3, 4))],
    "select_n": [
        (lax.select_n, predicate(3, 4), normal(3, 4), normal(3, 4)),
        (lax.select_n, predicate(), normal(2, 2), normal(2, 2)),
    ],
    "sharding_constraint": [(lambda x: lax.with_sharding_constraint(x, HERE), normal(3, 4))],
    "slice": [(lambda x: lax.slice(x, (0, 1, 2), (2, 7, 5), (1, 2, 1)), normal(2, 8, 5))],
    "sort": [(lambda x: lax.sort(x, dimension=1), normal(3, 4, 2))],
    "split": [(lambda x: jnp.split(x, 2, 1), normal(3, 4))],
    "squeeze": [(lambda x: lax.squeeze(x, (0, 2)), normal(1, 3, 1, 4))],
    "stack": [(lambda x, y: jnp.stack([x, y], 1), normal(3, 2), normal(3, 2))],
    "tile": [(lambda x: jnp.tile(x, (2, 1, 3)), normal(3, 2, 4))],
    "transpose": [(lambda x: x.transpose(0, 3, 1, 2), normal(2, 3, 4, 5))],
    "unstack": [(lambda x: jnp.unstack(x, axis=1), normal(3, 2, 4))],
}
REAL = "sin cos tan exp exp2 expm1 tanh logistic atan sinh cosh asinh cbrt erf erfc square abs neg sign floor"
for names, operands in {
    f"{REAL} ceil round is_finite stop_gradient": [normal(3, 4)],
    "asin acos atanh erf_inv": [uniform(0.1, 0.9, 3, 4)],
    "log log1p sqrt rsqrt digamma lgamma": [uniform(0.1, 4, 3, 4)],
    "real imag conj": [complexes(3, 4)],
    "add sub mul div max min atan2 rem nextafter eq ne lt le gt ge": [normal(3, 4), normal(3, 4)],
}.items():
    for name in names.split():
        EXAMPLES[name] = [(getattr(lax, name), *operands)]
for name in ("and", "or", "xor"):
    EXAMPLES[name] = [(getattr(lax, f"bitwise_{name}"), predicate(3, 4), predicate(3, 4))]
    EXAMPLES[f"reduce_{name}"] = [(partial(getattr(lax, f"reduce_{name}"), axes=(1,)), predicate(3, 4))]
for name in ("max", "min", "prod"):
    EXAMPLES[f"reduce_{name}"] = [(partial(getattr(jnp, name), axis=1), normal(3, 4, 2))]
for name in ("cumsum", "cummax", "cummin", "cumprod", "cumlogsumexp"):
    EXAMPLES[name] = [(partial(getattr(lax, name), axis=1), normal(3, 4, 2))]
# Needs a mesh with explicit axes; test_sharding.py has one.
ELSEWHERE = {"reshard"}


@cache
def node_of(name, number):
    """Return the node of an example's primitive, a function that runs it, and its operands there."""
    fn, *operands = EXAMPLES[name][number]
    graph = graph_of(jax.make_jaxpr(fn)(*operands))
    (node,) = [node for node in graph.nodes if node.name == name]
    found = values(graph, operands)
    given = [np.asarray(r.value if isinstance(r, Constant) else found[r]) for r in node.inputs]
    run = jax.jit(lambda *xs: list(node.run(*xs)))
    return node, lambda *xs: [np.asarray(y) for y in run(*xs)], given


def examples(name):
    return [node_of(name, number) for number in range(len(EXAMPLES[name]))]


def where(fact):
    return [name for name in sorted(EXAMPLES) if getattr(FACTS[name], fact)]


def inexact(x):
    return jnp.issubdtype(x.dtype, jnp.inexact)


def changed(operands, change):
    """Return operands with `change(number, operand)` for the inexact ones, in their types."""
    return [np.asarray(change(i, x), x.dtype) if inexact(x) else x for i, x in enumerate(operands)]


def close(ours, expected):
    for a, b in zip(ours, expected, strict=True):
        a, b = (np.asarray(x, np.complex64) for x in (a, b))
        finite = np.isfinite(b)
        np.testing.assert_array_equal(a[~finite], b[~finite])
        size = np.abs(b[finite]).max(initial=1e-6)
        np.testing.assert_allclose(a[finite], b[finite], rtol=2e-3, atol=2e-3 * size)


def test_every_primitive_of_the_table_is_tried():
    assert set(EXAMPLES) | ELSEWHERE == set(FACTS)


@pytest.mark.parametrize("name", where("linear"))
def test_linear(name):
    for _, run, operands in examples(name):
        rest = changed(operands, lambda i, x: 0.7 * x[::-1] + 0.1 if x.ndim else 0.3 - x)
        both = changed(operands, lambda i, x, rest=rest: 2 * x - 3 * rest[i])
        close(run(*both), [2 * a - 3 * b for a, b in zip(run(*operands), run(*rest), strict=True)])


@pytest.mark.parametrize("name", where("homogeneous"))
def test_homogeneous(name):
    for _, run, operands in examples(name):
        close(run(*changed(operands, lambda i, x: 2.5 * x)), [2.5 * y for y in run(*operands)])


@pytest.mark.parametrize("name", where("linear_in"))
def test_linear_in_an_operand(name):
    for _, run, operands in examples(name):
        for place in FACTS[name].linear_in:
            rest = changed(operands, lambda i, x, place=place: x**2 + 0.1 if i == place else x)
            both = changed(operands, lambda i, x, at=place, r=rest: 2 * x - 3 * r[i] if i == at else x)
            close(run(*both), [2 * a - 3 * b for a, b in zip(run(*operands), run(*rest), strict=True)])


@pytest.mark.parametrize("name", where("nonnegative"))
def test_nonnegative(name):
    for _, run, operands in examples(name):
        assert all((y >= 0).all() for y in run(*operands))


@pytest.mark.parametrize("name", where("keeps_sign"))
def test_keeps_sign(name):
    for _, run, operands in examples(name):
        # Windows that hold nothing have an infinite maximum or minimum.
        results = run(*changed(operands, lambda i, x: np.abs(x)))
        assert all(((y >= 0) | ~np.isfinite(y)).all() for y in results)


@pytest.mark.parametrize("name", where("flat"))
def test_flat(name):
    for node, _, operands in examples(name):
        tangents = [np.ones(x.shape, x.dtype if inexact(x) else jax.dtypes.float0) for x in operands]
        _, changes = jax.jvp(lambda *xs, node=node: list(node.run(*xs)), operands, tangents)
        assert all(dy.dtype == jax.dtypes.float0 or not dy.any() for dy in changes)


@pytest.mark.parametrize("name", sorted({*where("rearranges"), *where("picks")}))
def test_results_are_values_of_the_operands(name):
    for _, run, operands in examples(name):
        given = np.concatenate([np.ravel(x) for x in operands if inexact(x)]).astype(np.float32)
        finite = [np.ravel(y)[np.isfinite(np.ravel(y))] for y in run(*operands)]
        assert all(np.abs(y[:, None] - np.append(given, 0)).min(1).max() < 1e-3 for y in finite)


@pytest.mark.parametrize("name", where("rearranges"))
def test_rearranged_values_come_from_places_that_do_not_depend_on_them(name):
    for _, run, operands in examples(name):
        starts = np.cumsum([0, *(x.size * inexact(x) for x in operands)])
        places = run(*changed(operands, lambda i, x, s=starts: s[i] + 1 + np.arange(x.size).reshape(x.shape)))
        for change in (lambda i, x: x, lambda i, x: np.cos(5 * x)):
            given = changed(operands, change)
            table = np.concatenate([[0.0], *(np.ravel(x) for x in given if inexact(x))])
            for place, y in zip(places, run(*given), strict=True):
                np.testing.assert_allclose(table[place.astype(int)], y.astype(np.float32), atol=1e-3)


@pytest.mark.sampled
@pytest.mark.parametrize("name", where("sums"))
def test_sums_count_values_once(name):
    for node, _, (x,) in examples(name):
        slopes = jax.jacobian(lambda x, node=node: node.run(x)[0])(x)
        assert set(np.unique(slopes)) <= {0.0, 1.0} and slopes.any()


def moved(x, index, by):
    """Return an operand with other values at an index; by several sizes, that a maximum may notice."""
    x = x.copy()
    step = by * (1 + 1j) if np.iscomplexobj(x) else by
    x[index] = ~x[index] if x.dtype == bool else (x[index] + step).astype(x.dtype)
    return x


def differs(y, z):
    return (y != z) & ~((y != y) & (z != z))


@pytest.mark.parametrize("name", where("elementwise"))
def test_elementwise_results_depend_on_their_own_position(name):
    for _, run, operands in examples(name):
        results = run(*operands)
        for i, x in enumerate(operands):
            if not x.ndim:
                continue
            after = run(*(moved(v, (1, 1), 0.05) if j == i else v for j, v in enumerate(operands)))
            for j, (y, z) in enumerate(zip(results, after, strict=True)):
                others = differs(y, z)
                if len(results) == 1 or j == i:
                    assert y.shape == x.shape
                    others[1, 1] = False
                assert not others.any()


def readers(run, operands, axis, place, out_axis, number=0, result=0):
    """Return which results along `out_axis` change with an operand's values at a place of an axis."""
    x = operands[number]
    index = tuple(place if i == axis else slice(None) for i in range(x.ndim))
    before, found = run(*operands)[result], False
    for by in (0.05, 50, -50):
        # Steps of many sizes move maxima and minima too.
        by = by * (1 + np.arange(x[index].size).reshape(x[index].shape) / 100)
        after = run(*(moved(x, index, by) if i == number else v for i, v in enumerate(operands)))
        change = differs(before, after[result])
        found = found | change.any(tuple(i for i in range(change.ndim) if i != out_axis))
    return found


def keeps_order(run, operands, number, axis):
    """Return whether results further along an axis read places of an operand that lie further along it."""
    for result, y in enumerate(run(*operands)):
        places = range(operands[number].shape[axis])
        moves = np.stack([readers(run, operands, axis, place, axis, number, result) for place in places], 1)
        reads = [tuple(np.flatnonzero(row)) for row in moves if row.any()]
        ends = np.array([(read[0], read[-1]) for read in reads])
        if (np.diff(ends, axis=0) < 0).any() or (len(places) > 1 < y.shape[axis] and len(set(reads)) == 1):
            return False
    return True


@pytest.mark.parametrize("name", [name for name in where("aligned") if not FACTS[name].elementwise])
def test_aligned_axes_stay_in_their_place_and_order(name):
    for _, run, operands in examples(name):
        rank = run(*operands)[0].ndim
        for number, x in enumerate(operands):
            for axis in range(x.ndim if x.ndim == rank else 0):
                assert keeps_order(run, operands, number, axis)


def test_what_moves_or_turns_axes_is_not_aligned():
    for name, axis in {"transpose": 1, "rev": 1, "scatter": 0, "sort": 1}.items():
        _, run, operands = node_of(name, 0)
        number = 2 if name == "scatter" else 0
        assert not FACTS[name].aligned and not keeps_order(run, operands, number, axis)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_windows_say_which_operands_move_which_results(name):
    """Nothing outside of a window moves its result; its ends do, where the operand has them."""
    loose = FACTS[name].flat or name in (
        "dynamic_update_slice",
        "scatter",
        "reduce_and",
        "reduce_or",
        "reduce_xor",
    )
    for node, run, operands in examples(name):
        shapes = [x.shape for x in (*operands, *run(*operands))]
        for axis, size in enumerate(shapes[0]):
            reads = FACTS[name].window(node.params, shapes, axis)
            if not isinstance(reads, Window):
                continue
            moves = np.stack([readers(run, operands, axis, p, reads.axis) for p in range(size)])
            for i, column in enumerate(moves.T):
                first = i * reads.stride - reads.before
                seen, window = set(np.flatnonzero(column)), range(first, first + reads.size)
                assert seen <= set(window)
                assert loose or {window[0], window[-1]} & set(range(size)) <= seen


def test_what_is_said_of_axes():
    def said(name, number=0):
        node, run, operands = node_of(name, number)
        shapes = [x.shape for x in (*operands, *run(*operands))]
        return [FACTS[name].window(node.params, shapes, axis) for axis in range(operands[0].ndim)]

    assert said("reduce_sum") == [Window(0), "all", "all", Window(1)]
    assert said("rev") == [Window(0), None]
    assert said("reshape") == [Window(0), None, None, Window(2)]
    assert said("reshape", 2) == [None, None]
    assert said("dot_general", 1) == [Window(1), Window(0), "all"]
    assert said("conv_general_dilated", 1) == [Window(0), Window(1, 3, 2, 0), Window(2, 3, 1, 1), "all"]
    assert said("conv_general_dilated", 3) == [Window(0), Window(1, 2), Window(2, 2), Window(3)]
    assert said("conv_general_dilated", 4)[3] is None
    assert said("conv_general_dilated", 6)[1] is None
    assert said("cumsum")[1] == said("sort")[1] == said("reduce_max")[1] == "all"
