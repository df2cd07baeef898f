"""Residual networks and transformers of the zoo: their stages, what methods find in them, wrong arguments.

They are held against torchvision and timm in `test_zoo_reference.py`.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import jaxai
from jaxai.models import MobileNetV2, ResNet, VisionTransformer, convnext, parameters, resnet, vit
from jaxai.models.layers import LayerNorm, max_pool
from jaxai.report import _networks

COMPOSITE = jaxai.rules.Composite(conv=jaxai.rules.Epsilon(1e-6), dense=jaxai.rules.Epsilon(1e-6))
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)


@pytest.fixture(scope="module")
def small():
    """Networks of the same blocks, few and narrow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet._BLOCKS, 18, (1, 1, 1, 1))
        patch.setitem(vit.SIZES, "tiny", (24, 3, 3))
        patch.setitem(convnext._SIZES, "tiny", ((1, 1, 1, 1), 8))
        yield {
            "resnet": filled(partial(ResNet, 18, width=8, classes=5)),
            "convnext": filled(partial(convnext.ConvNeXt, "tiny", classes=5)),
            "vit": filled(partial(VisionTransformer, "tiny", patch=8, image=32, registers=2, classes=5)),
        }


def filled(make):
    """Build a network with random parameters and no biases."""
    rng, arrays = np.random.default_rng(0), {}
    for key, shape in parameters.shapes(parameters.abstract(make)).items():
        wide = np.zeros(shape) if key.endswith("bias") else rng.normal(size=shape)
        arrays[key] = (wide / np.sqrt(max(1, np.prod(shape[:-1])))).astype(np.float32)
    return parameters.build(make, arrays)


@pytest.mark.parametrize(("name", "layer"), [("resnet", "layer4.0"), ("convnext", "stages.3.blocks.0")])
@pytest.mark.slow
def test_default_layer_is_the_last_with_positions(small, name, layer):
    images = jnp.concatenate([IMAGES, IMAGES], axis=1).repeat(2, axis=2)
    assert jaxai.layers.resolve(small[name], None, images) == layer
    assert small[name](images).shape == (2, 5)


class TestTransformer:
    @pytest.mark.slow
    def test_grad_cam_lies_on_the_patches(self, small):
        net, layer = small["vit"], "blocks.1"
        maps = jaxai.grad_cam(net, IMAGES, 3, relu=False, upsample=False)
        acts, head = jaxai.split(net, layer, IMAGES)
        slopes = jax.grad(lambda acts: head(acts)[:, 3].sum())(acts)[:, 3:]
        patches = acts[:, 3:]
        expected = (patches * slopes.mean(1, keepdims=True)).sum(-1).reshape(2, 4, 4)
        np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())

    @pytest.mark.slow
    def test_the_last_block_reaches_nothing(self, small):
        reached = {
            name: jaxai.layers.reaches(small["vit"], name, IMAGES) for name in ("blocks.1", "blocks.2")
        }
        assert reached == {"blocks.1": True, "blocks.2": False}
        for method in (jaxai.grad_cam, jaxai.ablation_cam, jaxai.recipro_cam, jaxai.grad_cam_plus_plus):
            with pytest.raises(ValueError, match="positions of `layer` blocks.2 .* default is blocks.1"):
                method(small["vit"], IMAGES, 3, layer="blocks.2")
        # These look at the activations, and at scores of whole images.
        for method in (jaxai.eigen_cam, jaxai.score_cam):
            assert method(small["vit"], IMAGES, 3, layer="blocks.2").std() > 0

    @pytest.mark.slow
    def test_attention_is_found(self, small):
        maps = jaxai.attention.gradient_attention(small["vit"], IMAGES, 3)
        assert maps.shape == (2, 32, 32)
        assert float(maps.std()) > 0

    @pytest.mark.slow
    def test_positions_of_other_sizes(self, small):
        images = jnp.ones((1, 48, 40, 3))
        assert small["vit"](images, stop="blocks.0").shape == (1, 3 + 6 * 5, 24)

    def test_cubic_interpolation(self):
        np.testing.assert_array_equal(vit.cubic(5, 5), np.eye(5))
        np.testing.assert_allclose(vit.cubic(12, 30).sum(1), 1)
        # Place 0.25 + 1: Keys 1981, eq. 4 at distances 1.25, 0.25, 0.75 and 1.75 with a = -0.75.
        np.testing.assert_allclose(
            vit.cubic(4, 8)[3], [-0.10546875, 0.87890625, 0.26171875, -0.03515625], atol=1e-12
        )


@pytest.mark.slow
def test_relevance_is_conserved(small):
    """Without biases, all of a score comes from the pixels."""
    net = small["resnet"]
    relevance = jaxai.lrp(net, IMAGES, 3, composite=COMPOSITE, relevance="score")
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), net(IMAGES)[:, 3], rtol=1e-2, atol=1e-3)


def test_overlapping_pool_is_reduce_window():
    x = IMAGES[:, :15]
    around = ((1, 1), (1, 1))

    def window(x):
        padding = ((0, 0), *around, (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)

    def ours(x):
        return max_pool(x, window=3, stride=2, padding=around)

    np.testing.assert_array_equal(ours(x), window(x))
    slopes = [jax.grad(lambda x, f=f: jnp.square(f(x)).sum())(x) for f in (ours, window)]
    np.testing.assert_allclose(*slopes, rtol=1e-6)


def test_layer_norm():
    norm = LayerNorm(6)
    x = IMAGES.reshape(-1, 6) * 10
    centred = x - x.mean(1, keepdims=True)
    np.testing.assert_allclose(
        norm(x), centred / np.sqrt(x.var(1, keepdims=True) + 1e-6), rtol=1e-5, atol=1e-6
    )
    assert norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rngs: ResNet(20, rngs=rngs), "`depth` must be one of 18, 34, 50, 101, 152; got 20"),
        (lambda rngs: VisionTransformer("huge", rngs=rngs), "`size` must be one of tiny, small, base, large"),
        (lambda rngs: VisionTransformer("tiny", patch=14, rngs=rngs, image=225), "a multiple of `patch`, 14"),
        (lambda rngs: convnext.ConvNeXt("nano", rngs=rngs), "`size` must be one of tiny, small, base, large"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(nnx.Rngs(0))


def test_features_are_no_classes():
    net = jaxai.models.Pretrained(
        model=Partial(lambda x: x.mean((1, 2))),
        name="mine",
        crop=lambda photo: photo,
        normalize=lambda photos: photos,
        labels=None,
        input_size=8,
        digest="",
    )
    assert _networks.with_classes(net).labels == ("class 0", "class 1", "class 2")
    with pytest.raises(ValueError, match="^mobilenet_v2_features has no classes to explain"):
        _networks.with_classes(replace(net, name="mobilenet_v2_features"))


def test_features_without_a_classifier():
    net = nnx.eval_shape(lambda: MobileNetV2(classes=None, rngs=nnx.Rngs(0)))
    assert net.layer_names[-2:] == ("features.18", "pool")
