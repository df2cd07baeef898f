"""What is checked of networks that nobody here wrote: Grad-CAM, LRP, every method, compiled once."""

import inspect
import os
import re
import time

import jax
import numpy as np
from every_method import ATTENTION, arrays, of_shape

import jaxai

TARGET_ONLY = {"upsample": False, "relu": False}
EPSILON = jaxai.rules.Epsilon(1e-9)
# What is refused, and in what words.
NO_RELU = dict.fromkeys(("deconvnet", "guided_backprop", "guided_grad_cam"), "must contain a ReLU")
NO_CAM = {"class_activation_map": "must be followed by global average pooling and one linear layer"}
NO_ATTENTION = dict.fromkeys(ATTENTION, "must have attention matrices")
# A forward pass for every channel; or outliers among many positions.
AT_A_NARROW_LAYER = ("score_cam", "is_cam", "ss_cam", "fem")

_compilations = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: _compilations.append(event) if "backend_compile" in event else None
)


def _compiles_nothing(run, images):
    others = images + 1
    before = len(_compilations)
    run(others)
    assert len(_compilations) == before


def _on_grid(values, layout):
    """Return values of a layer as [batch, rows, columns, channels]."""
    if layout == "NCHW":
        return np.moveaxis(values, 1, -1)
    if not isinstance(layout, jaxai.layers.Tokens):
        return values
    tokens = values if layout.axis else values.swapaxes(0, 1)
    inside = slice(layout.prefix, layout.prefix + layout.grid[0] * layout.grid[1])
    return tokens[:, inside].reshape(len(tokens), *layout.grid, -1)


def check_grad_cam(model, images, target, layer, layout, values, gradient, *, tolerance):
    """Check Grad-CAM at a layer against the values and the gradient there, as another library has them."""
    values, gradient = (_on_grid(np.asarray(a), layout) for a in (values, gradient))
    expected = (values * gradient.mean((1, 2), keepdims=True)).sum(-1)
    found = np.asarray(jaxai.grad_cam(model, images, target, layer=layer, **TARGET_ONLY), np.float64)
    scale = np.abs(expected).max()
    assert found.shape == expected.shape and scale > 0
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=tolerance, err_msg=layer)


def check_grad_cam_is_compiled_once(model, images, target, layer):
    _compiles_nothing(lambda x: jaxai.grad_cam(model, x, target, layer=layer, **TARGET_ONLY), images)


def check_conservation(model, images, target, *, attends, least):
    """Check that the sum of relevance is the score if no constant is added anywhere; CP-LRP for attention."""
    scores = np.asarray(model(images))[:, target]
    assert np.abs(scores).min() > least
    composite = "cp_lrp" if attends else jaxai.rules.Composite(conv=EPSILON, dense=EPSILON)

    def run(x):
        return jaxai.lrp(model, x, target, composite=composite, relevance="score")

    np.testing.assert_allclose(np.asarray(run(images)).sum((1, 2, 3)), scores, rtol=0.01)
    _compiles_nothing(run, images)


def _wrong(run, model, images, traced):
    """Return what is wrong with a method's values: other shapes than traced, not finite, all alike."""
    try:
        found = [np.asarray(leaf) for leaf in run(model, images)]
    except Exception as error:  # Every method is looked at before the test fails.
        return f"{type(error).__name__}: {error}"
    if [leaf.shape for leaf in found] != [leaf.shape for leaf in traced]:
        return f"shapes {[leaf.shape for leaf in found]}"
    if not all(np.isfinite(leaf).all() for leaf in found):
        return "not finite"
    return None if any(np.ptp(leaf) > 0 for leaf in found) else "all values are alike"


def _for_and_against(model, images, target):
    """Guided Grad-CAM of a class and of its opposite: zero for one where all evidence is for the other."""

    def opposite(scores):
        return -scores[:, target]

    return [jaxai.guided_grad_cam(model, images, one) for one in (target, opposite)]


def check_every_method(model, images, target, *, names, narrow, refused, traced_only=()):
    """Check that every method runs, or refuses in these words.

    Methods are traced, which is where they refuse: compiling all takes an hour for fourteen networks. Where
    JAXAI_COMPUTED is set, they are computed too.

    Args:
        names: The layers of methods that look at several.
        narrow: A layer of few channels and many positions, for methods that need it.
        refused: A pattern of the line of each method that refuses.
        traced_only: What takes too long to be computed.
    """
    told, wrong = {}, {}
    for name, method in of_shape(images.shape).items():
        options: dict = {"names": names} if "names" in getattr(method, "keywords", {}) else {}
        options |= {"layer": narrow} if name in AT_A_NARROW_LAYER else {}
        method = _for_and_against if name == "guided_grad_cam" else method
        # Networks that have learned nothing may have evidence against a class alone.
        options |= {"relu": False} if "relu" in inspect.signature(method).parameters else {}

        def run(model, images, method=method, options=options):
            return arrays(method(model, images, target, **options))

        try:
            found = jax.eval_shape(run, model, images)
        except (ValueError, TypeError) as error:
            told[name] = str(error)
        else:
            assert found and all(leaf.size for leaf in found), name
            if os.environ.get("JAXAI_COMPUTED") and name not in traced_only:
                began = time.perf_counter()
                wrong[name] = _wrong(run, model, images, found)
                print(f"{name}: {time.perf_counter() - began:.1f} s {wrong[name] or ''}", flush=True)
    for name, line in told.items():
        assert re.search(refused.get(name, "nothing"), line) and "\n" not in line, (name, line)
    assert set(told) == set(refused)
    assert not any(wrong.values()), {name: line for name, line in wrong.items() if line}
