"""jaxai's side of the comparison of feature visualization."""

import jax  # noqa: E402  (after `ours`, which sets the flags)
import jax.numpy as jnp  # noqa: E402
import numpy as np

import jaxai  # noqa: E402

from . import ours
from .ours import PACKAGES as PACKAGES
from .ours import about as about


def prepare(command):
    """Return the run of `visualize` on the first channels of the layer, or of the bare gradient."""
    case, dtype = command["case"], jnp.dtype(command["precision"])
    name, options = case["network"], case["options"]
    model, layer = ours.model_of(command), ours.LAYERS[name]
    if options.get("bare"):
        x = jnp.asarray(np.load(command["images"])[: case["batch"]], dtype)
        step = jax.jit(jax.grad(lambda x, m: m(x, stop=layer)[..., 0].astype(jnp.float32).mean((1, 2)).sum()))
        return lambda: jax.block_until_ready(step(x, model))
    wanted = [f"{layer}:{i}" for i in range(case["batch"])]
    key = jax.random.key(0)

    def run():
        found = jaxai.visualize(
            model, wanted, key=key, size=224, steps=options["steps"], normalize=ours._imagenet, redirect=0
        )
        return np.asarray(found.images)

    return run
