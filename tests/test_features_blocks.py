"""The building blocks of Lucid, each against a NumPy re-implementation of its documented numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxai.features import directions, objectives, parametrize, priors
from jaxai.features.objectives import IMAGES, OPACITY

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHAPE = (12, 17, 3)
KEY = jax.random.key(0)


ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def recolor(x):
    longest = max(np.sqrt((ROOT**2).sum(0)))
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = ROOT @ x[i, j] / longest
    return out


def numpy_fourier(params, height, width):
    """The image of a spectrum, by the sum that defines the inverse transform."""
    real = np.asarray(params, np.float64)
    fy = np.array([i / height if i < (height + 1) // 2 else (i - height) / height for i in range(height)])
    fx = np.arange(width // 2 + 1) / width
    f = np.sqrt(fy[:, None] ** 2 + fx**2)
    scale = np.sqrt(width * height) / np.maximum(f, 1 / max(width, height))
    spectrum = (real[0] + 1j * real[1]) * scale
    # Only the real part of self-conjugate columns counts: they are made Hermitian.
    full = np.zeros((3, height, width), complex)
    for kx in range(width):
        for ky in range(height):
            if kx <= width // 2:
                value = spectrum[:, ky, kx]
                if kx == 0 or 2 * kx == width:
                    value = (value + np.conj(spectrum[:, -ky % height, kx])) / 2
            else:
                value = np.conj(spectrum[:, -ky % height, width - kx])
            full[:, ky, kx] = value
    y, x = np.arange(height), np.arange(width)
    rows = np.exp(2j * np.pi * np.outer(y, np.arange(height)) / height)
    columns = np.exp(2j * np.pi * np.outer(x, np.arange(width)) / width)
    image = np.einsum("yk,ckl,xl->cyx", rows, full, columns).real / (height * width)
    return sigmoid(recolor(image.transpose(1, 2, 0) / 4))


@pytest.mark.parametrize("width", [16, 17])
def test_fourier_is_lucids(width):
    shape = (12, width, 3)
    params = 0.3 * jax.random.normal(KEY, (2, 3, 12, width // 2 + 1))
    made = parametrize.Fourier(decay=1.0).render(params, shape)
    np.testing.assert_allclose(made, numpy_fourier(params, 12, width), atol=2e-6)


def test_the_decay_turns_the_spectrum_about_its_pivot():
    plain, steep = (parametrize.Fourier(decay=decay).scale(40, 40) for decay in (1.0, 1.5))
    at = parametrize.frequencies(40, 40)
    # In cycles per pixel: 0.05 is the second of 40.
    np.testing.assert_allclose(steep[at == 0.05], plain[at == 0.05], rtol=1e-6)
    np.testing.assert_allclose(steep[at > 0] / plain[at > 0], (0.05 / at[at > 0]) ** 0.5, rtol=1e-6)
    assert np.isfinite(steep).all()


def test_fourier_starts_as_lucid_does():
    params = np.asarray(parametrize.Fourier().init(KEY, (64, 64, 3)))
    assert params.shape == (2, 3, 64, 33)
    assert abs(params.std() - 0.01) < 3e-4
    assert abs(params.mean()) < 3e-4


def test_pixels_are_a_sigmoid_of_decorrelated_colors():
    params = np.asarray(parametrize.Pixels().init(KEY, SHAPE))
    made = parametrize.Pixels().render(jnp.asarray(50 * params), SHAPE)
    np.testing.assert_allclose(made, sigmoid(recolor(50 * params)), atol=2e-6)


def test_other_channel_counts_have_no_color_matrix():
    params = 20 * parametrize.Pixels().init(KEY, (4, 5, 7))
    np.testing.assert_allclose(
        parametrize.Pixels().render(params, (4, 5, 7)), sigmoid(np.asarray(params)), atol=1e-6
    )


def test_laplacian_sums_enlarged_levels():
    shape = (8, 8, 1)
    levels = parametrize.Laplacian(levels=2).init(KEY, shape)
    assert [level.shape for level in levels] == [(8, 8, 1), (4, 4, 1)]
    fine, coarse = (np.asarray(level, np.float64) * 100 for level in levels)
    big = np.zeros((8, 8, 1))
    for i in range(8):
        for j in range(8):
            y, x = (i + 0.5) / 2 - 0.5, (j + 0.5) / 2 - 0.5
            for a in range(4):
                for b in range(4):
                    # Half-pixel linear interpolation; positions beyond the border take its value.
                    wy = max(0, 1 - abs(np.clip(y, 0, 3) - a))
                    wx = max(0, 1 - abs(np.clip(x, 0, 3) - b))
                    big[i, j] += wy * wx * coarse[a, b]
    made = parametrize.Laplacian(levels=2).render((jnp.asarray(fine), jnp.asarray(coarse)), shape)
    np.testing.assert_allclose(made, sigmoid(fine + big), atol=1e-5)


def test_cppn_is_lucids():
    cppn = parametrize.CPPN(width=5, layers=3)
    noise = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: np.asarray(p) + noise.normal(size=p.shape, scale=0.1), cppn.init(KEY, (4, 6, 3))
    )
    made = np.asarray(cppn.render(params, (4, 6, 3)))
    for i in range(4):
        for j in range(6):
            x = np.array([-np.sqrt(3) + 2 * np.sqrt(3) * j / 5, -np.sqrt(3) + 2 * np.sqrt(3) * i / 3])
            for kernel, bias in params[:-1]:
                a = np.arctan(x @ np.asarray(kernel) + np.asarray(bias))
                x = np.concatenate([a / 0.67, a**2 / 0.6])
            kernel, bias = params[-1]
            np.testing.assert_allclose(made[i, j], sigmoid(x @ kernel + bias), atol=1e-5)


def test_cppn_starts_grey():
    cppn = parametrize.CPPN()
    np.testing.assert_array_equal(cppn.render(cppn.init(KEY, (4, 4, 3)), (4, 4, 3)), 0.5)


def test_shared_part_is_common_to_copies():
    shared = parametrize.Shared(base=parametrize.Pixels(std=0.0), divisors=(2, 4), std=1.0)
    images = np.asarray(shared.render_group(shared.init_group(KEY, (8, 8, 3), 3), (8, 8, 3)))
    assert images.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(images, np.broadcast_to(images[:1], images.shape), atol=1e-6)
    assert images.std() > 0.05


@pytest.mark.parametrize("kind", [parametrize.Fourier(), parametrize.Pixels(), parametrize.Laplacian()])
def test_encoding_a_photo_renders_it_again(kind):
    photo = jax.random.uniform(KEY, SHAPE, minval=0.05, maxval=0.95)
    np.testing.assert_allclose(kind.render(kind.encode(photo), SHAPE), photo, atol=1e-4)


def test_a_cppn_cannot_start_from_a_photo():
    with pytest.raises(ValueError, match="cannot start from a photo"):
        parametrize.CPPN().encode(jnp.zeros(SHAPE))


def test_by_name_lists_what_there_is():
    assert parametrize.by_name("pixels") == parametrize.Pixels()
    with pytest.raises(ValueError, match="fourier, pixels, laplacian, cppn"):
        parametrize.by_name("wavelets")
    with pytest.raises(TypeError, match="init, render and encode"):
        parametrize.by_name(3)


ACTS = np.random.default_rng(0).normal(size=(4, 5, 6, 7))
VECTOR = np.random.default_rng(1).normal(size=7)
PHOTOS = np.random.default_rng(2).uniform(size=(4, 9, 8, 3))
VIEW = {
    "acts": jnp.asarray(ACTS, jnp.float32),
    IMAGES: jnp.asarray(PHOTOS, jnp.float32),
    OPACITY: jnp.asarray(PHOTOS[..., :1], jnp.float32),
}


def value(objective):
    return np.asarray(jnp.broadcast_to(objective(VIEW), (4,)))


def cosines(acts, vector):
    lengths = np.sqrt((acts**2).sum(-1))
    return acts @ vector / (1e-4 + lengths) / (1e-4 + np.sqrt((vector**2).sum()))


def numpy_blur(x, window):
    kernel = np.full((window, window), 0.5)
    kernel[1:-1, 1:-1] = 1
    out = np.zeros_like(x)
    reach = window // 2
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            total = weight = 0
            for a in range(-reach, reach + 1):
                for b in range(-reach, reach + 1):
                    if 0 <= i + a < x.shape[1] and 0 <= j + b < x.shape[2]:
                        total = total + kernel[a + reach, b + reach] * x[:, i + a, j + b]
                        weight += kernel[a + reach, b + reach]
            out[:, i, j] = total / weight
    return out


def boundary(x, width, constant):
    mask = np.ones(x.shape[1:3])
    mask[width:-width, width:-width] = 0
    cost = (numpy_blur(x, 5) - x) ** 2 + 0.8 * (x - constant) ** 2
    return (cost * mask[None, :, :, None]).sum((1, 2, 3))


def alignment(acts):
    """Lucid's accumulated cost, with the other sign."""
    total = 0
    for d in (1, 2, 3, 4):
        for i in range(len(acts) - d):
            total -= ((acts[i] - acts[i + d]) ** 2).mean() / 2**d
    return total


def gram_cosines(acts):
    grams = np.stack([a.reshape(-1, 7).T @ a.reshape(-1, 7) for a in acts]).reshape(len(acts), -1)
    grams /= np.linalg.norm(grams, axis=1, keepdims=True)
    return sum(grams[i] @ grams[j] for i in range(len(acts)) for j in range(len(acts)) if i != j) / len(acts)


BLENDS = np.arange(4) / 3
CASES = {
    "neuron in the centre": (objectives.neuron("acts", 2), ACTS[:, 2, 3, 2]),
    "neuron at a position": (objectives.neuron("acts", 2, (4, 0)), ACTS[:, 4, 0, 2]),
    "channel": (objectives.channel("acts", 3), ACTS[..., 3].mean((1, 2))),
    "layer": (objectives.layer("acts"), (ACTS**2).mean((1, 2, 3))),
    "direction": (directions.direction("acts", VECTOR), (ACTS @ VECTOR).mean((1, 2))),
    "direction with a cosine": (
        directions.direction("acts", VECTOR, cosine_power=2),
        (ACTS @ VECTOR * np.maximum(0.1, cosines(ACTS, VECTOR)) ** 2).mean((1, 2)),
    ),
    "direction at a position": (
        directions.direction_neuron("acts", VECTOR, (1, 5), cosine_power=1),
        ACTS[:, 1, 5] @ VECTOR * np.maximum(0.1, cosines(ACTS[:, 1, 5], VECTOR)),
    ),
    "cosine direction": (
        directions.cosine_direction("acts", VECTOR),
        (ACTS @ VECTOR / (1e-4 + np.linalg.norm(ACTS, axis=-1) * np.linalg.norm(VECTOR))).mean((1, 2)),
    ),
    "tensor direction": (directions.tensor_direction("acts", ACTS[1]), (ACTS * ACTS[1]).sum((1, 2, 3))),
    "activation difference": (
        directions.activation_difference("acts", ACTS[1]),
        np.abs(ACTS - ACTS[1]).mean((1, 2, 3)),
    ),
    "squared difference": (
        directions.activation_difference("acts", ACTS[1], kind="l2"),
        ((ACTS - ACTS[1]) ** 2).mean((1, 2, 3)),
    ),
    "interpolation": (
        directions.channel_interpolation("acts", 1, 4),
        (1 - BLENDS) * ACTS[..., 1].mean((1, 2)) + BLENDS * ACTS[..., 4].mean((1, 2)),
    ),
    "total variation": (
        priors.total_variation(),
        np.abs(np.diff(PHOTOS, axis=1)).sum((1, 2, 3)) + np.abs(np.diff(PHOTOS, axis=2)).sum((1, 2, 3)),
    ),
    "l1": (priors.l1(constant=0.5), np.abs(PHOTOS - 0.5).sum((1, 2, 3))),
    "l2": (priors.l2("acts"), np.sqrt(1e-6 + (ACTS**2).sum((1, 2, 3)))),
    "blur": (priors.blur(), 0.5 * ((PHOTOS - numpy_blur(PHOTOS, 3)) ** 2).sum((1, 2, 3))),
    "boundary": (priors.boundary_complexity(width=2, constant=0.4), boundary(PHOTOS, 2, 0.4)),
    "opacity": (priors.opacity(), PHOTOS[..., 0].mean((1, 2))),
    "algebra": (
        -(objectives.channel("acts", 1) + 2 * objectives.layer("acts") - 1) / 4 * objectives.layer("acts"),
        -(ACTS[..., 1].mean((1, 2)) + 2 * (ACTS**2).mean((1, 2, 3)) - 1) / 4 * (ACTS**2).mean((1, 2, 3)),
    ),
    "custom": (objectives.custom(lambda a: a.max((1, 2, 3)), "acts"), ACTS.max((1, 2, 3))),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CASES)
def test_objective_is_what_its_name_says(name):
    objective, expected = CASES[name]
    np.testing.assert_allclose(value(objective), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_relations_between_copies_sum_to_lucids():
    np.testing.assert_allclose(value(directions.alignment("acts")).sum(), alignment(ACTS), rtol=1e-5)
    np.testing.assert_allclose(-value(directions.diversity("acts")).sum(), gram_cosines(ACTS), rtol=1e-5)


@pytest.mark.parametrize("flat", [0.0, 0.5])
def test_gradients_of_objectives_are_finite_on_flat_inputs(flat):
    view = jax.tree.map(lambda a: jnp.full_like(a, flat), VIEW)
    everything = [case[0] for case in CASES.values()]
    everything += [directions.alignment("acts"), directions.diversity("acts")]
    gradients = jax.jit(jax.jacrev(lambda v: jnp.stack([jnp.sum(o(v)) for o in everything])))(view)
    for gradient in jax.tree.leaves(gradients):
        assert np.isfinite(gradient).all()


def test_blur_descends_towards_the_blurred_image():
    gradient = jax.grad(lambda v: priors.blur()(v).sum())(VIEW)[IMAGES]
    np.testing.assert_allclose(gradient, PHOTOS - numpy_blur(PHOTOS, 3), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("conv5_1", objectives.layer("conv5_1")),
        ("conv5_1:12", objectives.channel("conv5_1", 12)),
        ("conv5_1:12@3,4", objectives.neuron("conv5_1", 12, (3, 4))),
        (" conv5_1:12@center", objectives.neuron("conv5_1", 12)),
        ("logits:285", objectives.class_logit(285)),
    ],
)
def test_strings(text, same):
    parsed = objectives.parse(text)
    assert jax.tree.structure(parsed) == jax.tree.structure(same)
    for a, b in zip(jax.tree.leaves(parsed), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("text", ["", ":3", "a:", "a:b", "a:1@", "a:1@2", "a:1@2,3,4", "a:1.5"])
def test_bad_strings(text):
    with pytest.raises(ValueError, match="LAYER:CHANNEL"):
        objectives.parse(text)


def test_bad_objectives():
    with pytest.raises(TypeError, match="string, an Objective or a callable"):
        objectives.parse(3)
    with pytest.raises(TypeError, match="must be an integer"):
        objectives.channel("a", 1.5)
    with pytest.raises(TypeError):
        objectives.channel("a", 1) + "b"
    with pytest.raises(ValueError, match="one of l1, l2"):
        directions.activation_difference("a", VECTOR, kind="huber")
    with pytest.raises(ValueError, match="one value per image"):
        objectives.custom(lambda a: a.sum(), "acts")(VIEW)


def test_channels_are_data_not_structure():
    one, other = objectives.parse("a:1"), objectives.parse("a:2")
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert hash(jax.tree.structure(one - 2 * other)) == hash(jax.tree.structure(other - 3 * one))
