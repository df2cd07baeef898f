"""Metrics beside Quantus 0.6, Captum and pytorch-grad-cam; where they differ, a closed form decides.

Needs `pip install quantus==0.6.0 captum grad-cam`; each test is left out where its library is missing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxai
from jaxai import metrics
from jaxai.metrics import _robustness

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

KEY = jax.random.key(0)
SIDE, CLASSES = 20, 5
RNG = np.random.default_rng(0)
QUIET = {"disable_warnings": True, "display_progressbar": False}


def _network(channels):
    """Return the same small network in both worlds: convolution, pooling, two dense layers."""
    rng = np.random.default_rng(channels)
    kernel = rng.normal(size=(3, 3, channels, 6)).astype(np.float32) / 3
    weights = rng.normal(size=(6 * 25, CLASSES)).astype(np.float32) / 6
    bias = rng.normal(size=CLASSES).astype(np.float32)

    def forward(kernel, weights, bias, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jnp.tanh(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions))
        x = x.reshape(len(x), 5, 4, 5, 4, 6).mean((2, 4))
        return x.reshape(len(x), -1) @ weights + bias

    layers = torch.nn
    theirs = layers.Sequential(
        layers.Conv2d(channels, 6, 3, padding=1, bias=False),
        layers.Tanh(),
        layers.AvgPool2d(4),
        layers.Flatten(),
        layers.Linear(6 * 25, CLASSES),
    ).eval()
    with torch.no_grad():
        theirs[0].weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
        first = weights.reshape(5, 5, 6, CLASSES).transpose(2, 0, 1, 3).reshape(-1, CLASSES)
        theirs[4].weight.copy_(torch.from_numpy(first.T.copy()))
        theirs[4].bias.copy_(torch.from_numpy(bias))
    return Partial(forward, *map(jnp.asarray, (kernel, weights, bias))), theirs


def _first(images):
    """Return images [batch, height, width, channels] with channels first."""
    return np.moveaxis(np.asarray(images), -1, 1).copy()


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colour"])
def case(request):
    """Both networks, eight images, the classes that the network sees, and maps without equal values."""
    ours, theirs = _network(request.param)
    images = RNG.random((8, SIDE, SIDE, request.param), np.float32)
    classes = np.asarray(ours(images)).argmax(-1)
    maps = np.stack([RNG.permutation(SIDE * SIDE).reshape(SIDE, SIDE) for _ in range(8)])
    with torch.no_grad():
        np.testing.assert_allclose(ours(images), theirs(torch.from_numpy(_first(images))), atol=1e-4)
    return ours, theirs, images, classes, (maps / maps.max()).astype(np.float32)


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus")


MASKS = np.zeros((8, SIDE, SIDE), bool)
for index in range(8):
    MASKS[index, index : index + 5, 2 * index : 2 * index + 6] = True


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.mass_accuracy, "RelevanceMassAccuracy"),
        (metrics.rank_accuracy, "RelevanceRankAccuracy"),
        (lambda maps, masks: metrics.pointing_game(maps, masks, tolerance=0), "PointingGame"),
        (lambda maps, masks: metrics.auc(maps, masks), "AUC"),
        (lambda maps, masks: metrics.top_k_intersection(maps, masks, k=50), "TopKIntersection"),
        (lambda maps, masks: metrics.gini(maps), "Sparseness"),
        (lambda maps, masks: metrics.entropy(maps), "Complexity"),
    ],
    ids=["mass", "rank", "pointing", "auc", "top_k", "gini", "entropy"],
)
def test_maps_alone_against_quantus(quantus, case, ours, theirs):
    _, network, images, classes, maps = case
    options = {"k": 50} if theirs == "TopKIntersection" else {}
    metric = getattr(quantus, theirs)(**QUIET, **options)
    found = metric(
        model=network,
        x_batch=_first(images),
        y_batch=classes,
        a_batch=maps[:, None].copy(),
        s_batch=MASKS[:, None],
        device="cpu",
    )
    np.testing.assert_allclose(ours(maps, MASKS), found, atol=1e-3)


def test_signs_of_mass_accuracy(quantus, case):
    """The paper counts positive relevance alone: with signs Quantus 0.6 leaves [0, 1]."""
    _, network, images, classes, _ = case
    maps = np.full((8, SIDE, SIDE), -1.0, np.float32)
    maps[MASKS] = 14.0
    metric = quantus.RelevanceMassAccuracy(abs=False, normalise=False, **QUIET)
    found = metric(
        model=network,
        x_batch=_first(images),
        y_batch=classes,
        a_batch=maps[:, None].copy(),
        s_batch=MASKS[:, None],
    )
    np.testing.assert_allclose(found, 30 * 14 / (30 * 14 - 370), atol=1e-3)
    np.testing.assert_allclose(metrics.mass_accuracy(maps, MASKS), 1)


def test_road_against_quantus(quantus):
    """Accuracy, most relevant first; without noise, which both draw."""
    ours, network = _network(1)
    images = RNG.normal(size=(8, SIDE, SIDE, 1)).astype(np.float32)
    classes = np.asarray(ours(images)).argmax(-1)
    maps = RNG.random((8, SIDE, SIDE), np.float32)
    shares = [5, 10, 29, 35, 50, 57, 65, 80, 95]
    metric = quantus.ROAD(percentages=shares, noise=0.0, **QUIET)
    found = metric(
        model=network, x_batch=_first(images), y_batch=classes, a_batch=maps[:, None].copy(), device="cpu"
    )
    mine = metrics.road(
        ours, images, maps, classes, key=KEY, noise=0.0, shares=tuple(p / 100 for p in shares)
    )
    expected = [found[share] for share in shares]
    assert min(expected) < max(expected), "some images change their class"
    np.testing.assert_allclose(mine.most_first_right.mean(0), expected, atol=1e-3)


def test_quantus_imputes_no_colour_images(quantus, case):
    """Quantus 0.6 sorts pixels and channels together, but imputes pixels: maps of colour images fail."""
    ours, network, images, classes, maps = case
    if images.shape[-1] == 1:
        pytest.skip("grey images work")
    metric = quantus.ROAD(percentages=[50], noise=0.0, **QUIET)
    with pytest.raises(IndexError):
        metric(model=network, x_batch=_first(images), y_batch=classes, a_batch=maps[:, None].copy())
    assert np.isfinite(metrics.road(ours, images, maps, classes, key=KEY, shares=(0.5,)).gain).all()


def test_emprt_against_quantus(quantus, case):
    """The same maps before and after all parameters are drawn, a hundred bins."""
    ours, network, images, classes, _ = case
    before = RNG.normal(size=(8, SIDE, SIDE)).astype(np.float32) ** 3
    after = RNG.normal(size=(8, SIDE, SIDE)).astype(np.float32)
    kernel, weight = np.asarray(ours.args[0]), network[0].weight.detach().numpy().copy()

    def explained(model, inputs, targets, **_):
        same = np.array_equal(model[0].weight.detach().numpy(), weight)
        return (before if same else after)[:, None].copy()

    metric = quantus.EfficientMPRT(complexity_func_kwargs={"n_bins": 100}, **QUIET)
    found = metric(
        model=network,
        x_batch=_first(images),
        y_batch=classes,
        a_batch=before[:, None].copy(),
        explain_func=explained,
        channel_first=True,
        device="cpu",
    )
    mine = metrics.emprt(
        lambda model, x, t: before if np.array_equal(model.args[0], kernel) else after,
        ours,
        images,
        classes,
        key=KEY,
        batch_size=8,
    )
    np.testing.assert_allclose(mine, found, atol=1e-3)


def test_pixel_flipping_against_quantus(quantus):
    """The class's probability; black is the least value of the image for Quantus, given here as the fill."""
    ours, network = _network(1)
    images = RNG.random((4, SIDE, SIDE, 1), np.float32)
    classes = np.asarray(ours(images)).argmax(-1)
    maps = RNG.random((4, SIDE, SIDE), np.float32)
    metric = quantus.PixelFlipping(features_in_step=20, perturb_baseline="black", **QUIET)
    found = metric(
        model=network, x_batch=_first(images), y_batch=classes, a_batch=maps[:, None].copy(), softmax=True
    )
    black = images.min((1, 2, 3), keepdims=True)
    mine = metrics.pixel_flipping(ours, images, maps, classes, steps=20, fill=black, probability=True)
    np.testing.assert_allclose(mine.curve[:, 1:], found, atol=1e-3)


def _linear():
    weights = np.asarray(RNG.normal(size=(SIDE * SIDE, CLASSES)), np.float32)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, CLASSES, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.from_numpy(weights.T.copy()))
    return Partial(lambda w, x: x.reshape(len(x), -1) @ w, jnp.asarray(weights)), network.eval()


def test_sensitivity_n_of_a_linear_model(quantus):
    """The paper's property: 1 for every n; Quantus 0.6 correlates steps over images, and finds less."""
    ours, network = _linear()
    images = RNG.random((6, SIDE, SIDE, 1), np.float32)
    classes = np.zeros(6, int)
    maps = np.asarray(jaxai.input_x_gradient(ours, images, classes)).sum(-1)
    mine = metrics.sensitivity_n(ours, images, maps, classes, key=KEY, sizes=(1, 20, 300), num_samples=50)
    np.testing.assert_allclose(mine, 1, atol=1e-3)
    metric = quantus.SensitivityN(
        features_in_step=20, normalise=False, perturb_baseline=0.0, return_aggregate=False, **QUIET
    )
    found = metric(
        model=network,
        x_batch=_first(images),
        y_batch=classes,
        a_batch=maps[:, None].copy(),
        softmax=False,
        device="cpu",
    )
    assert np.nanmin(np.asarray(found, float)) < 0.9


def test_infidelity_of_a_square(quantus):
    """f(x) = (sum x)^2 with its gradient: a patch of sum s gives s^4 exactly, however many were before it."""

    class Square(torch.nn.Module):
        def forward(self, x):
            total = x.sum((1, 2, 3))
            return torch.stack([total**2, total], 1)

    def ours(x):
        total = x.sum((1, 2, 3))
        return jnp.stack([total**2, total], 1)

    images = RNG.random((2, 4, 4, 1), np.float32)
    classes = np.zeros(2, int)
    gradient = np.broadcast_to(2 * images.sum((1, 2, 3), keepdims=True), images.shape).astype(np.float32)
    quarters = images.reshape(2, 2, 2, 2, 2).sum((2, 4)).reshape(2, 4)
    draws = 64
    corners = jnp.asarray([(0, 0), (0, 2), (2, 0), (2, 2)])

    def perturb(key, image):
        place = jax.random.randint(key, (), 0, 4)
        row, column = corners[place]
        inside = (jnp.arange(4) // 2 * 2 == row)[:, None] & (jnp.arange(4) // 2 * 2 == column)
        return jnp.where(inside[..., None], image, 0)

    mine = metrics.infidelity(ours, images, gradient, classes, key=KEY, perturb=perturb, num_samples=draws)
    drawn = [int(jax.random.randint(jax.random.fold_in(KEY, i), (), 0, 4)) for i in range(draws)]
    np.testing.assert_allclose(mine, (quarters[:, drawn] ** 4).mean(-1), rtol=1e-3)
    metric = quantus.Infidelity(
        perturb_patch_sizes=[2], perturb_baseline=0.0, n_perturb_samples=1, normalise=False, **QUIET
    )
    found = metric(
        model=Square().eval(),
        x_batch=_first(images),
        y_batch=classes,
        a_batch=_first(gradient),
        softmax=False,
        device="cpu",
    )
    cumulative = (quarters.cumsum(-1) ** 4).mean(-1)
    alone = (quarters**4).mean(-1)
    np.testing.assert_allclose(np.mean(found), cumulative.mean(), rtol=1e-3)
    assert (cumulative > 3 * alone).all()


@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity_against_captum(case, normalize):
    captum = pytest.importorskip("captum.metrics")
    ours, network, images, classes, _ = case
    gradient = np.asarray(jax.grad(lambda x: ours(x)[jnp.arange(8), classes].sum())(jnp.asarray(images)))
    draws = 12

    def perturb(key, image):
        return 0.3 * jax.random.normal(key, image.shape)

    keys = [jax.random.fold_in(KEY, i) for i in range(draws)]
    moved = np.stack([[perturb(key, jnp.asarray(image)) for key in keys] for image in images])
    moved = torch.from_numpy(_first(moved.reshape(-1, *images.shape[1:])))
    found = captum.infidelity(
        network,
        lambda x: (moved, x - moved),
        torch.from_numpy(_first(images)),
        torch.from_numpy(_first(gradient)),
        target=torch.from_numpy(classes),
        n_perturb_samples=draws,
        normalize=normalize,
    )
    mine = metrics.infidelity(
        ours, images, gradient, classes, key=KEY, perturb=perturb, num_samples=draws, normalize=normalize
    )
    np.testing.assert_allclose(mine, found, rtol=1e-3)


def test_max_sensitivity_against_captum(case):
    captum = pytest.importorskip("captum.metrics")
    ours, network, images, classes, _ = case
    radius, draws = 0.05, 10
    moved = _robustness._moved(jnp.asarray(images), KEY, jnp.float32(radius), jnp.arange(draws))
    moved = torch.from_numpy(_first(np.moveaxis(np.asarray(moved), 0, 1).reshape(-1, *images.shape[1:])))

    def explained(given):
        x = (given[0] if isinstance(given, tuple) else given).detach().requires_grad_(True)
        which = torch.from_numpy(np.repeat(classes, len(x) // 8))
        with torch.enable_grad():
            scores = network(x)[torch.arange(len(x)), which].sum()
        found = (torch.autograd.grad(scores, x)[0] * x).detach().sum(1, keepdim=True)
        return (found,) if isinstance(given, tuple) else found

    found = captum.sensitivity_max(
        explained,
        torch.from_numpy(_first(images)),
        lambda x, radius: moved,
        perturb_radius=radius,
        n_perturb_samples=draws,
    )
    mine = metrics.max_sensitivity(
        jaxai.input_x_gradient, ours, images, classes, key=KEY, radius=radius, num_samples=draws
    )
    np.testing.assert_allclose(mine, found, rtol=1e-3)


def test_road_against_pytorch_grad_cam(case, monkeypatch):
    """ROADCombined is half of the gain; without noise."""
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    ours, network, images, classes, maps = case
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    found = road.ROADCombined()(torch.from_numpy(_first(images)), maps, targets, network)
    mine = metrics.road(ours, images, maps, classes, key=KEY, noise=0.0)
    np.testing.assert_allclose(mine.gain / 2, found, atol=1e-3)
    most = road.ROADMostRelevantFirstAverage()(torch.from_numpy(_first(images)), maps, targets, network)
    kept = np.asarray(jax.nn.softmax(ours(images)))[np.arange(8), classes]
    np.testing.assert_allclose(mine.most_first.mean(-1) - kept, most, atol=1e-3)
