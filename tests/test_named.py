"""Layers by mark: names, splits with skip connections, Linen and Equinox models through grad_cam."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

import jaxai

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(3, 12, 10, 3)), jnp.float32)


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x):
        y = checkpoint_name(linen.relu(linen.Conv(6, (3, 3))(x)), "inner")
        return checkpoint_name(linen.relu(x + linen.Conv(6, (3, 3))(y)), "block")


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = checkpoint_name(linen.relu(linen.Conv(6, (3, 3), strides=2)(x)), "stem")
        x = linen.remat(LinenBlock)()(LinenBlock()(x))
        return linen.Dense(5)(x.mean((1, 2)))


class EquinoxNet(eqx.Module):
    stem: eqx.nn.Conv2d
    inner: eqx.nn.Conv2d
    out: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.stem = eqx.nn.Conv2d(3, 6, 3, stride=2, padding=1, key=keys[0])
        self.inner = eqx.nn.Conv2d(6, 6, 3, padding=1, key=keys[1])
        self.out = eqx.nn.Linear(6, 5, key=keys[2])

    def one(self, image):
        x = jax.nn.relu(self.stem(image.transpose(2, 0, 1)))
        y = checkpoint_name(jax.nn.relu(self.inner(x)).transpose(1, 2, 0), "inner")
        x = checkpoint_name(x.transpose(1, 2, 0) + y, "block")
        return self.out(x.mean((0, 1)))

    def __call__(self, images):
        return jax.vmap(self.one)(images)


def linen_net():
    net = LinenNet()
    return Partial(net.apply, net.init(jax.random.key(0), IMAGES))


def equinox_net():
    return EquinoxNet(jax.random.key(0))


MODELS = {
    "linen": (linen_net, ("stem", "inner", "block", "inner#2", "block#2", "logits")),
    "equinox": (equinox_net, ("inner", "block", "logits")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_splits_the_network(name):
    make, names = MODELS[name]
    net = make()
    model = jaxai.layers.named(net)
    assert model.names(IMAGES) == names
    assert jaxai.layers.named(net, IMAGES).layer_names == names
    assert jaxai.layers.named(net, jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)).layer_names == names
    np.testing.assert_array_equal(model(IMAGES), net(IMAGES))
    for layer in names:
        acts, head = jaxai.split(model, layer, IMAGES)
        np.testing.assert_allclose(head(acts), net(IMAGES), rtol=1e-5, atol=1e-6)
        # Only what comes after the layer depends on its values: a skip around it stays.
        alone = head(jnp.zeros_like(acts))
        assert not np.allclose(alone, net(IMAGES), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_grad_cam_beside_a_skip_connection(name):
    net = MODELS[name][0]()
    model = jaxai.layers.named(net)
    # The gradient at a marked value, by adding a variable there.
    acts, head = jaxai.split(model, "inner", IMAGES)
    gradient = jax.grad(lambda a: head(a)[:, 2].sum())(acts)
    expected = jax.nn.relu((gradient.mean((1, 2), keepdims=True) * acts).sum(-1))
    ours = jaxai.grad_cam(model, IMAGES, 2, layer="inner", upsample=False)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
    assert jaxai.grad_cam(model, IMAGES, 2).shape == IMAGES.shape[:3]
    last = [layer for layer in MODELS[name][1] if layer != "logits"][-1]
    np.testing.assert_array_equal(
        jaxai.grad_cam(model, IMAGES, 2), jaxai.grad_cam(model, IMAGES, 2, layer=last)
    )


def residual(x):
    y = checkpoint_name(jnp.tanh(x), "inner")
    return checkpoint_name(x * y, "product").sum((1, 2))


def test_a_head_by_hand():
    model = jaxai.layers.named(residual)
    acts, head = jaxai.split(model, "inner", IMAGES)
    np.testing.assert_allclose(acts, jnp.tanh(IMAGES), rtol=1e-6)
    np.testing.assert_allclose(
        head(2 * acts + 1), (IMAGES * (2 * acts + 1)).sum((1, 2)), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(jax.jacobian(head)(acts)[0, 0, 0, :, :, 0], IMAGES[0, :, :, 0], rtol=1e-6)
    assert all(leaf is not None for leaf in jax.tree.leaves(head))


def test_heads_compose_and_compile_once():
    model = jaxai.layers.named(Partial(lambda w, x: residual(x) @ w, jnp.ones((3, 2))))
    run = jax.jit(lambda head, acts: head(acts))
    for scale in (1.0, 2.0, 3.0):
        acts, head = jaxai.split(model, "inner", scale * IMAGES)
        np.testing.assert_allclose(run(head, acts), model(scale * IMAGES), rtol=1e-5, atol=1e-5)
    assert run._cache_size() == 1
    copies = jnp.stack([acts, 0 * acts])
    assert jax.vmap(head)(copies).shape == (2, 3, 2)
    # One image's head takes any number of activations.
    acts, head = jaxai.split(model, "inner", IMAGES[:1])
    many = jnp.concatenate([acts, 0 * acts, -acts])
    np.testing.assert_allclose(
        head(many), jnp.concatenate([head(a[None]) for a in many]), rtol=1e-5, atol=1e-5
    )


def test_marks_in_calls_count_and_marks_in_loops_do_not():
    def net(x):
        x = jax.jit(lambda x: checkpoint_name(x + 1, "in_jit"))(x)
        x = jax.checkpoint(lambda x: checkpoint_name(jnp.sin(x), "in_checkpoint"))(x)
        x = jax.nn.relu(x)
        x, _ = lax.scan(lambda x, _: (checkpoint_name(x * 2, "in_scan"), None), x, None, length=2)
        return checkpoint_name(x, "last").sum((1, 2)) + checkpoint_name(jnp.ones(3), "constant")

    assert jaxai.layers.named(net).names(IMAGES) == ("in_jit", "in_checkpoint", "last", "logits")


def test_errors():
    model = jaxai.layers.named(residual)
    with pytest.raises(ValueError, match="unknown layer 'outer'; the layers are inner, product, logits"):
        jaxai.split(model, "outer", IMAGES)
    with pytest.raises(ValueError, match="unknown layer 'outer'"):
        model.split("outer", IMAGES)
    with pytest.raises(ValueError, match="must mark a value"):
        jaxai.layers.named(lambda x: x.sum((1, 2)), IMAGES)
    with pytest.raises(TypeError, match="callable"):
        jaxai.layers.named(3)
    with pytest.raises(AttributeError):
        model.layer_names  # noqa: B018
    acts, head = jaxai.split(model, "inner", IMAGES)
    with pytest.raises(ValueError, match="must have shape"):
        head(acts[:2])
