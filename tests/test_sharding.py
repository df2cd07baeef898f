"""Explanations on several devices: four pretended ones on the CPU, in a process of their own."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent("""
    import json
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
    import jaxai

    def features(kernel, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        return jax.nn.relu(x)

    def head(kernel, x):
        return x.mean((1, 2)) @ kernel

    rng = np.random.default_rng(0)
    kernels = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 3, 3, 6), (6, 5))]
    Partial = jax.tree_util.Partial
    net = jaxai.chain({"features": Partial(features, kernels[0]), "head": Partial(head, kernels[1])})
    images = jnp.asarray(rng.normal(size=(8, 12, 12, 3)), jnp.float32)
    targets = jnp.arange(8) % 5
    key = jax.random.key(0)
    grid = jnp.arange(12) // 4
    segments = jnp.tile((grid[:, None] * 3 + grid)[None], (8, 1, 1))

    METHODS = {
        "grad_cam": lambda m, x, t, s: jaxai.grad_cam(m, x, t, layer="features"),
        "integrated_gradients": lambda m, x, t, s: jaxai.integrated_gradients(m, x, t, steps=6, batch_size=5),
        "lime": lambda m, x, t, s: jaxai.lime(
            m, x, t, segments=s, key=key, num_samples=40, num_segments=9, batch_size=16
        ).weights,
    }
    mesh = Mesh(np.array(jax.devices()), ("images",))
    split = P("images")
    placed = [jax.device_put(a, NamedSharding(mesh, split)) for a in (images, targets, segments)]
    found = {}
    for name, method in METHODS.items():
        alone = np.asarray(method(net, images, targets, segments))
        # Sums over chunks begin with zeros, the same everywhere, which the check of varying axes refuses.
        one_each = jax.jit(
            jax.shard_map(
                method, mesh=mesh, in_specs=(P(), split, split, split), out_specs=split, check_vma=False
            )
        )
        compiled = one_each.lower(net, *placed).compile()
        spread, program = compiled(net, *placed), compiled.as_text()
        traffic = [w for w in ("all-gather(", "all-reduce(", "all-to-all(") if w in program]
        error = float(np.abs(np.asarray(spread) - alone).max() / np.abs(alone).max())
        found[name] = [error, len(spread.sharding.device_set), traffic]
    print(json.dumps(found))
""")


@pytest.fixture(scope="module")
def found():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


METHODS = ("grad_cam", "integrated_gradients", "lime")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_images_spread_over_devices_get_what_one_device_gives(found, name):
    error, devices, traffic = found[name]
    assert devices == 4
    assert error < 1e-5
    # Every device explains its own images: nothing is exchanged.
    assert traffic == []
