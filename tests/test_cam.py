"""The CAM family on small networks: formulas in NumPy, axioms, batches, gradients, errors."""

import time
from functools import partial

import every_method
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, parts, raw
from flax import nnx

import jaxai
from jaxai import cam

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])
ELSEWHERE = {"class_activation_map", "grad_cam_all_classes", "guided_grad_cam"}
METHODS = {name: every_method.METHODS[name] for name in cam.__all__ if name not in ELSEWHERE}
WITHOUT_TARGET = every_method.NOTHING


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


@pytest.mark.parametrize("channels", [3, 200])
def test_principal_components_of_many_positions_and_of_many_channels(channels):
    """The matrix of the channels is decomposed where it is smaller than that of the positions."""
    net = jaxai.chain({"conv2": lambda x: x, "logits": lambda x: x.mean((1, 2))})
    x = jnp.asarray(np.random.default_rng(channels).normal(size=(2, 6, 8, channels)), jnp.float32)
    # One axis leads, so that the component is well determined.
    x = x + 3 * jnp.linspace(-1, 1, 48).reshape(6, 8, 1) * jnp.arange(channels) / channels
    expected = np.stack(
        [first_component(v.reshape(48, -1).astype(float)).reshape(6, 8) for v in np.asarray(x)]
    )
    for method in (jaxai.eigen_cam, partial(jaxai.kpca_cam, kernel="linear")):
        close(raw(method, net, x, 0), expected, 1e-4)

    def loss(x):
        return (jaxai.eigen_cam(net, x, 0, relu=False, upsample=False)[0, 2, 3]) ** 2

    step = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32) * 1e-2
    slope = (loss(x + step) - loss(x - step)) / 2
    np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(x), step), slope, rtol=2e-2)
    assert not raw(jaxai.eigen_cam, net, jnp.ones((1, 4, 4, channels)), 0).any()
    gradient = jax.grad(lambda x: jaxai.eigen_cam(net, x, 0).sum())(jnp.ones((1, 4, 4, channels)))
    assert np.isfinite(gradient).all()


def test_layers_of_many_positions():
    net = jaxai.chain({"conv2": lambda x: x, "logits": lambda x: x.mean((1, 2))})
    x = jax.random.normal(jax.random.key(0), (1, 128, 128, 4))
    began = time.perf_counter()
    assert raw(jaxai.eigen_cam, net, x, 0).shape == (1, 128, 128)
    assert time.perf_counter() - began < 20, "the matrix of all pairs of positions takes hours"
    with pytest.raises(ValueError, match="`layer` has 16384, expected at most 4096: choose a later layer"):
        jaxai.kpca_cam(net, x, 0)


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


KERNEL = jnp.asarray(np.random.default_rng(9).normal(size=(3, 5)), jnp.float32)
MORE = jnp.asarray(np.random.default_rng(10).normal(size=(5, 4)), jnp.float32)
POOLED_AND_LINEAR = {
    "mean": lambda h: h.mean((1, 2)) @ KERNEL,
    "bias": lambda h: h.mean((1, 2)) @ KERNEL + 3,
    "kept_axes": lambda h: h.mean((1, 2), keepdims=True).reshape(len(h), -1) @ KERNEL,
    "window": lambda h: nnx.avg_pool(h, (6, 8))[:, 0, 0] @ KERNEL,
    "twice": lambda h: h.mean(1).mean(1) @ KERNEL,
    "sum_over_positions": lambda h: h.sum((1, 2)) / 48 @ KERNEL,
    "two_layers": lambda h: h.mean((1, 2)) @ KERNEL @ MORE,
    "temperature": lambda h: h.mean((1, 2)) @ KERNEL / 2,
    "image_by_image": lambda h: jax.vmap(lambda features: KERNEL.T @ features + 3)(h.mean((1, 2))),
    "kernel_transposed": lambda h: jax.lax.dot_general(h.mean((1, 2)), KERNEL.T, (((1,), (1,)), ((), ()))),
    "half": lambda h: (h.astype(jnp.bfloat16).mean((1, 2)) @ KERNEL.astype(jnp.bfloat16)).astype(jnp.float32),
}
OTHER_HEADS = {
    "relu_before": lambda h: jax.nn.relu(h).mean((1, 2)) @ KERNEL,
    "tanh_after_the_pool": lambda h: jnp.tanh(h.mean((1, 2))) @ KERNEL,
    "squares": lambda h: (h**2).mean((1, 2)) @ KERNEL,
    "sum": lambda h: h.sum((1, 2)) @ KERNEL,
    "first_position": lambda h: h[:, 0, 0] @ KERNEL,
    "maximum": lambda h: h.max((1, 2)) @ KERNEL,
    "half_the_positions": lambda h: h[:, :3].mean((1, 2)) @ KERNEL,
    "scaled": lambda h: (2 * h).mean((1, 2)) @ KERNEL,
    "weighted": lambda h: (h * jnp.arange(8.0)[:, None]).mean((1, 2)) @ KERNEL,
    "relu_after": lambda h: jax.nn.relu(h.mean((1, 2)) @ KERNEL),
    "softmax": lambda h: jax.nn.softmax(h.mean((1, 2)) @ KERNEL),
    "two_branches": lambda h: h.mean((1, 2)) @ KERNEL + h.max((1, 2)) @ KERNEL,
    "flat": lambda h: h.reshape(len(h), -1)[:, :3] @ KERNEL,
    "layer_norm": lambda h: jax.nn.standardize(h.mean((1, 2))) @ KERNEL,
    "no_product": lambda h: h.mean((1, 2)),
}


@pytest.mark.parametrize("name", POOLED_AND_LINEAR)
def test_class_activation_map_of_pooled_linear_heads(name, small_images):
    net = jaxai.chain({"conv2": lambda x: jnp.tanh(x), "logits": POOLED_AND_LINEAR[name]})
    weights = {"two_layers": KERNEL @ MORE, "temperature": KERNEL / 2}.get(name, KERNEL)
    found = raw(jaxai.class_activation_map, net, small_images, 1)
    close(found, jnp.tanh(small_images) @ weights[:, 1], 1e-2 if name == "half" else 2e-5)
    contrast = raw(jaxai.class_activation_map, net, small_images, lambda s: s[:, 1] - s[:, 0])
    close(
        contrast, jnp.tanh(small_images) @ (weights[:, 1] - weights[:, 0]), 1e-2 if name == "half" else 2e-5
    )


@pytest.mark.parametrize("name", ["kernel_first", "image_by_image", "kernel_transposed"])
def test_the_order_of_a_product_changes_nothing(name, small_images):
    """Heads that begin with a dense layer have shorter ways, which see the kernel in one order."""

    def flat(product):
        return lambda h: product(h.transpose(0, 3, 1, 2).reshape(len(h), 3, -1).sum(2))

    products = {
        "kernel_first": lambda h: (KERNEL.T @ h.T).T,
        "image_by_image": jax.vmap(lambda h: KERNEL.T @ h),
        "kernel_transposed": lambda h: jax.lax.dot_general(h, KERNEL.T, (((1,), (1,)), ((), ()))),
    }
    nets = [
        jaxai.chain({"conv2": lambda x: jnp.tanh(x), "logits": lambda h, p=p: jnp.tanh(flat(p)(h))})
        for p in (products[name], lambda h: h @ KERNEL)
    ]
    classes = np.tile(np.arange(5), (len(small_images), 1))
    for method in (jaxai.ablation_cam, jaxai.grad_cam):
        found, expected = (raw(method, net, small_images, classes) for net in nets)
        assert np.abs(expected).max() > 0
        close(found, expected)


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_class_activation_map_refuses_other_heads(name, small_images):
    net = jaxai.chain({"conv2": lambda x: jnp.tanh(x), "logits": OTHER_HEADS[name]})
    with pytest.raises(ValueError, match="must be followed by global average pooling and one linear layer"):
        raw(jaxai.class_activation_map, net, small_images, 1)


def test_class_activation_map_refuses_what_is_not_linear(dense_net, pooled_net, small_images):
    with pytest.raises(ValueError, match="global average pooling"):
        jaxai.class_activation_map(dense_net, small_images, 0)
    with pytest.raises(ValueError, match="a callable target be linear"):
        jaxai.class_activation_map(pooled_net, small_images, lambda s: jax.nn.softmax(s)[:, 0])
    scale = jax.tree_util.Partial(lambda w, h: (w * h).mean((1, 2)) @ KERNEL, jnp.ones(3))
    with pytest.raises(ValueError, match="global average pooling"):
        raw(jaxai.class_activation_map, jaxai.chain({"conv2": jnp.tanh, "logits": scale}), small_images, 0)


@pytest.mark.parametrize("name", ["pooled_net", "dense_net"])
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_all_classes_at_once(name, layer, small_images, request):
    net = request.getfixturevalue(name)
    every = jnp.tile(jnp.arange(7), (3, 1))
    expected = jaxai.grad_cam(net, small_images, every, layer=layer, upsample=False)
    close(jaxai.grad_cam_all_classes(net, small_images, layer=layer, batch_size=2), expected)


def test_random_cam_is_seeded(dense_net, small_images):
    one = jaxai.random_cam(dense_net, small_images, key=KEY, relu=False)
    other = jaxai.random_cam(dense_net, small_images, key=jax.random.key(1), relu=False)
    assert np.abs(np.asarray(one - other)).max() > 0.1
    weights = jax.random.uniform(KEY, (6,), minval=-1.0, maxval=1.0)
    acts = dense_net(small_images, stop="conv2")
    close(raw(jaxai.random_cam, dense_net, small_images, None, key=KEY), acts @ weights)


@pytest.mark.sampled
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_its_images_alone(name, dense_net, small_images):
    """Two targets an image in chunks of two images, against one image with one target under jit."""
    method = METHODS[name]
    together = method(dense_net, small_images, TARGETS, batch_size=2)
    assert together.shape == (3, 2, 6, 8)
    alone = jax.jit(lambda x, t: method(dense_net, x, t))(small_images[1:2], TARGETS[1:2, 1])
    close(together[1:2, 1], alone, 1e-4)


@pytest.mark.sampled
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
    close(jaxai.grad_cam(dense_net, small_images, 1, layer="pool"), jaxai.maps.upsample(small, (6, 8)))


def test_maps_without_a_target_need_no_classes(small_images):
    net = jaxai.chain({"conv": lambda x: jnp.abs(x), "rows": lambda x: x[:, ::2]})
    for name in ("eigen_cam", "fem"):
        assert METHODS[name](net, small_images, layer="conv").shape == (3, 6, 8)


def test_fem_needs_positions_enough_for_an_outlier():
    """One of n values lies at most sqrt(n - 1) standard deviations above the mean of all."""
    net = jaxai.chain({"pool": lambda x: x, "logits": lambda x: x.mean((1, 2))})
    for rows, sigmas in ((5, 2.0), (3, 1.5), (1, 0.5)):
        x = jnp.zeros((1, rows, 1, 2)).at[0, 0].set(1.0)
        with pytest.raises(ValueError, match=rf"at least {rows + 1} positions .* got {rows}"):
            jaxai.fem(net, x, layer="pool", sigmas=sigmas)
        one_more = jnp.zeros((1, rows + 1, 1, 2)).at[0, 0].set(1.0)
        np.testing.assert_allclose(
            jaxai.fem(net, one_more, layer="pool", sigmas=sigmas).max(), 2 / (rows + 1)
        )


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
    with pytest.raises(ValueError, match="no hidden layer of this model has positions"):
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
