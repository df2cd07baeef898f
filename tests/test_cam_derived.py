"""CAMs made of other CAMs or of more derivatives: formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, parts, raw

import jaxai

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_smooth_plus_plus_averages_derivatives(dense_net, small_images):
    classes = TARGETS[:, 0]
    found = raw(
        jaxai.smooth_grad_cam_plus_plus,
        dense_net,
        small_images,
        classes,
        key=KEY,
        num_samples=3,
        noise=0.2,
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


@pytest.mark.slow
def test_fusion(dense_net, small_images):
    def scaled(name):
        maps = np.asarray(jaxai.layer_cam(dense_net, small_images, 1, layer=name))
        low = maps.min((1, 2), keepdims=True)
        return (maps - low) / (maps - low).max((1, 2), keepdims=True)

    one, two = scaled("conv1"), scaled("pool")
    options = dict(names=("conv1", "pool"), method=jaxai.layer_cam, scale="minmax")
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


def test_fusion_is_the_papers_by_default():
    """LayerCAM's equation 8: tanh of twice the relative map; the largest of the last layer of each size."""

    def half(x):
        return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, 3).max((2, 4))

    stages = {
        "first": lambda x: x**2,
        "last": lambda x: 2 * x,
        "halved": half,
        "small": lambda x: half(half(x)),
    }
    net = jaxai.chain({**stages, "logits": lambda x: (x**3).mean((1, 2))})
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)
    found = []
    for layer in ("last", "halved"):  # The first is of the last one's size, the small one has four rows.
        cam = np.asarray(jaxai.layer_cam(net, images, 1, layer=layer))
        found.append(np.tanh(2 * cam / cam.max((1, 2), keepdims=True)))
    close(jaxai.fused_cam(net, images, 1), np.maximum(*found))


@pytest.mark.slow
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
