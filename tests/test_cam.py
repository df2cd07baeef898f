"""The CAM family on small networks: formulas in NumPy, axioms, batches, gradients, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxai
from jaxai import cam
from jaxai.cam import dense_head
from jaxai.cam.core import look

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])
METHODS = {
    "ablation_cam": jaxai.ablation_cam,
    "eigen_cam": jaxai.eigen_cam,
    "eigen_grad_cam": jaxai.eigen_grad_cam,
    "element_wise_grad_cam": jaxai.element_wise_grad_cam,
    "fem": jaxai.fem,
    "finer_cam": jaxai.finer_cam,
    "fused_cam": partial(jaxai.fused_cam, names=("conv1", "conv2")),
    "grad_cam": jaxai.grad_cam,
    "grad_cam_plus_plus": jaxai.grad_cam_plus_plus,
    "hires_cam": jaxai.hires_cam,
    "is_cam": partial(jaxai.is_cam, num_samples=3),
    "kpca_cam": jaxai.kpca_cam,
    "layer_cam": jaxai.layer_cam,
    "random_cam": partial(jaxai.random_cam, key=KEY),
    "recipro_cam": jaxai.recipro_cam,
    "score_cam": jaxai.score_cam,
    "shapley_cam": jaxai.shapley_cam,
    "smooth_grad_cam_plus_plus": partial(jaxai.smooth_grad_cam_plus_plus, key=KEY),
    "ss_cam": partial(jaxai.ss_cam, key=KEY, num_samples=3),
    "xgrad_cam": jaxai.xgrad_cam,
}
ELSEWHERE = {"class_activation_map", "grad_cam_all_classes", "guided_grad_cam"}
WITHOUT_TARGET = ("eigen_cam", "fem", "kpca_cam", "random_cam")


def close(actual, expected, tolerance=2e-5):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = max(np.abs(expected).max(), 1e-6)
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance)


def parts(net, images, targets):
    """Return activations, head and, from jax.grad, gradients of each image's target at conv2, as NumPy."""
    acts = net(images, stop="conv2")

    def score(acts):
        return net(acts, start="conv2")[jnp.arange(len(images)), targets].sum()

    return np.asarray(acts, np.float64), np.asarray(jax.grad(score)(acts), np.float64)


def raw(method, net, images, targets, **options):
    return method(net, images, targets, layer="conv2", relu=False, upsample=False, **options)


def test_every_member_is_tested_here():
    assert set(cam.__all__) == set(METHODS) | ELSEWHERE


def formula(name, acts, grads):
    axes = (1, 2)
    mean = grads.mean(axes, keepdims=True)
    if name == "grad_cam":
        return (mean * acts).sum(-1)
    if name == "hires_cam":
        return (grads * acts).sum(-1)
    if name == "layer_cam":
        return (np.maximum(grads, 0) * acts).sum(-1)
    if name == "element_wise_grad_cam":
        return np.maximum(grads * acts, 0).sum(-1)
    if name == "xgrad_cam":
        weight = (grads * acts).sum(axes, keepdims=True) / (acts.sum(axes, keepdims=True) + 1e-7)
        return (weight * acts).sum(-1)
    if name == "grad_cam_plus_plus":
        alpha = grads**2 / (2 * grads**2 + acts.sum(axes, keepdims=True) * grads**3 + 1e-6)
        weight = (np.where(grads != 0, alpha, 0) * np.maximum(grads, 0)).sum(axes, keepdims=True)
        return (weight * acts).sum(-1)
    if name == "fem":
        threshold = acts.mean(axes, keepdims=True) + 2 * acts.std(axes, keepdims=True)
        return ((acts > threshold).mean(axes, keepdims=True) * acts).sum(-1)
    raise KeyError(name)


@pytest.mark.parametrize(
    "name",
    ["grad_cam", "hires_cam", "layer_cam", "element_wise_grad_cam", "xgrad_cam", "grad_cam_plus_plus", "fem"],
)
def test_formula(name, dense_net, small_images):
    classes = TARGETS[:, 0]
    expected = formula(name, *parts(dense_net, small_images, classes))
    close(raw(METHODS[name], dense_net, small_images, classes), expected)


def first_component(rows):
    rows = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    projection = rows @ axes[0]
    return projection * (1 if projection @ rows.sum(1) >= 0 else -1)


def test_principal_components_are_those_of_a_singular_value_decomposition(dense_net, small_images):
    acts, grads = parts(dense_net, small_images, TARGETS[:, 0])
    for method, values in (
        (jaxai.eigen_cam, acts),
        (jaxai.eigen_grad_cam, acts * grads),
        (partial(jaxai.eigen_grad_cam, magnitude=True), acts * np.abs(grads)),
    ):
        expected = [first_component(v.reshape(-1, v.shape[-1])).reshape(v.shape[:2]) for v in values]
        close(raw(method, dense_net, small_images, TARGETS[:, 0]), np.stack(expected), 1e-4)


def test_kernel_principal_components(dense_net, small_images):
    acts, _ = parts(dense_net, small_images, TARGETS[:, 0])
    kernels = {
        "sigmoid": lambda k, n: np.tanh(0.2 * k + 1),
        "polynomial": lambda k, n: (0.2 * k + 1) ** 3,
        "rbf": lambda k, n: np.exp(-0.2 * (n[:, None] + n - 2 * k)),
        "cosine": lambda k, n: k / np.sqrt(n[:, None] * n),
    }
    for name, kernel in kernels.items():
        found = raw(jaxai.kpca_cam, dense_net, small_images, None, kernel=name, gamma=0.2)
        rows = acts[0].reshape(-1, acts.shape[-1])
        rows = rows - rows.mean(0)
        gram = rows @ rows.T
        gram = kernel(gram, np.diag(gram))
        centre = np.eye(len(gram)) - 1 / len(gram)
        values, vectors = np.linalg.eigh(centre @ gram @ centre)
        expected = vectors[:, -1] * np.sqrt(values[-1])
        expected = expected * np.sign(expected @ rows.sum(1))
        close(found[0].ravel(), expected, 1e-4)


def test_smooth_score_function_is_exact(pooled_net, small_images):
    """With Y = phi(S), S linear in the activations, the derivatives come from jax.grad of Y alone."""
    classes = TARGETS[:, 0]
    acts, _ = parts(pooled_net, small_images, classes)
    phi = jax.nn.sigmoid
    found = raw(jaxai.grad_cam_plus_plus, pooled_net, small_images, classes, score_function=phi)
    positions = acts[0, ..., 0].size

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0, None))
    def derivatives(acts, channel, target):
        def value(change):
            moved = acts.at[0, 0, channel].add(change)
            return phi(pooled_net(moved[None], start="conv2")[0, target])

        first = jax.grad(value)
        second = jax.grad(first)
        return first(0.0), second(0.0), jax.grad(second)(0.0)

    for index in range(len(small_images)):
        # The head sees only the mean, so all positions of a channel have the same derivatives.
        moments = derivatives(jnp.asarray(acts[index], jnp.float32), jnp.arange(6), classes[index])
        d1, d2, d3 = np.asarray(moments, np.float64)
        bend = jax.grad(jax.grad(phi))(pooled_net(small_images)[index, classes[index]])
        alpha = d2 / (2 * d2 + acts[index].sum((0, 1)) * d3 + 1e-6 * float(bend))
        weights = positions * alpha * np.maximum(d1, 0)
        close(found[index], (weights * acts[index]).sum(-1), 1e-3)


def test_exponential_score_is_the_power_formula_times_its_value(pooled_net, small_images):
    scores = pooled_net(small_images)[jnp.arange(3), TARGETS[:, 0]] + 4
    shifted = jaxai.chain(
        {"conv2": lambda x: pooled_net(x, stop="conv2"), "rest": lambda a: pooled_net(a, start="conv2") + 4}
    )
    power = raw(jaxai.grad_cam_plus_plus, shifted, small_images, TARGETS[:, 0])
    exact = raw(jaxai.grad_cam_plus_plus, shifted, small_images, TARGETS[:, 0], score_function=jnp.exp)
    close(exact / jnp.exp(scores)[:, None, None], power, 1e-4)


def test_pooled_heads(pooled_net, small_images):
    """CAM = Z x Grad-CAM, HiResCAM = Grad-CAM = XGrad-CAM; Ablation-CAM weighs by shares of the score."""
    classes = TARGETS[:, 0]
    grad = raw(jaxai.grad_cam, pooled_net, small_images, classes)
    close(raw(jaxai.hires_cam, pooled_net, small_images, classes), grad)
    close(raw(jaxai.xgrad_cam, pooled_net, small_images, classes), grad)
    close(raw(jaxai.class_activation_map, pooled_net, small_images, classes), grad * (6 * 8))
    acts, grads = parts(pooled_net, small_images, classes)
    score = np.asarray(pooled_net(small_images))[np.arange(3), classes]
    share = (grads * acts).sum((1, 2), keepdims=True) / score[:, None, None, None]
    close(raw(jaxai.ablation_cam, pooled_net, small_images, classes), (share * acts).sum(-1))


def test_class_activation_map_needs_a_pooled_linear_head(dense_net, small_images):
    with pytest.raises(ValueError, match="global average pooling"):
        jaxai.class_activation_map(dense_net, small_images, 0)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "pool"])
def test_ablation_is_the_drop_of_each_channel(layer, dense_net, small_images):
    acts = dense_net(small_images, stop=layer)
    whole = dense_net(small_images)
    expected = np.zeros((3, 2, *acts.shape[1:3]))
    for channel in range(acts.shape[-1]):
        without = dense_net(acts.at[..., channel].set(0), start=layer)
        for k in range(2):
            y, y_k = (np.asarray(s)[np.arange(3), TARGETS[:, k]] for s in (whole, without))
            expected[:, k] += ((y - y_k) / y)[:, None, None] * np.asarray(acts)[..., channel]
    found = jaxai.ablation_cam(
        dense_net, small_images, TARGETS, layer=layer, relu=False, upsample=False, batch_size=4
    )
    close(found, expected, 1e-4)
    # Only a head that begins with a dense layer takes the short way.
    view = look(dense_net, layer, small_images, None, None)
    assert (dense_head.find(view.head, view.acts) is None) == (layer == "conv1")


@pytest.mark.parametrize("name", ["pooled_net", "dense_net"])
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_all_classes_at_once(name, layer, small_images, request):
    net = request.getfixturevalue(name)
    every = jnp.tile(jnp.arange(7), (3, 1))
    expected = jaxai.grad_cam(net, small_images, every, layer=layer, upsample=False)
    close(jaxai.grad_cam_all_classes(net, small_images, layer=layer, batch_size=2), expected)


def test_score_cam_masks_by_upsampled_channels(dense_net, small_images):
    acts = dense_net(small_images, stop="pool")
    weights = np.zeros((3, 6))
    for channel in range(6):
        mask = np.asarray(jax.image.resize(acts[..., channel], (3, 6, 8), "bilinear"))
        low, high = mask.min((1, 2), keepdims=True), mask.max((1, 2), keepdims=True)
        mask = (mask - low) / (high - low + 1e-8)
        weights[:, channel] = dense_net(small_images * mask[..., None])[jnp.arange(3), TARGETS[:, 0]]
    weights = np.exp(weights) / np.exp(weights).sum(1, keepdims=True)
    expected = (weights[:, None, None] * np.asarray(acts)).sum(-1)
    options = dict(layer="pool", relu=False, upsample=False)
    close(jaxai.score_cam(dense_net, small_images, TARGETS[:, 0], **options), expected, 1e-4)
    one_step = jaxai.is_cam(dense_net, small_images, TARGETS[:, 0], num_samples=1, **options)
    close(one_step, expected, 1e-4)
    quiet = jaxai.ss_cam(dense_net, small_images, TARGETS[:, 0], key=KEY, num_samples=1, noise=0.0, **options)
    close(quiet, expected, 1e-4)


def test_integrated_score_cam_averages_growing_masks(small_images):
    """On a model whose score is linear in the image, growing masks score (n + 1) / 2n of the full ones."""
    net = jaxai.chain({"conv": lambda x: jnp.abs(x[..., :2]), "sum": lambda x: x.sum((1, 2))})
    acts = np.abs(np.asarray(small_images[..., :2]))
    mask = acts - acts.min((1, 2), keepdims=True)
    mask = mask / mask.max((1, 2), keepdims=True)
    score = (np.abs(np.asarray(small_images))[..., :1] * mask).sum((1, 2)) * (4 + 1) / (2 * 4)
    weights = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    expected = (weights[:, None, None] * acts).sum(-1)
    found = jaxai.is_cam(net, small_images, 0, layer="conv", num_samples=4, relu=False, upsample=False)
    close(found, expected, 1e-4)


@pytest.mark.parametrize("gaussian", [True, False])
def test_recipro_cam_scores_positions_alone(gaussian, dense_net, small_images):
    acts = np.asarray(dense_net(small_images, stop="pool"))
    window = np.outer([1, 2, 1], [1, 2, 1]) / 16 if gaussian else np.outer([0, 1, 0], [0, 1, 0])
    expected = np.zeros(acts.shape[:3])
    for i in range(acts.shape[1]):
        for j in range(acts.shape[2]):
            padded = np.zeros((3, acts.shape[1] + 2, acts.shape[2] + 2, 6), np.float32)
            padded[:, i : i + 3, j : j + 3] = acts[:, i, j][:, None, None] * window[..., None]
            scores = jax.nn.softmax(dense_net(jnp.asarray(padded[:, 1:-1, 1:-1]), start="pool"))
            expected[:, i, j] = scores[jnp.arange(3), TARGETS[:, 0]]
    options = dict(layer="pool", upsample=False, gaussian=gaussian, batch_size=5)
    close(jaxai.recipro_cam(dense_net, small_images, TARGETS[:, 0], **options), expected)


def test_shapley_cam_uses_the_hessian(dense_net, small_images):
    classes = TARGETS[:, 0]
    acts, _ = parts(dense_net, small_images, classes)
    for utility, value in (
        ("rest", lambda s, c: s[c] + jax.nn.log_softmax(s)[c]),
        ("probability", lambda s, c: jax.nn.softmax(s)[c]),
        ("logit", lambda s, c: s[c]),
    ):
        found = raw(jaxai.shapley_cam, dense_net, small_images, classes, utility=utility)

        def score(flat, value=value):
            return value(dense_net(flat.reshape(1, *acts.shape[1:]), start="conv2")[0], classes[1])

        @jax.jit
        def shares(flat, score=score):
            return jax.grad(score)(flat) - jax.hessian(score)(flat) @ flat / 2

        weights = (
            np.asarray(shares(jnp.asarray(acts[1], jnp.float32).ravel())).reshape(acts.shape[1:]).mean((0, 1))
        )
        close(found[1], (weights * acts[1]).sum(-1), 1e-4)
    close(found, raw(jaxai.grad_cam, dense_net, small_images, classes))


def test_finer_cam_contrasts_with_the_nearest_classes(dense_net, small_images):
    found = raw(jaxai.finer_cam, dense_net, small_images, TARGETS, strength=0.6, comparisons=2)
    scores = np.asarray(dense_net(small_images))
    acts = dense_net(small_images, stop="conv2")
    for n in range(3):
        for k in range(2):
            own = int(TARGETS[n, k])
            order = [c for c in np.argsort(np.abs(scores[n] - scores[n, own])) if c != own][:2]

            def contrast(a, own=own, order=order):
                s = dense_net(a[None], start="conv2")[0]
                p = jax.nn.softmax(s)
                return sum(p[c] * (s[own] - 0.6 * s[c]) for c in order) / sum(p[c] for c in order)

            grads = np.asarray(jax.grad(contrast)(acts[n]))
            close(found[n, k], (grads.mean((0, 1)) * np.asarray(acts[n])).sum(-1), 1e-4)
    with pytest.raises(TypeError, match="callable"):
        jaxai.finer_cam(dense_net, small_images, lambda scores: scores[:, 0])


def test_smooth_plus_plus_averages_derivatives(dense_net, small_images):
    classes = TARGETS[:, 0]
    found = raw(
        METHODS["smooth_grad_cam_plus_plus"], dense_net, small_images, classes, num_samples=3, noise=0.2
    )
    acts, _ = parts(dense_net, small_images, classes)
    grads = []
    for index in range(3):
        noise = jax.random.normal(jax.random.fold_in(KEY, index), small_images.shape[1:])
        grads.append(parts(dense_net, small_images + 0.2 * noise, classes)[1])
    first, second, third = (np.mean([g**p for g in grads], axis=0) for p in (1, 2, 3))
    alpha = second / (2 * second + acts.sum((1, 2), keepdims=True) * third + 1e-6)
    weights = (np.where(first != 0, alpha, 0) * np.maximum(first, 0)).sum((1, 2), keepdims=True)
    close(found, (weights * acts).sum(-1), 1e-3)


def test_random_cam_is_seeded(dense_net, small_images):
    one = jaxai.random_cam(dense_net, small_images, key=KEY, relu=False)
    other = jaxai.random_cam(dense_net, small_images, key=jax.random.key(1), relu=False)
    assert np.abs(np.asarray(one - other)).max() > 0.1
    weights = jax.random.uniform(KEY, (6,), minval=-1.0, maxval=1.0)
    acts = dense_net(small_images, stop="conv2")
    close(raw(jaxai.random_cam, dense_net, small_images, None, key=KEY), acts @ weights)


def test_fusion(dense_net, small_images):
    def scaled(name):
        maps = np.asarray(jaxai.layer_cam(dense_net, small_images, 1, layer=name))
        low = maps.min((1, 2), keepdims=True)
        return (maps - low) / (maps - low).max((1, 2), keepdims=True)

    one, two = scaled("conv1"), scaled("pool")
    options = dict(names=("conv1", "pool"), method=jaxai.layer_cam)
    for reduce, expected in (
        ("mean", (one + two) / 2),
        ("max", np.maximum(one, two)),
        ("product", one * two),
    ):
        close(jaxai.fused_cam(dense_net, small_images, 1, reduce=reduce, **options), expected)
    top = jaxai.layer_cam(dense_net, small_images, 1, layer="pool")
    found = jaxai.fused_cam(dense_net, small_images, 1, names=["pool"], method=jaxai.layer_cam, scale="tanh")
    close(found, np.tanh(2 * np.asarray(top) / np.asarray(top).max((1, 2), keepdims=True)))
    with pytest.raises(ValueError, match="names"):
        jaxai.fused_cam(dense_net, small_images, names="conv1")


def test_guided_grad_cam_is_a_product(dense_net, small_images):
    found = jaxai.guided_grad_cam(dense_net, small_images, TARGETS, layer="conv2")
    fine = jaxai.guided_backprop(dense_net, small_images, TARGETS)
    coarse = jaxai.grad_cam(dense_net, small_images, TARGETS, layer="conv2")
    close(found, np.asarray(fine) * np.asarray(coarse)[..., None])
    top = jaxai.guided_grad_cam(dense_net, small_images, layer="conv2", batch_size=2)
    classes = dense_net(small_images).argmax(1)
    close(top, jaxai.guided_grad_cam(dense_net, small_images, classes, layer="conv2"))


def test_guided_grad_cam_runs_its_two_methods_and_no_more(dense_net, small_images):
    def convolutions(method, **options):
        program = jax.make_jaxpr(lambda x: method(dense_net, x, TARGETS, **options))(small_images)
        return str(program).count("conv_general_dilated[")

    options = {"layer": "conv2"}
    both = convolutions(jaxai.guided_backprop) + convolutions(jaxai.grad_cam, **options)
    assert 0 < convolutions(jaxai.guided_grad_cam, **options) <= both


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_its_images_alone(name, dense_net, small_images):
    """Two targets an image in chunks of two images, against one image with one target under jit."""
    method = METHODS[name]
    together = method(dense_net, small_images, TARGETS, batch_size=2)
    assert together.shape == (3, 2, 6, 8)
    alone = jax.jit(lambda x, t: method(dense_net, x, t))(small_images[1:2], TARGETS[1:2, 1])
    close(together[1:2, 1], alone, 1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_flat_image_has_finite_maps_and_gradients(name, dense_net):
    flat = jnp.full((1, 6, 8, 3), 0.5)

    @jax.jit
    @jax.value_and_grad
    def total(x):
        return jnp.sum(METHODS[name](dense_net, x, 1) ** 2)

    for image in (flat, jnp.zeros_like(flat)):
        value, gradient = total(image)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_vmap(dense_net, small_images):
    classes = TARGETS[:, 0]
    mapped = jax.vmap(lambda x, t: jaxai.grad_cam(dense_net, x[None], t[None])[0])(small_images, classes)
    close(mapped, jaxai.grad_cam(dense_net, small_images, classes))


def test_the_top_class_is_the_default(dense_net, small_images):
    top = jnp.argmax(dense_net(small_images), -1)
    for method in (jaxai.grad_cam, jaxai.ablation_cam, jaxai.shapley_cam):
        close(method(dense_net, small_images), method(dense_net, small_images, top))


def test_callable_targets(dense_net, small_images):
    def contrast(scores):
        return scores[:, 1] - scores[:, 2]

    one, two, both = (raw(jaxai.grad_cam, dense_net, small_images, t) for t in (1, 2, contrast))
    close(both, one - two, 1e-4)


def test_relu_and_upsample_are_last(dense_net, small_images):
    small = jaxai.grad_cam(dense_net, small_images, 1, layer="pool", upsample=False)
    assert small.shape == (3, 3, 4) and small.min() >= 0
    close(jaxai.grad_cam(dense_net, small_images, 1, layer="pool"), jaxai.upsample(small, (6, 8)))


def test_maps_without_a_target_need_no_classes(small_images):
    net = jaxai.chain({"conv": lambda x: jnp.abs(x), "rows": lambda x: x[:, ::2]})
    for name in ("eigen_cam", "fem"):
        assert METHODS[name](net, small_images, layer="conv").shape == (3, 6, 8)


def test_errors(dense_net, small_images):
    with pytest.raises(ValueError, match="unknown layer 'conv9'; the layers are conv1, conv2"):
        jaxai.grad_cam(dense_net, small_images, 0, layer="conv9")
    with pytest.raises(ValueError, match="activations"):
        jaxai.grad_cam(dense_net, small_images, 0, layer="hidden")
    with pytest.raises(ValueError, match="classes 0 to 6; got 7"):
        jaxai.grad_cam(dense_net, small_images, 7)
    with pytest.raises(ValueError, match="batch_size"):
        jaxai.score_cam(dense_net, small_images, 0, batch_size=0)
    with pytest.raises(TypeError, match="typed key"):
        jaxai.random_cam(dense_net, small_images, key=0)
    with pytest.raises(ValueError, match="`utility` must be one of"):
        jaxai.shapley_cam(dense_net, small_images, utility="odds")
    with pytest.raises(ValueError, match="`kernel` must be one of"):
        jaxai.kpca_cam(dense_net, small_images, kernel="wave")
    with pytest.raises(TypeError, match="score_function"):
        jaxai.grad_cam_plus_plus(dense_net, small_images, score_function=2)
    with pytest.raises(ValueError, match="no layer of this model has positions"):
        jaxai.grad_cam(lambda x: x.sum((1, 2)), small_images)


def test_equal_calls_share_a_program(dense_net, small_images):
    traces = []

    def counted(x):
        traces.append(x.shape)
        return dense_net(x, stop="conv1")

    net = jaxai.chain({"conv1": counted, "rest": lambda a: dense_net(a, start="conv1")})
    for method in (jaxai.grad_cam, jaxai.ablation_cam, METHODS["score_cam"]):
        method(net, small_images, 1)
        before = len(traces)
        for seed in range(3):
            method(net, small_images + seed, seed)
        assert len(traces) == before


def test_maps_depend_on_the_weights(dense_net, small_images):
    """Randomised from the top down, maps for a class change at once, those for no class below the layer."""
    leaves, tree = jax.tree.flatten(dense_net)
    keys = jax.random.split(KEY, len(leaves))
    fresh = [0.5 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    head = jax.tree.unflatten(tree, leaves[:2] + fresh[2:])
    whole = jax.tree.unflatten(tree, fresh)

    def correlation(name, net):
        before, after = (
            np.asarray(raw(METHODS[name], n, small_images, TARGETS[:, 0])).reshape(3, -1)
            for n in (dense_net, net)
        )
        return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(before, after, strict=True)])

    for name in ("grad_cam", "hires_cam", "ablation_cam", "xgrad_cam"):
        assert correlation(name, head) < 0.9, name
    for name in WITHOUT_TARGET:
        assert correlation(name, head) > 0.999
        assert correlation(name, whole) < 0.9


def test_a_network_can_be_trained_on_its_maps(small_images, pooled_net):
    """Grad-CAM is moved to the left half of the images by gradient descent on the kernels."""
    leaves, tree = jax.tree.flatten(pooled_net)

    @jax.jit
    @jax.value_and_grad
    def loss(leaves):
        maps = jaxai.grad_cam(jax.tree.unflatten(tree, leaves), small_images, 1, layer="conv2")
        return jnp.mean(maps[..., 4:] ** 2) - jnp.mean(jnp.minimum(maps[..., :4], 1.0))

    first, _ = loss(leaves)
    for _ in range(20):
        value, grads = loss(leaves)
        leaves = [leaf - 0.1 * g for leaf, g in zip(leaves, grads, strict=True)]
    assert value < first - 0.01


def test_batch_size_bounds_memory(pooled_net):
    images = jnp.zeros((32, 64, 64, 3))

    def peak(batch_size):
        program = jax.jit(lambda x: jaxai.grad_cam(pooled_net, x, batch_size=batch_size))
        return program.lower(images).compile().memory_analysis().temp_size_in_bytes

    # One image's activations: 64 x 64 positions of 5 + 6 channels of 4 bytes are 180 kB.
    assert peak(2) < 32 * 180e3 / 4 < peak(None)


def test_score_cam_holds_few_masked_images(pooled_net):
    images = jnp.zeros((2, 64, 64, 3))

    def peak(batch_size):
        program = jax.jit(lambda x: jaxai.score_cam(pooled_net, x, batch_size=batch_size))
        return program.lower(images).compile().memory_analysis().temp_size_in_bytes

    assert peak(2) < 0.5 * peak(12)
