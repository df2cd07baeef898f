"""`visualize`: its loop against a plain one, keys and batches, compilation, warnings and errors."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import slow_but
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

import jaxai
from jaxai.features import _engine, directions, objectives, parametrize, priors, transforms
from jaxai.features._visualize import SmallImageWarning

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)


def convolve(kernel, x):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def relu_layer(kernel, x):
    # The bias keeps every channel alive.
    return jax.nn.relu(convolve(kernel, x) + jnp.asarray(1, x.dtype))


def kernel(seed, channels, features):
    return jax.random.normal(jax.random.key(seed), (3, 3, channels, features)) / np.sqrt(9 * channels)


NET = jaxai.chain(
    {
        "early": Partial(relu_layer, kernel(1, 3, 6)),
        "late": Partial(relu_layer, kernel(2, 6, 5)),
        "logits": Partial(lambda w, x: x.mean((1, 2)) @ w, jax.random.normal(jax.random.key(3), (5, 4))),
    }
)
# One recipe for most tests, so that it is compiled once.
QUICK = {"key": KEY, "size": 12, "steps": 4, "parametrization": "pixels", "transforms": None, "redirect": 0}


def moving(**options):
    shifts = transforms.Transforms(jitter=(0.2, 0.0), angles=(-10.0, 10.0))
    return {**QUICK, "transforms": shifts, **options}


@pytest.mark.slow
def test_the_loop_is_adam_on_the_parameters():
    found = jaxai.visualize(NET, "late:2", **QUICK)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0)
    params = parametrize.Pixels().init(jax.random.fold_in(jax.random.split(key)[0], 0), (12, 12, 3))

    def value(params):
        image = parametrize.Pixels().render(params, (12, 12, 3))
        return NET(image[None], stop="late")[..., 2].mean()

    first, second = np.zeros(params.shape), np.zeros(params.shape)
    params = np.asarray(params, np.float64)
    history = []
    for step in range(1, 5):
        history.append(value(jnp.asarray(params, jnp.float32)))
        gradient = -np.asarray(jax.grad(value)(jnp.asarray(params, jnp.float32)), np.float64)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        params = params - 0.05 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(found.history[0], history, rtol=1e-4)
    image = parametrize.Pixels().render(jnp.asarray(params, jnp.float32), (12, 12, 3))
    np.testing.assert_allclose(found.images[0], image, atol=1e-4)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "kind", ["pixels", "fourier", "laplacian", "cppn", parametrize.Shared(divisors=(2,))]
)
def test_the_objective_rises_for_every_parametrization(kind):
    found = jaxai.visualize(NET, "late:1", **{**QUICK, "steps": 12, "parametrization": kind})
    history = np.asarray(found.history)[0]
    assert history[-1] > history[0]
    assert found.images.shape == (1, 12, 12, 3)
    assert 0 <= found.images.min() <= found.images.max() <= 1


@pytest.mark.slow
def test_runs_of_all_structures_come_back_in_order():
    wanted = ["late:1", "logits:2", "late:3", "early"]
    found = jaxai.visualize(NET, wanted, **QUICK)
    assert found.images.shape == (4, 12, 12, 3)
    assert found.history.shape == (4, 4)
    for i, one in enumerate(wanted):
        alone = jaxai.visualize(NET, one, indices=[i], **QUICK)
        np.testing.assert_allclose(alone.history[0], found.history[i], rtol=1e-4)
        np.testing.assert_allclose(alone.images[0], found.images[i], atol=1e-4)


@pytest.mark.slow
def test_batches_and_keys_do_not_change_a_run():
    wanted = [f"late:{c}" for c in range(5)]
    together = jaxai.visualize(NET, wanted, **moving())
    chunked = jaxai.visualize(NET, wanted, **moving(batch_size=2))
    np.testing.assert_allclose(chunked.history, together.history, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(chunked.images, together.images, atol=1e-4)
    alone = jaxai.visualize(NET, "late:3", **moving(indices=[3]))
    np.testing.assert_allclose(alone.images[0], together.images[3], atol=1e-4)
    again = jaxai.visualize(NET, wanted, **moving())
    np.testing.assert_array_equal(again.images, together.images)
    other = jaxai.visualize(NET, wanted, **moving(key=jax.random.key(1)))
    assert np.abs(other.images - together.images).max() > 0.01
    # Each run of a batch has its own transforms and start.
    same = jaxai.visualize(NET, ["late:3"] * 5, **moving())
    assert np.abs(same.history[0] - same.history[1]).max() > 1e-4


def test_new_channels_and_weights_compile_nothing():
    jaxai.visualize(NET, ["late:0", "late:1"], **QUICK)
    size = _engine.run._cache_size()
    jaxai.visualize(NET, ["late:4", "late:2"], **QUICK)
    jaxai.visualize(jax.tree.map(lambda a: 2 * a, NET), ["late:4", "late:2"], **QUICK)
    jaxai.visualize(NET, ["late:4", "late:2"], **{**QUICK, "key": jax.random.key(5)}, indices=[7, 8])
    assert _engine.run._cache_size() == size


def test_the_network_stops_at_the_deepest_layer_asked_for():
    def never(x):
        raise AssertionError("ran beyond the layer")

    net = jaxai.chain({"a": Partial(relu_layer, kernel(1, 3, 6)), "b": lambda x: x * 1.0, "c": never})
    both = objectives.channel("b", 1) + objectives.channel("a", 2)
    assert jaxai.visualize(net, both, **QUICK).images.shape == (1, 12, 12, 3)


def test_a_model_without_layers_and_a_plain_function():
    found = jaxai.visualize(lambda x: x.mean((1, 2)), ["logits:0", "logits:2"], **QUICK)
    means = np.asarray(found.images).mean((1, 2))
    assert means[0, 0] > means[0, 2]
    assert means[1, 2] > means[1, 0]
    brightest = jaxai.visualize(NET, lambda images: images.mean((1, 2, 3)), **QUICK)
    assert brightest.images.min() > 0.52


def test_compiled_by_the_caller():
    def images(net):
        return jaxai.visualize(net, "late:2", **QUICK).images

    np.testing.assert_allclose(jax.jit(images)(NET), images(NET), atol=1e-5)


@pytest.mark.slow
def test_snapshots_and_importance():
    found = jaxai.visualize(NET, ["late:1", "late:2"], snapshots=[2, 4], **QUICK)
    assert found.snapshots.shape == (2, 2, 12, 12, 3)
    np.testing.assert_allclose(found.snapshots[1], found.images, atol=1e-6)
    halfway = jaxai.visualize(NET, ["late:1", "late:2"], **{**QUICK, "steps": 2})
    np.testing.assert_allclose(found.snapshots[0], halfway.images, atol=1e-5)
    assert found.importance.shape == found.opacity.shape == (2, 12, 12)
    assert found.importance.min() >= 0
    np.testing.assert_array_equal(found.opacity, 1)
    spot = jaxai.visualize(NET, "early:0@3,4", **QUICK).importance[0] > 0
    assert spot[2:5, 3:6].any()
    assert not spot.at[2:5, 3:6].set(False).any()


def test_starting_from_a_photo():
    photos = jax.random.uniform(KEY, (2, 12, 12, 3), minval=0.1, maxval=0.9)
    slow = jaxai.features.visualize(
        NET, ["late:1", "late:2"], start=photos, **{**QUICK, "steps": 1, "optimizer": optax.sgd(0.0)}
    )
    np.testing.assert_allclose(slow.images, photos, atol=1e-4)
    with pytest.raises(ValueError, match="`start` must be"):
        jaxai.visualize(NET, "late:1", start=photos[:, :5], **QUICK)


@pytest.mark.slow
def test_copies_are_optimised_together():
    apart = jaxai.visualize(NET, objectives.channel("late", 1), copies=3, **QUICK)
    assert apart.images.shape == (3, 12, 12, 3)
    assert apart.history.shape == (3, 4)
    diverse = objectives.channel("late", 1) + 5 * directions.diversity("early")
    found = jaxai.visualize(NET, diverse, copies=3, **QUICK)
    view = {"early": NET(found.images, stop="early")}
    plain = {"early": NET(apart.images, stop="early")}
    assert directions.diversity("early")(view).sum() > directions.diversity("early")(plain).sum()


@pytest.mark.slow
def test_opacity_is_optimised_in_front_of_noise():
    wanted = objectives.channel("early", 1) * (1 - priors.opacity())
    found = jaxai.visualize(NET, wanted, alpha=True, **QUICK)
    assert found.opacity.shape == (1, 12, 12)
    assert 0 < found.opacity.min() <= found.opacity.max() < 1
    assert np.ptp(np.asarray(found.opacity)) > 0.01
    with pytest.raises(ValueError, match="alpha"):
        jaxai.visualize(NET, priors.opacity(), **QUICK)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channel_counts(channels):
    net = jaxai.chain({"a": Partial(relu_layer, kernel(1, channels, 2))})
    assert jaxai.visualize(net, "a:1", channels=channels, **QUICK).images.shape == (1, 12, 12, channels)


@pytest.mark.slow
def test_views_are_averaged():
    shifts = transforms.Transforms(jitter=(0.5, 0.0))
    options = {**QUICK, "transforms": shifts, "steps": 1}
    many = jaxai.visualize(NET, ["early:1@center"] * 24, **options, crops=16)
    one = jaxai.visualize(NET, ["early:1@center"] * 24, **options, crops=1)
    assert many.history.std() < 0.6 * one.history.std()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", slow_but(4, [1, 4, 14]))
def test_views_may_take_turns(batch_size):
    options = {**QUICK, "crops": 7, "alpha": True, "anneal": True}
    options["transforms"] = transforms.Transforms(jitter=(0.2, 0.1), noise=0.1)
    both = ["late:1", "late:2"]
    whole = jaxai.visualize(NET, both, **options, batch_size=64)
    turns = jaxai.visualize(NET, both, **options, batch_size=batch_size)
    for name in ("images", "opacity", "history", "importance"):
        np.testing.assert_allclose(getattr(turns, name), getattr(whole, name), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_redirected_relus_revive_a_dead_channel_and_nothing_else():
    dead = jaxai.chain({"a": Partial(lambda b, x: jax.nn.relu(x - b), jnp.float32(0.55))})
    with pytest.warns(UserWarning, match=r"objectives \[0\] had the same value"):
        still = jaxai.visualize(dead, "a:0", **QUICK)
    assert (np.asarray(still.history) == 0).all()
    alive = jaxai.visualize(dead, "a:0", **{**QUICK, "redirect": 16, "steps": 20})
    assert alive.history[0, -1] > 0
    # After the redirected steps the gradient is the network's own.
    short = {**QUICK, "redirect": 1}
    with pytest.warns(UserWarning, match=r"objectives \[0\] had the same value"):
        moved = jaxai.visualize(dead, "a:0", **short)
    assert (np.asarray(moved.images) != np.asarray(still.images)).any()


def test_a_channel_that_stays_dead_is_named_although_it_was_redirected():
    dead = jaxai.chain({"a": Partial(lambda b, x: jax.nn.relu(x - b), jnp.array([100.0, 0.2, 0.2]))})
    with pytest.warns(UserWarning, match=r"objectives \[0\] had the same value"):
        found = jaxai.visualize(dead, ["a:0", "a:1"], **{**QUICK, "redirect": 2})
    assert (found.history[0] == 0).all() and found.history[1, -1] > found.history[1, 0]


@pytest.mark.slow
def test_marked_networks_with_relus():
    marked = jaxai.layers.named(
        lambda x: checkpoint_name(relu_layer(kernel(1, 3, 6), x), "early"), jnp.zeros((1, 12, 12, 3))
    )
    options = {**QUICK, "redirect": 2}
    found = jaxai.visualize(marked, "early:1", **options)
    np.testing.assert_allclose(found.images, jaxai.visualize(NET, "early:1", **options).images, atol=1e-5)


def test_half_precision_follows_the_model():
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), NET)
    found = jaxai.visualize(half, "late:1", **QUICK)
    assert found.images.dtype == jnp.float32
    np.testing.assert_allclose(found.history, jaxai.visualize(NET, "late:1", **QUICK).history, rtol=0.05)


def test_a_flat_start_has_finite_steps():
    found = jaxai.visualize(NET, ["late:1", "late"], start=jnp.full((1, 12, 12, 3), 0.5), **QUICK)
    assert np.isfinite(found.images).all()


@pytest.mark.parametrize(
    ("objective", "change", "error", "message"),
    [
        ("mystery:1", {}, ValueError, "the layers are early, late, logits"),
        ("late:5", {}, ValueError, "channels 0 to 4; got 5"),
        ("late:-1", {}, ValueError, "channels 0 to 4; got -1"),
        ("late:1@12,0", {}, ValueError, "position"),
        ("logits:1@0,0", {}, ValueError, "position"),
        (directions.direction("late", np.ones(3)), {}, ValueError, "5 channels"),
        (directions.tensor_direction("late", np.ones((2, 2, 5))), {}, ValueError, "target of shape"),
        ([], {}, ValueError, "at least one"),
        (3, {}, TypeError, "not iterable|objective"),
        ("late:1", {"key": 3}, TypeError, "typed key"),
        ("late:1", {"size": 0}, ValueError, "size"),
        ("late:1", {"steps": 0}, ValueError, "steps"),
        ("late:1", {"copies": 0}, ValueError, "copies"),
        ("late:1", {"snapshots": [9]}, ValueError, "snapshots"),
        ("late:1", {"redirect": -1}, ValueError, "redirect"),
        ("late:1", {"parametrization": "wavelets"}, ValueError, "fourier"),
        ("late:1", {"transforms": "lucid"}, TypeError, "Transforms"),
        ("late:1", {"indices": [1, 2]}, ValueError, "indices"),
        ("late:1", {"channels": 4}, ValueError, "does not take images"),
    ],
)
def test_bad_arguments(objective, change, error, message):
    with pytest.raises(error, match=message):
        jaxai.visualize(NET, objective, **{**QUICK, **change})


def test_images_smaller_than_the_network_needs():
    def valid(kernel, x):
        return jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )

    net = jaxai.chain({"a": Partial(valid, kernel(1, 3, 4)), "b": Partial(valid, kernel(2, 4, 4))})
    with pytest.raises(ValueError, match="no positions for images of 4 x 4"):
        jaxai.visualize(net, "b:1", **{**QUICK, "size": 4})
    # Where what a unit sees is not known, few positions tell.
    net = jaxai.chain({"a": lambda x: jnp.sort(x[:, ::6, ::6], axis=1)})
    with pytest.warns(SmallImageWarning, match="only 2 x 2 positions"):
        jaxai.visualize(net, "a", **QUICK)


@pytest.mark.slow
def test_warnings_name_the_runs_that_went_wrong():
    with pytest.warns(UserWarning, match=r"objectives \[1\] had the same value"):
        jaxai.visualize(NET, ["late:1", lambda x: jnp.ones(1)], **QUICK)
    with pytest.warns(UserWarning, match="NaN"):
        jaxai.visualize(NET, lambda x: jnp.log(-x.mean((1, 2, 3))), **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxai.visualize(NET, "late:1", **QUICK)


def test_a_parametrization_must_be_a_pytree():
    class Flat:
        init = render = encode = None

    with pytest.raises(TypeError, match="register_static"):
        jaxai.visualize(NET, "late:1", **{**QUICK, "parametrization": Flat()})
