"""Concept vectors and their tests: closed forms, scikit-learn, planted concepts, and chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, slow_but

import jaxai
from jaxai.concepts import cav, concept_maps, concept_slopes, tcav, tcav_layers
from jaxai.concepts._tcav import holm

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ACTS = RNG.normal(size=(60, 5)).astype(np.float32) @ RNG.normal(size=(5, 5)).astype(np.float32)
LABELS = ACTS[:, 0] + RNG.normal(size=60) > 0.3


def unit(vector):
    return vector / np.linalg.norm(vector)


def scaled():
    centred = ACTS.astype(np.float64) - ACTS.mean(0)
    return centred / np.sqrt(np.square(centred).mean())


def test_the_pattern_is_the_difference_of_the_means():
    t = LABELS.astype(np.float64)
    pattern = ((t - t.mean())[:, None] * (ACTS - ACTS.mean(0))).mean(0) / t.var()
    np.testing.assert_allclose(pattern, ACTS[LABELS].mean(0) - ACTS[~LABELS].mean(0), rtol=1e-5)
    np.testing.assert_allclose(cav(ACTS, LABELS), unit(pattern), atol=1e-5)
    shaped = cav(ACTS.reshape(60, 1, 5), LABELS)
    assert shaped.shape == (1, 5) and np.isclose(jnp.linalg.norm(shaped), 1)


@pytest.mark.slow
def test_classifiers_are_those_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.svm import LinearSVC

    x, count, alpha = scaled(), len(LABELS), 0.02
    found = {
        name: np.asarray(cav(ACTS, LABELS, method=name, alpha=alpha)) for name in ("ridge", "logistic", "svm")
    }
    ridge = Ridge(alpha=count * alpha).fit(x, LABELS.astype(float)).coef_
    logistic = LogisticRegression(C=1 / (count * alpha), tol=1e-10, max_iter=10000).fit(x, LABELS).coef_[0]
    # A large scale keeps the penalty off the intercept.
    svm = (
        LinearSVC(C=1 / (count * alpha), tol=1e-10, max_iter=200000, intercept_scaling=1e3)
        .fit(x, LABELS)
        .coef_[0]
    )
    for name, expected in (("ridge", ridge), ("logistic", logistic), ("svm", svm)):
        np.testing.assert_allclose(found[name], unit(expected), atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_only_the_pattern_is_right_beside_a_distractor():
    """The concept moves the first feature, a distractor the first two: normals point away from the second."""
    rng = np.random.default_rng(1)
    t, distractor = rng.random(4000) < 0.5, rng.normal(size=(4000, 1))
    acts = t[:, None] * [1.0, 0.0] + distractor * [1.0, 1.0] + 0.1 * rng.normal(size=(4000, 2))
    np.testing.assert_allclose(cav(acts, t), [1, 0], atol=0.05)
    assert cav(acts[:300], t[:300], method="ridge")[1] < -0.6
    assert cav(acts[:300], t[:300], method="logistic")[1] < -0.6


def test_errors_of_vectors():
    with pytest.raises(
        ValueError, match=r"`acts` must be \[examples, \*features\] and `labels` \[examples\]"
    ):
        cav(ACTS, LABELS[:9])
    with pytest.raises(ValueError, match="`labels` must be bool, with examples of the concept and others"):
        cav(ACTS, np.ones(60, bool))
    with pytest.raises(ValueError, match="must be finite and differ"):
        cav(np.ones((4, 3)), np.array([True, False, True, False]))
    with pytest.raises(ValueError, match="must be finite and differ"):
        cav(np.where(np.eye(4, 3) > 0, np.nan, 1.0), np.array([True, False, True, False]))
    with pytest.raises(ValueError, match="`method` must be one of pattern, ridge, logistic, svm"):
        cav(ACTS, LABELS, method="lda")
    with pytest.raises(ValueError, match=r"`alpha` must be a number in \(0, inf\)"):
        cav(ACTS, LABELS, alpha=0.0)


# Class 0 reads red, class 1 green times red, class 2 nothing of blue.
def head(x):
    red, green = x[..., 0].mean((1, 2)), x[..., 1].mean((1, 2))
    return jnp.stack([red, red * green, jnp.zeros_like(red)], axis=1)


NET = jaxai.chain({"features": lambda x: jax.nn.relu(x), "logits": head})
NOISE = jax.random.uniform(jax.random.key(1), (70, 4, 6, 3))
TEST, RANDOM = NOISE[:10], NOISE[10:]
RED = RANDOM[:12] + jnp.array([0.5, 0.0, 0.0])


@pytest.mark.slow
def test_tcav_by_hand():
    found = tcav(NET, TEST, jnp.array([[0, 1]] * 10), layer="features", concept=RED, random=RANDOM, key=KEY)
    pooled = lambda x: np.asarray(x).mean((1, 2))  # noqa: E731
    vector = unit(pooled(RED).mean(0) - pooled(RANDOM).mean(0))
    np.testing.assert_allclose(found.vector, vector, atol=1e-5)
    means = pooled(TEST)
    slopes = np.zeros((10, 2, 3))
    slopes[:, 0, 0] = 1
    slopes[:, 1, 0], slopes[:, 1, 1] = means[:, 1], means[:, 0]
    np.testing.assert_allclose(found.sensitivity, slopes @ vector, atol=1e-5)
    np.testing.assert_allclose(found.score, (slopes @ vector > 0).mean(0))
    assert found.score.tolist() == [1.0, 1.0] and found.null.shape == found.slope_null.shape == (200, 2)
    np.testing.assert_allclose(found.slope, (slopes @ vector).mean(0), atol=1e-5)
    assert found.p_value.shape == found.adjusted.shape == (2,)
    assert "1.00, 1.00" in repr(found)


@pytest.mark.slow
def test_positions_may_count_each():
    corner = RANDOM.at[:, 0, 0, 0].add(1.0)[:12]
    found = tcav(NET, TEST, 0, layer="features", concept=corner, random=RANDOM, key=KEY, positions="each")
    assert found.vector.shape == (4 * 6 * 3,) and int(found.vector.argmax()) == 0
    flat = lambda x: np.asarray(x).reshape(len(x), -1)  # noqa: E731
    np.testing.assert_allclose(found.vector, unit(flat(corner).mean(0) - flat(RANDOM).mean(0)), atol=1e-5)
    np.testing.assert_allclose(found.sensitivity, found.vector.reshape(4, 6, 3)[..., 0].sum() / 24, rtol=1e-4)


def wide(seed):
    """A network whose gradient differs from image to image, as real ones' do."""
    kernel = jax.random.normal(jax.random.key(seed), (3, 16))
    last = jax.random.normal(jax.random.key(seed + 1), (16, 3))
    features = lambda x: jnp.tanh(3 * (x - 0.5) @ kernel)  # noqa: E731
    return jaxai.chain({"features": features, "logits": lambda a: jnp.sin(3 * a.mean((1, 2))) @ last})


@pytest.mark.slow
def test_random_concepts_are_rejected_as_seldom_as_stated():
    net, rejected = wide(5), 0
    for i in range(200):
        pool = jax.random.uniform(jax.random.key(100 + i), (46, 2, 2, 3))
        found = tcav(
            net,
            TEST[:, :2, :2],
            0,
            layer="features",
            concept=pool[:8],
            random=pool[8:],
            key=KEY,
            num_draws=99,
        )
        rejected += found.p_value <= 0.05
    # 200 trials at a rate of 0.05, three standard errors; ties of ten images' scores only make it rarer.
    assert rejected <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


@pytest.mark.slow
def test_planted_concepts_are_found_where_random_ones_are_rejected():
    """200 repetitions at a level of 0.05: the class rises along one of 24 channels, for all images."""
    kernel = jax.random.normal(jax.random.key(5), (24, 2))

    def head(a):
        a = a.mean((1, 2))
        return 6 * a[:, :1] + jnp.sin(a @ kernel)

    net, found, rejected = jaxai.chain({"features": lambda x: x, "logits": head}), 0, 0
    planted = 0.6 * jnp.eye(24)[0]
    for i in range(200):
        pool = jax.random.uniform(jax.random.key(100 + i), (56, 2, 2, 24))
        test = tcav(
            net,
            pool[46:],
            0,
            layer="features",
            concept={"random": pool[:8], "planted": pool[:8] + planted},
            random=pool[8:46],
            key=KEY,
            num_draws=99,
        )
        # Scores are 0 or 1 for nearly all directions, and say nothing.
        rejected += test.p_value[0] <= 0.05
        found += test.p_value[1] <= 0.05 and test.slope[1] > 0
    assert rejected <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95) and found >= 190


@pytest.mark.parametrize("method", slow_but("pattern", ["pattern", "logistic"]))
def test_planted_concepts_are_found(method):
    """Class 0 rises with red for every image; blue is nothing to it."""
    tests = NOISE[:24]
    net = jaxai.chain({"features": lambda x: x, "logits": lambda x: jnp.sin(head(x))})
    concepts = {"red": RED, "blue": RANDOM[12:24] + jnp.array([0.0, 0.0, 0.5])}
    found = tcav(net, tests, 0, layer="features", concept=concepts, random=RANDOM, key=KEY, method=method)
    assert found.names == ("red", "blue") and found.score[0] == 1 and found.vector.shape == (2, 3)
    assert abs(found.sensitivity[0]).mean() > 5 * abs(found.sensitivity[1]).mean()


ANGLES = (0, 45, 90, 135)


def figure(rng, *, angle=None, shape=None):
    """One figure as in dSprites: shape, size and place are independent factors, and so is its texture."""
    shape = shape or rng.choice(["square", "disc", "cross"])
    angle = rng.choice(ANGLES) if angle is None else angle
    down, across = np.mgrid[:32, :32].astype(np.float32)
    size, (y, x) = rng.uniform(7, 11), rng.uniform(11, 21, 2)
    inside = {
        "square": np.maximum(abs(down - y), abs(across - x)) < size,
        "disc": np.hypot(down - y, across - x) < 1.13 * size,
        "cross": (abs(down - y) < size / 2.2) | (abs(across - x) < size / 2.2),
    }[shape]
    turned = np.cos(np.deg2rad(angle)) * across + np.sin(np.deg2rad(angle)) * down
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * turned / 4 + rng.uniform(0, 2 * np.pi))
    return (np.where(inside, stripes, 0.5) + rng.normal(0, 0.03, (32, 32)))[..., None].astype(np.float32)


def figures(rng, count, **factors):
    """Figures with the same number of textures of each angle, unless there is one alone."""
    angles = (ANGLES[i % len(ANGLES)] for i in range(count))
    return jnp.stack([figure(rng, **{"angle": angle, **factors}) for angle in angles])


def sees_textures():
    """Both phases of gratings at four angles, and classes that rise with one angle's energy each."""
    down, across = np.mgrid[-4:5, -4:5]
    bell = np.exp(-(down**2 + across**2) / 10)
    waves = [
        bell * np.cos(2 * np.pi * (np.cos(a) * across + np.sin(a) * down) / 4 - phase)
        for a in np.deg2rad(ANGLES)
        for phase in np.arange(4) * np.pi / 2
    ]
    kernel = jnp.asarray(np.stack([w - w.mean() for w in waves], -1)[:, :, None], jnp.float32)
    axes = ("NHWC", "HWIO", "NHWC")

    def features(x):
        found = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=axes)
        return jax.nn.relu(found)

    return jaxai.chain(
        {"textures": features, "logits": lambda a: jnp.sqrt(1 + a.mean((1, 2)).reshape(-1, 4, 4).sum(-1))}
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", [0, 2])
def test_textures_are_told_from_the_other_factors_of_a_figure(target):
    """A class that depends on the stripes' angle alone: not on shape, size or place."""
    rng, net = np.random.default_rng(target), sees_textures()
    concepts = {f"{angle} degrees": figures(rng, 32, angle=angle) for angle in ANGLES}
    concepts |= {shape: figures(rng, 32, shape=shape) for shape in ("square", "disc", "cross")}
    found = tcav(
        net,
        figures(rng, 40),
        target,
        layer="textures",
        concept=concepts,
        random=figures(rng, 300),
        key=KEY,
        num_draws=199,
    )
    own = found.names.index(f"{ANGLES[target]} degrees")
    slope, p_value = np.asarray(found.slope), np.asarray(found.p_value)
    others = [i for i, name in enumerate(found.names) if "degrees" in name and i != own]
    shapes = [i for i, name in enumerate(found.names) if "degrees" not in name]
    assert p_value[own] <= 0.05 and found.score[own] == 1 and slope[own] > 0.5
    # Stripes of another angle take the place of the class's own; shapes say nothing.
    assert (slope[others] < -0.1).all() and (found.score[others] == 0).all()
    assert (p_value[shapes] > 0.05).all() and np.abs(slope[shapes]).max() < 0.5 * slope[own]


def test_adjusted_p_values_are_holms():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([[0.5], [0.9]])), [[1.0], [1.0]])


@pytest.mark.slow
def test_chunks_keys_and_weights_change_what_they_should():
    net = wide(7)
    options = dict(layer="features", concept=RED, random=RANDOM)
    whole = tcav(net, TEST, 0, key=KEY, **options)
    part = tcav(net, TEST, 0, key=KEY, batch_size=3, **options)
    for name in ("score", "null", "p_value", "sensitivity", "vector"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name), atol=1e-5)
    fewer = tcav(net, TEST, 0, key=KEY, num_draws=20, **options)
    np.testing.assert_allclose(fewer.null, whole.null[:20])
    assert (tcav(net, TEST, 0, key=jax.random.key(9), **options).null != whole.null).any()
    assert np.abs(tcav(wide(8), TEST, 0, key=KEY, **options).vector - whole.vector).max() > 0.05


@pytest.mark.slow
def test_layers_are_compared_and_corrected_together():
    """The first layer has the colours twice; the second keeps blue and the copy of red, for a class each."""
    stages = {
        "early": lambda x: jnp.concatenate([x, x], -1),
        "late": lambda a: a[..., 2:4],
        "logits": lambda a: jnp.tanh(a.mean((1, 2))),
    }
    net = jaxai.chain(stages)
    options = dict(concept={"red": RED, "same": RANDOM[12:24]}, random=RANDOM, key=KEY, num_draws=39)
    found = tcav_layers(net, TEST, jnp.array([[0, 1]] * 10), layers=["early", "late"], **options)
    assert list(found) == ["early", "late"] and found["late"].vector.shape == (2, 2)
    alone = [tcav(net, TEST, jnp.array([[0, 1]] * 10), layer=layer, **options) for layer in found]
    for test, one in zip(found.values(), alone, strict=True):
        np.testing.assert_array_equal(test.p_value, one.p_value)
        np.testing.assert_array_equal(test.sensitivity, one.sensitivity)
    every = holm(np.stack([one.p_value for one in alone]))
    np.testing.assert_array_equal(np.stack([test.adjusted for test in found.values()]), every)
    # Class 1 reads the copy of red, which the last layer has as its second channel.
    assert found["early"].score[0, 1] == 1 and found["late"].score[0, 1] == 1
    with pytest.raises(ValueError, match=r"each once; got \['early', 'early'\]"):
        tcav_layers(net, TEST, 0, layers=["early", "early"], **options)


def test_one_pass_serves_all_layers():
    from jaxai.concepts._activations import activations

    keys = jax.random.split(jax.random.key(5), 2)
    first, second = (jax.random.normal(key, (3, 3, 3, 3)) for key in keys)

    def conv(kernel, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.nn.relu(
            jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        )

    net = jaxai.chain(
        {
            "early": jax.tree_util.Partial(conv, first),
            "late": jax.tree_util.Partial(conv, second),
            "logits": lambda a: a.mean((1, 2)),
        }
    )
    for model in (net, jaxai.layers.find(net, TEST)):
        names = [name for name in model.layer_names if name != "logits"]
        names = (names[0], names[-1])
        options = {"positions": "mean", "batch_size": 4}
        read = {
            wanted: activations.lower(model, TEST, names=wanted, **options).compile()
            for wanted in (names[:1], names[1:], names)
        }
        one, two, both = (found.cost_analysis()["flops"] for found in read.values())
        assert both < two + 0.5 * one
        alone = activations(model, TEST, names=names[:1], **options)[names[0]]
        np.testing.assert_array_equal(activations(model, TEST, names=names, **options)[names[0]], alone)


@pytest.mark.slow
def test_slopes_by_position():
    """Where a score draws on a direction; their sum is the slope of the image."""
    weights = jnp.arange(24.0).reshape(4, 6)
    net = jaxai.chain(
        {"features": lambda x: x, "logits": lambda a: jnp.einsum("bhwc,hw->bc", jnp.square(a), weights)}
    )
    directions = np.random.default_rng(3).normal(size=(2, 3)).astype(np.float32)
    options = dict(layer="features", directions=directions)
    found = concept_slopes(net, TEST, jnp.array([[0, 2]] * 10), upsample=False, batch_size=3, **options)
    assert found.shape == (10, 2, 2, 4, 6)
    for k, target in enumerate((0, 2)):
        slopes = 2 * np.asarray(TEST)[..., target] * np.asarray(weights)
        close(found[:, k], slopes[:, None] * directions[:, target, None, None])
    test = tcav(net, TEST, 1, layer="features", concept=RED, random=RANDOM, key=KEY, num_draws=1)
    along = concept_slopes(net, TEST, 1, layer="features", directions=test.vector[None], upsample=False)
    close(along.sum((1, 2, 3)), test.sensitivity, 1e-4)
    assert concept_slopes(net, TEST, 1, **options).shape == (10, 2, 4, 6)
    with pytest.raises(
        ValueError, match=r"`directions` must be \[concepts, 3\], of the channels of 'features'"
    ):
        concept_slopes(net, TEST, 1, layer="features", directions=directions[:, :2])


def test_concepts_of_a_dense_layer(pooled_net, small_images):
    net = jaxai.chain({"flat": lambda x: x.mean((1, 2)), "logits": lambda x: jnp.tanh(x)})
    found = tcav(net, TEST, 0, layer="flat", concept=RED, random=RANDOM, key=KEY)
    assert found.score == 1 and found.vector.shape == (3,)


@pytest.mark.slow
def test_errors_of_tests():
    options = dict(layer="features", concept=RED, random=RANDOM, key=KEY)
    with pytest.raises(
        ValueError, match="`random` must have at least 14 images, two more than the concept; got 9"
    ):
        tcav(NET, TEST, 0, **{**options, "random": RANDOM[:9]})
    with pytest.raises(ValueError, match="activations of grey must be finite and differ from those"):
        tcav(
            NET, TEST, 0, **{**options, "concept": {"grey": RANDOM}, "random": jnp.tile(RANDOM, (2, 1, 1, 1))}
        )
    with pytest.raises(ValueError, match="got none"):
        tcav(NET, TEST, 0, **{**options, "concept": {}})
    with pytest.raises(ValueError, match="unknown layer 'nope'"):
        tcav(NET, TEST, 0, **{**options, "layer": "nope"})
    with pytest.raises(TypeError, match="`key` must be a typed key"):
        tcav(NET, TEST, 0, **{**options, "key": 0})
    with pytest.raises(ValueError, match="`positions` must be one of mean, each"):
        tcav(NET, TEST, 0, positions="max", **options)


def test_concept_maps(dense_net, small_images):
    directions = np.random.default_rng(2).normal(size=(2, 6))
    acts = np.asarray(dense_net(small_images, stop="conv2"))
    found = concept_maps(dense_net, small_images, layer="conv2", directions=directions, upsample=False)
    close(found, np.einsum("nhwc,kc->nkhw", acts, directions))
    whole = concept_maps(dense_net, small_images, layer="conv2", directions=directions, batch_size=2)
    assert whole.shape == (3, 2, *small_images.shape[1:3])
    with pytest.raises(ValueError, match=r"`directions` must be \[concepts, 6\], of the channels of 'conv2'"):
        concept_maps(dense_net, small_images, layer="conv2", directions=directions[:, :4])
    flat = jaxai.chain({"flat": lambda x: x.mean((1, 2)), "logits": lambda x: x})
    with pytest.raises(ValueError, match=r"must have activations \[batch, height, width, channels\]"):
        concept_maps(flat, TEST, layer="flat", directions=jnp.eye(3))
