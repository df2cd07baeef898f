"""The CAM family and heads: CAM where these are pooled and linear, and Grad-CAM of all classes at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, parts, raw
from flax import nnx

import jaxai

pytestmark = pytest.mark.usefixtures("quick_compilation")
TARGETS = jnp.array([[1, 2], [3, 4], [0, 6]])


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
