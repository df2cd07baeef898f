"""What is explained: forms of targets, their checks, and gradients for several of them."""

import every_method
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxai
from jaxai._frame import targets
from jaxai._frame.model import scores_shape
from jaxai._frame.targets import Target

SCORES = jnp.array([[1.0, 5.0, 2.0], [4.0, 0.0, -1.0]])
IMAGES = jnp.arange(24.0).reshape(2, 2, 2, 3)


def classes(given):
    return Target(jnp.asarray(given))


def model(x):
    return (x**2).sum((1, 2))


@pytest.mark.parametrize(
    "given, expected",
    [
        (1, [1, 1]),
        (np.int64(2), [2, 2]),
        ([0, 2], [0, 2]),
        (np.array([2, 1]), [2, 1]),
        (jnp.array([[0, 1], [2, 0]]), [[0, 1], [2, 0]]),
    ],
)
def test_classes_become_int32(given, expected):
    found = targets.prepare(model, IMAGES, given)[2].classes
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, expected)


def test_none_stays_and_callables_become_pytrees():
    assert targets.prepare(model, IMAGES, None)[2] == Target()

    def margin(scores):
        return scores[:, 0] - scores[:, 1]

    found = targets.prepare(model, IMAGES, margin)[2]
    assert found.function.captured.value is margin
    assert targets.prepare(model, IMAGES, found)[2] is found
    again = targets.prepare(model, IMAGES, found.plain)[2]
    assert jax.tree.structure(again) == jax.tree.structure(found)


@pytest.mark.parametrize(
    "given, error, message",
    [
        (3, ValueError, "classes 0 to 2; got 3"),
        (-1, ValueError, "classes 0 to 2; got -1"),
        ([0, 1, 2], ValueError, r"batch = 2; got shape \(3,\)"),
        (np.zeros((2, 0), int), ValueError, r"got shape \(2, 0\)"),
        (np.zeros((2, 1, 1), int), ValueError, r"got shape \(2, 1, 1\)"),
        (0.5, TypeError, "int"),
        ("cat", TypeError, "`targets` must be"),
    ],
)
def test_wrong_targets(given, error, message):
    with pytest.raises(error, match=message):
        targets.prepare(model, IMAGES, given)


def test_scores_without_classes_need_a_callable():
    with pytest.raises(ValueError, match=r"\[batch, classes\]; the model returns shape \(2, 2, 2, 3\)"):
        targets.prepare(lambda x: x, IMAGES, 0)
    targets.prepare(lambda x: x, IMAGES, lambda scores: scores.sum((1, 2, 3)))
    with pytest.raises(TypeError, match="returns a dict with keys .scores.: pass a callable target"):
        targets.prepare(lambda x: {"scores": x}, IMAGES, 0)
    with pytest.raises(TypeError, match="`model` must be callable"):
        targets.prepare("net", IMAGES, 0)


def test_traced_classes_are_taken_as_they_are():
    @jax.jit
    def traced(classes):
        return targets.prepare(model, IMAGES, classes)[2].classes

    np.testing.assert_array_equal(traced(jnp.array([7, 1])), [7, 1])
    # A list may hold traced numbers.
    np.testing.assert_array_equal(
        jax.jit(lambda c: targets.prepare(model, IMAGES, [c, 1])[2].classes)(0), [0, 1]
    )


def test_concrete_classes_are_checked_under_jit_as_well():
    with pytest.raises(ValueError, match="got 9"):
        jax.jit(lambda x: targets.prepare(model, x, np.array([9, 0]))[2].classes)(IMAGES)


def test_the_shape_of_scores_is_traced_once_for_each_structure_and_shape():
    traced = []

    def net(weights, scale, x):
        traced.append(x.shape)
        return scale * (x**2).sum((1, 2)) @ weights

    for weights in (np.eye(3, dtype=np.float32), jnp.ones((3, 3))):
        for scale in (2.0, 3.0):
            assert scores_shape(Partial(net, weights, scale), IMAGES) == (2, 3)
    assert scores_shape(Partial(net, weights[:, :2], 2.0), IMAGES[:1]) == (1, 2)
    assert traced == [(2, 2, 2, 3), (1, 2, 2, 3)]


def test_values_and_probabilities():
    np.testing.assert_array_equal(classes([1, 2]).of(SCORES), [5, -1])
    np.testing.assert_array_equal(classes([[1, 0], [2, 0]]).of(SCORES), [[5, 1], [-1, 4]])
    np.testing.assert_array_equal(Target().of(SCORES), [5, 4])
    np.testing.assert_array_equal(Target(function=Partial(lambda s: s.sum(1))).of(SCORES), [8, 3])
    with pytest.raises(ValueError, match=r"must return shape \(2,\)"):
        Target(function=Partial(lambda s: s)).of(SCORES)
    expected = np.exp([5, -1]) / np.exp(np.asarray(SCORES)).sum(1)
    np.testing.assert_allclose(classes([1, 2]).probability(SCORES), expected, rtol=1e-6)


def test_copies_of_images():
    two = classes([[0, 1], [2, 0]])
    np.testing.assert_array_equal(two.repeat(2).classes, [[0, 1], [0, 1], [2, 0], [2, 0]])
    np.testing.assert_array_equal(two.tile(2).classes, [[0, 1], [2, 0], [0, 1], [2, 0]])
    np.testing.assert_array_equal(classes([4, 5]).tile(2).classes, [4, 5, 4, 5])
    np.testing.assert_array_equal(two.take(jnp.array([1])).classes, [[2, 0]])
    for same in (Target.repeat, Target.tile, Target.take):
        assert same(Target(), 1) == Target()
    flat, copies, together = two.each()
    np.testing.assert_array_equal(flat.classes, [0, 1, 2, 0])
    np.testing.assert_array_equal(copies(jnp.array([5, 6])), [5, 5, 6, 6])
    np.testing.assert_array_equal(together(flat.classes), two.classes)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_gradients_of_several_targets(batch_size):
    several = classes([[0, 1, 2], [2, 1, 0]])
    values, grads = several.gradients(model, IMAGES, batch_size=batch_size)
    assert grads.shape == (2, 3, 2, 2, 3)
    x = np.asarray(IMAGES)
    for n in range(2):
        for k in range(3):
            c = int(several.classes[n, k])
            expected = np.zeros((2, 2, 3))
            expected[..., c] = 2 * x[n, ..., c]
            np.testing.assert_allclose(grads[n, k], expected, rtol=1e-6)
            np.testing.assert_allclose(values[n, k], (x[n, ..., c] ** 2).sum(), rtol=1e-6)


@pytest.mark.slow
def test_gradients_of_other_values_of_a_class():
    several = classes([[0, 1], [2, 1]])
    x = IMAGES / 24
    values, grads = several.gradients(model, x, value=Target.probability)
    for k in range(2):
        one_value, one = classes(several.classes[:, k]).gradients(model, x, value=Target.probability)
        np.testing.assert_allclose(values[:, k], one_value, rtol=1e-6)
        np.testing.assert_allclose(grads[:, k], one, atol=1e-6)
    expected = jax.grad(lambda x: jax.nn.softmax(model(x))[jnp.arange(2), several.classes[:, 0]].sum())(x)
    np.testing.assert_allclose(grads[:, 0], expected, atol=1e-6)


def test_gradients_of_the_top_class_and_of_callables():
    _, top = Target().gradients(model, IMAGES)
    _, second = classes(jnp.argmax(model(IMAGES), -1)).gradients(model, IMAGES)
    np.testing.assert_array_equal(top, second)
    _, both = Target(function=Partial(lambda s: s.sum(1))).gradients(model, IMAGES)
    np.testing.assert_allclose(both, 2 * IMAGES)


# Of each family one; the others are as slow as they are many.
QUICK = {"saliency", "grad_cam", "lrp", "rise", "deep_lift", "occlusion"}


EXPLAINED = [n for n in every_method.METHODS if n not in every_method.NOTHING and n != "finer_cam"]


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EXPLAINED]
)
def test_a_callable_that_sees_other_values_is_another_target(name, pooled_net, small_images):
    method, seen = every_method.METHODS[name], {}

    def target(scores):
        return scores @ seen["mix"]

    def explained(mix):
        seen["mix"] = jnp.asarray(mix, jnp.float32)
        return [np.asarray(a) for a in every_method.arrays(method(pooled_net, small_images, target))]

    one, two = np.eye(7)[[1, 2]]
    first, other = explained(one), explained(two)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    for a, b in zip(first, explained(one), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_callable_that_sees_the_same_is_compiled_once(name, pooled_net, small_images):
    compilations = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            compilations.append(event)

    mix = jnp.asarray(np.eye(7)[1], jnp.float32)

    def explained():
        # A new function of the same code at each call, as in a notebook.
        def target(scores):
            return scores @ mix

        every_method.arrays(every_method.METHODS[name](pooled_net, small_images, target))

    explained()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        explained()
        assert not compilations
        mix = mix + 1
        mix.block_until_ready()
        compilations.clear()
        explained()
        assert compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
def test_callable_options_see_other_values(pooled_net, small_images):
    seen = {}

    def phi(score):
        return jnp.exp(seen["scale"] * score)

    def saliency(model, images, targets):
        return seen["scale"] * jaxai.saliency(model, images, targets)

    def cam(model, images, targets, *, layer):
        return seen["scale"] * jaxai.hires_cam(model, images, targets, layer=layer)

    def all_of(scale):
        seen["scale"] = jnp.float32(scale)
        noisy = {"key": jax.random.key(0), "num_samples": 2}
        return [
            jaxai.grad_cam_plus_plus(pooled_net, small_images, 1, score_function=phi),
            jaxai.gradients.smooth(saliency, pooled_net, small_images, 1, **noisy),
            jaxai.fused_cam(pooled_net, small_images, 1, names=("conv1", "conv2"), method=cam, scale="none"),
        ]

    for first, other in zip(all_of(1.0), all_of(2.0), strict=True):
        assert np.abs(first - other).max() > 1e-4 * np.abs(first).max()
