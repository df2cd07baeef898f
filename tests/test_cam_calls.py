"""The CAM family as it is called: batches, flat images, targets, weights, training, memory, errors."""

import every_method
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, raw

import jaxai
from jaxai import cam

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])
ELSEWHERE = {"class_activation_map", "grad_cam_all_classes", "guided_grad_cam"}
METHODS = {name: every_method.METHODS[name] for name in cam.__all__ if name not in ELSEWHERE}
WITHOUT_TARGET = every_method.NOTHING


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
