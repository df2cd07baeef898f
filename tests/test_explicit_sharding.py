"""Models under an explicit mesh, whose class scores are spread over devices, in a process of their own."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from every_method import METHODS

SCRIPT = textwrap.dedent("""
    import json
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jax.tree_util import Partial
    import jaxai

    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 8), (8, 8))]
    x = jnp.asarray(rng.normal(size=(8, 8, 8, 3)), jnp.float32)

    KEY = jax.random.key(0)
    CELLS = {"segments": np.arange(64).reshape(8, 8) // 16, "num_segments": 4}

    def net(spread, weights, x):
        h = jax.nn.relu(x @ weights[0]).mean((1, 2))
        return jnp.matmul(h, weights[1], out_sharding=P(None, "d") if spread else None)

    METHODS = {
        "saliency": lambda m, x: jaxai.saliency(m, x, 1),
        "saliency of the top class": lambda m, x: jaxai.saliency(m, x),
        "saliency of two classes": lambda m, x: jaxai.saliency(m, x, np.tile([1, 2], (8, 1))),
        "integrated_gradients": lambda m, x: jaxai.integrated_gradients(m, x, 1, steps=3),
        "occlusion": lambda m, x: jaxai.occlusion(m, x, 1, window=(4, 4), strides=(4, 4)),
        "rise": lambda m, x: jaxai.rise(m, x, 1, key=KEY, num_masks=8, grid=2),
        "lrp": lambda m, x: jaxai.lrp(m, x, 1),
        "deep_lift": lambda m, x: jaxai.deep_lift(m, x, 1),
        "guided_backprop": lambda m, x: jaxai.guided_backprop(m, x, 1),
        "full_grad": lambda m, x: jaxai.full_grad(m, x, 1),
        "smooth_grad": lambda m, x: jaxai.smooth_grad(m, x, 1, key=KEY, num_samples=3),
        "guided paths": lambda m, x: jaxai.guided_integrated_gradients(m, x, 1, steps=3),
        "lime": lambda m, x: jaxai.lime(m, x, 1, key=KEY, num_samples=32, **CELLS).weights,
        "sobol": lambda m, x: jaxai.sobol(m, x, 1, grid=2, num_designs=4),
        "extremal": lambda m, x: jaxai.extremal_perturbation(m, x, 1, steps=2, stride=2, sigma=2.0),
    }
    alone = [np.asarray(m(Partial(Partial(net, False), weights), x)) for m in METHODS.values()]
    mesh = jax.make_mesh((len(jax.devices()),), ("d",), axis_types=(AxisType.Explicit,))
    jax.set_mesh(mesh)
    specs = (P(), P(None, "d"))
    placed = [jax.device_put(w, NamedSharding(mesh, s)) for w, s in zip(weights, specs)]
    # Images may lie on one device: JAX brings them to the mesh.
    errors = []
    for images in (x, jax.device_put(x, NamedSharding(mesh, P()))):
        found = [np.asarray(m(Partial(Partial(net, True), placed), images)) for m in METHODS.values()]
        errors.append([float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(alone, found)])
    errors = [max(pair) for pair in zip(*errors)]
    print(json.dumps(dict(zip(METHODS, errors))))
""")


EVERY = textwrap.dedent("""
    import json
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jax.tree_util import Partial
    import jaxai
    from every_method import METHODS, NOTHING, arrays

    # Compiling takes nearly all of the time.
    jax.config.update("jax_disable_most_optimizations", True)
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 4), (4, 6), (6, 8))]
    x = jnp.asarray(rng.normal(size=(2, 6, 8, 3)), jnp.float32)

    def features(w, x):
        return jax.nn.relu(x @ w)

    def scores(spread, w, x):
        return jnp.matmul(x, w, out_sharding=P(None, "d") if spread else None)

    def explained(name, spread, weights):
        first, second, last = weights
        stages = {"conv1": Partial(features, first), "conv2": Partial(features, second)}
        stages |= {"pool": lambda x: x.mean((1, 2)), "logits": Partial(Partial(scores, spread), last)}
        found = METHODS[name](jaxai.chain(stages), x, None if name in NOTHING else 1)
        return [np.asarray(a) for a in arrays(found)]

    alone = {name: explained(name, False, weights) for name in METHODS}
    mesh = jax.make_mesh((len(jax.devices()),), ("d",), axis_types=(AxisType.Explicit,))
    jax.set_mesh(mesh)
    specs = (P(), P(), P(None, "d"))
    placed = [jax.device_put(w, NamedSharding(mesh, s)) for w, s in zip(weights, specs)]
    errors = {}
    for name, expected in alone.items():
        found = explained(name, True, placed)
        # Gaps of completeness are rounding here, of scores around 1.
        units = [1 if name == "completeness_gap" else np.abs(a).max() for a in expected]
        each = zip(found, expected, units, strict=True)
        errors[name] = max(float(np.abs(a - b).max() / unit) for a, b, unit in each)
    print(json.dumps(errors))
""")


KERNELS = textwrap.dedent("""
    import json
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jax.tree_util import Partial
    import jaxai

    rng = np.random.default_rng(0)
    kernel, matrix = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 2, 3, 8), (8, 4)))
    x = jnp.asarray(rng.normal(size=(2, 6, 8, 3)), jnp.float32)
    numbers = ("NHWC", "HWIO", "NHWC")

    def net(weights, x):
        y = jax.lax.conv_general_dilated(x, weights[0], (2, 2), "VALID", dimension_numbers=numbers)
        y = jax.sharding.reshard(y, P()) if jax.typeof(weights[0]).sharding.spec[-1] else y
        return jax.nn.relu(y).mean((1, 2)) @ weights[1]

    METHODS = {
        "saliency": lambda m: jaxai.saliency(m, x, 1),
        "deep_lift": lambda m: jaxai.deep_lift(m, x, 1),
        "deep_lift_shap": lambda m: jaxai.deep_lift_shap(m, x, 1, baselines=x[::-1]),
        "lrp": lambda m: jaxai.lrp(m, x, 1),
        "integrated_gradients": lambda m: jaxai.integrated_gradients(m, x, 1, steps=3),
    }
    alone = [np.asarray(m(Partial(net, (kernel, matrix)))) for m in METHODS.values()]
    jax.set_mesh(jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,)))
    spread = jax.device_put(kernel, NamedSharding(jax.sharding.get_mesh(), P(None, None, None, "d")))
    found = [np.asarray(m(Partial(net, (spread, matrix)))) for m in METHODS.values()]
    errors = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(alone, found)]
    print(json.dumps(dict(zip(METHODS, errors))))
""")


def errors_of(script, devices):
    """Return the largest error of each method, relative to its largest value."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    flags["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | flags)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_an_explicit_mesh_changes_no_explanation(devices):
    errors = errors_of(SCRIPT, devices)
    assert len(errors) == 15
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.slow
def test_an_explicit_mesh_changes_no_method():
    errors = errors_of(EVERY, devices=2)
    assert errors.keys() == METHODS.keys()
    assert {name: error for name, error in errors.items() if not error < 1e-5} == {}


@pytest.mark.slow
def test_kernels_of_convolutions_may_be_spread():
    errors = errors_of(KERNELS, devices=1)
    assert len(errors) == 5
    assert max(errors.values()) < 1e-5, errors
