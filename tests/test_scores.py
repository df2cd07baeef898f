"""What the scores of a model mean: logits, one logit, probabilities, several outputs; over every method."""

import warnings

import every_method
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_method import METHODS, NOTHING, PROBABILITY, SCORE, arrays

import jaxai
from jaxai._frame import checks, scores

pytestmark = pytest.mark.usefixtures("quick_compilation")

CELLS = (jnp.arange(8)[:, None] // 4 * 2 + jnp.arange(8) // 4)[None]
ONES = jnp.ones((1, 8, 8, 3))
KEY = jax.random.key(0)
RIGHT = jax.nn.sigmoid(3.0) - jax.nn.sigmoid(-3.0)


def first_logit(outputs):
    return outputs[:, 0]


def first_probability(outputs):
    return jax.nn.sigmoid(outputs[:, 0])


def chosen(outputs):
    return outputs["scores"][:, 1]


def second(outputs):
    return outputs[:, 1]


def corner(x):
    """One logit that sees the first quarter of the image alone."""
    return (6 * x[:, :4, :4].mean((1, 2, 3)) - 3)[:, None]


def quarters(x):
    return jnp.stack([x[:, i : i + 4, j : j + 4].mean((1, 2, 3)) for i in (0, 4) for j in (0, 4)], axis=1)


@pytest.fixture(scope="module")
def heads(pooled_net):
    """The same network with one output, with the sigmoid of it, and with a dict of outputs."""
    stages = dict(zip(pooled_net.layer_names, pooled_net.stages, strict=True))
    logits = stages["logits"]
    bodies = {name: stage for name, stage in stages.items() if name != "logits"}
    return {
        "one": jaxai.chain({**bodies, "logits": lambda h: logits(h)[:, :1]}),
        "sigmoid": jaxai.chain({**bodies, "logits": lambda h: jax.nn.sigmoid(logits(h)[:, :1])}),
        "dict": jaxai.chain({**bodies, "logits": lambda h: {"scores": logits(h), "features": h, "two": 2}}),
    }


def same(found, expected):
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_every_method_is_tested_here():
    assert set(every_method.explaining()) == set(METHODS)


@pytest.mark.parametrize("name", [*PROBABILITY, *(pytest.param(n, marks=pytest.mark.slow) for n in SCORE)])
def test_one_output_is_a_logit(name, heads, small_images):
    """The score, or its sigmoid where probabilities are explained."""
    method, images = METHODS[name], small_images[:2]
    if name == "finer_cam":
        with pytest.raises(ValueError, match="the model has one score: use grad_cam"):
            method(heads["one"], images, 0)
        return
    meant = first_probability if name in PROBABILITY else first_logit
    found = method(heads["one"], images, 0)
    same(found, method(heads["one"], images, meant))
    assert any(np.ptp(array) > 0 for array in arrays(found))


@pytest.mark.sampled
@pytest.mark.parametrize("name", PROBABILITY)
def test_one_probability_is_taken_as_it_is(name, heads, small_images):
    method, images = METHODS[name], small_images[:2]
    with pytest.warns(UserWarning, match="returns probabilities, not logits"):
        found = method(heads["sigmoid"], images)
    same(found, method(heads["sigmoid"], images, first_logit))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_callable_target_chooses_from_several_outputs(name, heads, pooled_net, small_images):
    method, images = METHODS[name], small_images[:2]
    if name == "finer_cam":
        return
    found = method(heads["dict"], images, chosen)
    if name == "full_gradients":
        # The outputs are joined, a constant among them, which is a part of its own.
        *biases, constant = found.biases
        assert (constant == 0).all()
        found = found._replace(biases=tuple(biases))
    same(found, method(pooled_net, images, second))
    if name in NOTHING:
        return
    for targets in (None, 1):
        with pytest.raises(TypeError, match="a dict with keys 'features', 'scores', 'two': pass a callable"):
            method(heads["dict"], images, targets)


@pytest.mark.parametrize("name", METHODS)
def test_an_image_that_is_not_finite_is_refused(name, pooled_net, small_images):
    with pytest.raises(ValueError, match="`images` must be finite; got NaN or infinite values in image 1"):
        METHODS[name](pooled_net, small_images.at[1, 2, 3, 0].set(jnp.nan), 1)


@pytest.mark.parametrize("name", METHODS)
def test_signals_grey_images_and_volumes_are_refused(name, pooled_net):
    for shape in ((2, 48), (2, 6, 8), (2, 4, 6, 8, 3)):
        with pytest.raises(ValueError, match=r"must be \[batch, height, width, channels\]; got shape"):
            METHODS[name](pooled_net, jnp.ones(shape), 1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_finite_images_are_told_from_others(dtype):
    with jax.enable_x64(dtype == "float64"):
        largest = jnp.full((2, 3, 3, 1), float(jnp.finfo(dtype).max), dtype)
        np.testing.assert_array_equal(checks.images(largest), largest)
        for bad in (jnp.nan, jnp.inf, -jnp.inf):
            with pytest.raises(ValueError, match="in image 1"):
                checks.images(largest.at[1, 0, 0, 0].set(bad))
    jax.jit(checks.images)(jnp.full((1, 1, 1, 1), jnp.nan))


@pytest.mark.slow
@pytest.mark.parametrize("net", [corner, lambda x: jax.nn.sigmoid(corner(x))], ids=["logit", "sigmoid"])
@pytest.mark.filterwarnings("ignore:.*returns probabilities")
def test_shapley_values_of_one_output_in_closed_form(net):
    options = {"segments": CELLS, "num_segments": 4}
    expected = np.array([[RIGHT, 0, 0, 0]])
    for found in (
        jaxai.kernel_shap(net, ONES, 0, key=KEY, num_samples=14, **options),
        jaxai.exact_shapley(net, ONES, **options),
        jaxai.permutation_shapley(net, ONES, 0, key=KEY, num_permutations=2, **options),
        jaxai.owen_values(net, ONES, segments=CELLS),
    ):
        np.testing.assert_allclose(found.values, expected, atol=1e-6)
    lime = jaxai.lime(net, ONES, key=KEY, fill=0.0, alpha=1e-6, num_samples=200, **options)
    np.testing.assert_allclose(lime.weights, expected, atol=1e-3)
    # Two networks under the same masks: the masks' own density is not all there is.
    here, there = (
        jaxai.rise(f, ONES, key=KEY, num_masks=60, grid=4)[0] for f in (net, lambda x: -7 * net(x))
    )
    assert (here - there)[:4, :4].mean() > 0.03 + (here - there)[4:, 4:].mean()


def test_one_output_of_a_black_box():
    box = jaxai.perturbation.black_box(lambda x: np.asarray(corner(x)))
    found = jaxai.exact_shapley(box, ONES, 0, segments=CELLS)
    np.testing.assert_allclose(found.values, [[RIGHT, 0, 0, 0]], atol=1e-6)


PROBABILITIES = {
    "softmax": lambda x: jax.nn.softmax(quarters(x)),
    "sigmoids": lambda x: jax.nn.sigmoid(6 * quarters(x) - 3),
    "reciprocal": lambda x: 1 / (1 + jnp.exp(3 - 6 * quarters(x))),
    "clipped": lambda x: jnp.clip(jax.nn.softmax(quarters(x)), 1e-6, 1 - 1e-6),
    "exponential": lambda x: jnp.exp(jax.nn.log_softmax(quarters(x))),
    "ensemble": lambda x: jnp.stack([jax.nn.softmax(s * quarters(x)) for s in (1, 2)]).mean(0),
    "two": lambda x: jnp.concatenate([1 - jax.nn.sigmoid(corner(x)), jax.nn.sigmoid(corner(x))], axis=1),
    "half": lambda x: jax.nn.softmax(quarters(x).astype(jnp.bfloat16)).astype(jnp.float32),
}
LOGITS = {
    "logits": quarters,
    "log_softmax": lambda x: jax.nn.log_softmax(quarters(x)),
    "scaled": lambda x: 3 * jax.nn.softmax(quarters(x)),
    "difference": lambda x: jax.nn.softmax(quarters(x)) - 0.25,
    "product": lambda x: jax.nn.softmax(quarters(x)) @ jnp.eye(4),
    "relu": lambda x: jax.nn.relu(corner(x)),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_programs_that_end_in_probabilities(name):
    net = PROBABILITIES[name]
    with pytest.warns(UserWarning, match="pass a callable target"):
        assert scores.are_probabilities(jax.tree_util.Partial(net), ONES)
    with pytest.warns(UserWarning, match="returns probabilities"):
        found = jaxai.exact_shapley(net, ONES, 0, segments=CELLS)
    same(found, jaxai.exact_shapley(net, ONES, first_logit, segments=CELLS))


@pytest.mark.parametrize("name", LOGITS)
def test_programs_that_do_not(name):
    assert not scores.are_probabilities(jax.tree_util.Partial(LOGITS[name]), ONES)


def test_the_program_is_read_under_jit_as_well():
    net = PROBABILITIES["sigmoids"]

    @jax.jit
    def values(x):
        return jaxai.exact_shapley(net, x, 0, segments=CELLS, num_segments=4).values

    with pytest.warns(UserWarning, match="returns probabilities"):
        found = values(ONES)
    np.testing.assert_allclose(found, [[RIGHT, 0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize(
    "predict, message",
    [
        (PROBABILITIES["softmax"], r"lie in \[0, 1\] and sum to 1, .*: they are explained as they are"),
        (PROBABILITIES["sigmoids"], r"independent labels do: a softmax was taken .*pass a callable target"),
        (lambda x: jax.nn.sigmoid(corner(x)), r"lie in \[0, 1\].* the sigmoid was taken .*callable target"),
        (lambda x: 30 + corner(x), "beyond 12, where the sigmoid is 0 or 1.*callable target"),
    ],
    ids=["softmax", "sigmoids", "one", "regression"],
)
def test_a_black_box_is_judged_by_its_scores(predict, message):
    box = jaxai.perturbation.black_box(lambda x: np.asarray(predict(x)))
    with pytest.warns(UserWarning, match=message):
        found = jaxai.exact_shapley(box, ONES, 0, segments=CELLS, batch_size=3)
    if "as they are" in message:
        same(found, jaxai.exact_shapley(predict, ONES, first_logit, segments=CELLS))


def test_scores_that_do_not_look_like_logits_are_warned_of():
    """Where the program does not say: a sigmoid written as a hyperbolic tangent, a regression."""

    def labels(x):
        return (jnp.tanh(3 * quarters(x) - 1.5) + 1) / 2

    with pytest.warns(UserWarning, match="independent labels do: a softmax was taken"):
        jaxai.exact_shapley(labels, ONES, 0, segments=CELLS)
    with pytest.warns(UserWarning, match="beyond 12, where the sigmoid"):
        jaxai.rise(lambda x: 30 + corner(x), ONES, key=KEY, num_masks=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxai.exact_shapley(lambda x: 8 * quarters(x), ONES, 0, segments=CELLS)


def test_utilities_that_need_logits():
    net = jaxai.chain({"conv": lambda x: 2 * x, "logits": lambda x: jax.nn.softmax(x.mean((1, 2)))})
    with pytest.raises(ValueError, match="needs logits"), pytest.warns(UserWarning, match="probabilities"):
        jaxai.shapley_cam(net, ONES, 0)


def test_one_hot_rows_are_refused(pooled_net, small_images):
    one_hot = np.eye(7, dtype=int)[[2, 0, 3]]
    with pytest.raises(ValueError, match=r"image 0 has class 0 twice. For one-hot rows pass the class"):
        jaxai.saliency(pooled_net, small_images, one_hot)
    with pytest.raises(ValueError, match="image 1 has class 4 twice"):
        jaxai.rise(pooled_net, small_images, [[1, 2], [4, 4], [0, 1]], key=KEY, num_masks=4)
    box = jaxai.perturbation.black_box(lambda x: np.asarray(pooled_net(x)))
    with pytest.raises(ValueError, match="one-hot rows"):
        jaxai.rise(box, small_images, one_hot, key=KEY, num_masks=4)


def test_functions_with_arrays_are_kept_whole_by_chunks(pooled_net, small_images):
    """The arrays of a `Partial` have no batch axis to cut."""
    weights = jnp.arange(7.0)
    target = jax.tree_util.Partial(lambda w, outputs: outputs @ w, weights)
    whole = jaxai.saliency(pooled_net, small_images, target)
    same(jaxai.saliency(pooled_net, small_images, target, batch_size=2), whole)
    same(
        jaxai.grad_cam(pooled_net, small_images, target, batch_size=1),
        jaxai.grad_cam(pooled_net, small_images, target),
    )


def test_stages_that_return_no_array(small_images):
    net = jaxai.chain(
        {
            "conv": lambda x: 2 * x,
            "pair": lambda h: (h, h),
            "logits": lambda pair: pair[0].mean((1, 2)),
        }
    )
    same(jaxai.grad_cam(net, small_images, 1), jaxai.grad_cam(net, small_images, 1, layer="conv"))
    for method in (jaxai.grad_cam, jaxai.layer_integrated_gradients, jaxai.conductance, jaxai.score_cam):
        with pytest.raises(ValueError, match="'pair' returns a tuple of 2"):
            method(net, small_images, 1, layer="pair")
    with pytest.raises(ValueError, match="'pair' returns a tuple of 2"):
        jaxai.visualize(net, ["pair:1"], key=KEY, size=8, steps=1)


@pytest.mark.parametrize("softmax", [False, True])
def test_dense_scores_are_explained_at_the_last_hidden_layer(softmax, small_images):
    stages = {"conv1": lambda x: jnp.tanh(x @ jnp.ones((3, 5))), "conv2": lambda x: x @ jnp.ones((5, 2))}
    if softmax:
        stages["softmax"] = jax.nn.softmax
    net = jaxai.chain(stages)
    assert jaxai.layers.resolve(net, None, small_images) == "conv1"

    def region(outputs):
        return outputs[:, 1:3, 1:3, 1].sum((1, 2))

    found = jaxai.grad_cam(net, small_images, region)
    same(found, jaxai.grad_cam(net, small_images, region, layer="conv1"))
    # An output of a hidden layer's shape is not taken for one.
    same_shape = jaxai.chain({"one": lambda x: 2 * x, "two": lambda x: x + 1})
    assert jaxai.layers.resolve(same_shape, None, small_images) == "one"
