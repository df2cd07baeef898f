"""Cascading randomisation (Adebayo et al. 2018): maps must change with the weights, from the top down.

Guided backpropagation and the deconvnet are known not to, nor are rules that follow positive weights alone
(Sixt et al. 2020, "When Explanations Lie"): their maps stay what they were until the first layers go.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxai
from jaxai import rules

pytestmark = pytest.mark.usefixtures("quick_compilation")

WIDTHS = (8, 16, 16, 16)
KEY = jax.random.key(0)


def convolve(kernel, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers))


def classify(kernel, x):
    return x.mean((1, 2)) @ kernel


def stages(seed):
    """Return four convolutions and a linear layer with He's random weights."""
    rng, channels, made = np.random.default_rng(seed), 3, {}
    for i, width in enumerate(WIDTHS, 1):
        kernel = rng.normal(size=(3, 3, channels, width)) * np.sqrt(2 / (9 * channels))
        made[f"conv{i}"] = Partial(convolve, jnp.asarray(kernel, jnp.float32))
        channels = width
    return made | {"logits": Partial(classify, jnp.asarray(rng.normal(size=(channels, 5)), jnp.float32))}


METHODS = {
    "saliency": jaxai.saliency,
    "input_x_gradient": jaxai.input_x_gradient,
    "integrated_gradients": partial(jaxai.integrated_gradients, steps=4),
    "smooth_grad": partial(jaxai.smooth_grad, key=KEY, num_samples=4),
    "deep_lift": jaxai.deep_lift,
    "lrp, epsilon": partial(jaxai.lrp, composite=rules.Composite(conv=rules.Epsilon())),
    "grad_cam": partial(jaxai.grad_cam, layer="conv3", relu=False),
    "hires_cam": partial(jaxai.hires_cam, layer="conv3", relu=False),
    "ablation_cam": partial(jaxai.ablation_cam, layer="conv3", relu=False),
    "guided_backprop": jaxai.guided_backprop,
    "deconvnet": jaxai.deconvnet,
    "excitation_backprop": jaxai.excitation_backprop,
}
INSENSITIVE = ("guided_backprop", "deconvnet", "excitation_backprop")


@pytest.mark.sampled
@pytest.mark.parametrize("name", METHODS)
def test_cascading_randomisation(name, photos):
    method, names = METHODS[name], [*stages(0)]
    image = jnp.asarray(photos["cat"][100:148:3, 150:198:3][None], jnp.float32) / 255 - 0.5
    trained, kept = stages(0), np.asarray(method(jaxai.chain(stages(0)), image, 1)).ravel()

    def similarity(depth):
        """Return the mean correlation with the original map when the top `depth` layers are drawn anew."""
        found = []
        for seed in range(1, 6):
            fresh = trained | {n: stages(seed)[n] for n in names[-depth:]}
            found.append(np.corrcoef(kept, np.asarray(method(jaxai.chain(fresh), image, 1)).ravel())[0, 1])
        return np.mean(found)

    similar = [similarity(depth) for depth in (1, 2, len(names))]
    if name in INSENSITIVE:
        assert min(similar[:2]) > 0.7, similar
    else:
        assert abs(similar[0]) < 0.7 and max(map(abs, similar[1:])) < 0.4, similar
    # Without the first layer's weights none stays what it was.
    assert similar[2] < 0.7
