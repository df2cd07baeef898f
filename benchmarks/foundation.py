"""The ratios that jaxai's design stands on, each measured in alternation in this one process.

    python -m benchmarks.foundation [--networks vgg16 efficientnet_lite0] [--repeats 7] [--out DIR]

A gradient step alone against the same step in a compiled loop, for the ports and for stock Flax convolutions
with and without `loop_safe`; the ports' depthwise convolution against XLA's; Grad-CAM of one and of ten
targets against a forward pass; LIME's cost of a mask against the forward pass of an image. Writes
`foundation.md` and `foundation.json`.
"""

import argparse
import datetime
import itertools
import os
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxai
from jaxai.models import layers as ports

from . import machine, networks, timing


def _block(run, *arguments):
    return lambda: jax.block_until_ready(run(*arguments))


def loop_rows(name, model, images, *, repeats, steps=6):
    """Time a step of gradient ascent alone and inside `lax.scan`."""

    def step(x, model):
        gradient = jax.grad(lambda x: model(x)[:, 0].astype(jnp.float32).sum())(x)
        return x + 0.1 * gradient

    alone = jax.jit(step)
    loop = jax.jit(lambda x, model: jax.lax.scan(lambda x, _: (step(x, model), None), x, length=steps)[0])
    times = timing.alternate(
        {"alone": _block(alone, images, model), "loop": _block(loop, images, model)}, repeats=repeats
    )
    in_loop = [t / steps for t in times["loop"]]
    return [_row(f"{name}: gradient step in lax.scan / alone", in_loop, times["alone"], 1.15)]


def stock_rows(*, repeats, steps=4):
    """Time the gradient step of stock Flax convolutions in `lax.scan`, as they are and by `loop_safe`."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    widths = (3, 32, 64, 64)
    network = nnx.Sequential(
        *(
            nnx.Sequential(nnx.Conv(a, b, (3, 3), rngs=rngs), jax.nn.relu)
            for a, b in itertools.pairwise(widths)
        )
    )
    network.eval()
    images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))

    def loop(model, x):
        def step(x, _):
            return x + 0.1 * jax.grad(lambda x: model(x).sum())(x), None

        return jax.lax.scan(step, x, length=steps)[0]

    compiled = jax.jit(loop)
    models = {"stock": network, "safe": jaxai.rules.loop_safe(network)}
    runs = {name: _block(compiled, model, images) for name, model in models.items()}
    np.testing.assert_allclose(runs["stock"](), runs["safe"](), rtol=1e-3, atol=1e-3)
    times = timing.alternate(runs, repeats=max(2, repeats // 2))
    what = "three stock nnx.Conv, gradient step in lax.scan: loop_safe / as they are"
    return [_row(what, times["safe"], times["stock"], 1.0)]


def depthwise_rows(*, repeats):
    """Time the depthwise convolution of the ports and XLA's, forward and gradient."""
    rows = []
    for channels, stride, window in ((32, 1, 3), (96, 2, 3), (144, 2, 5)):
        x = jax.random.normal(jax.random.key(0), (8, 112, 112, channels))
        kernel = jax.random.normal(jax.random.key(1), (window, window, 1, channels))
        options = {"strides": (stride, stride), "padding": ((window // 2,) * 2,) * 2}

        def ours(x, kernel, options=options):
            return ports.depthwise_conv(x, kernel, **options)

        def xla(x, kernel, options=options, channels=channels):
            return jax.lax.conv_general_dilated(
                x,
                kernel,
                options["strides"],
                options["padding"],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=channels,
            )

        what = f"depthwise {window}x{window} of 8x112x112x{channels}, stride {stride}"
        forward = {"jaxai": _block(jax.jit(ours), x, kernel), "xla": _block(jax.jit(xla), x, kernel)}
        np.testing.assert_allclose(forward["jaxai"](), forward["xla"](), rtol=1e-3, atol=1e-3)
        times = timing.alternate(forward, repeats=repeats)
        rows.append(_row(f"{what}: forward, jaxai / XLA's convolution", times["jaxai"], times["xla"], 1.0))

        def gradient(run, x=x, kernel=kernel):
            # The gradient of half the square needs the forward pass, as it does in a network.
            return _block(jax.jit(jax.grad(lambda x: 0.5 * (run(x, kernel) ** 2).sum())), x)

        times = timing.alternate(
            {"jaxai": gradient(ours), "xla": gradient(xla)}, repeats=max(2, repeats // 2)
        )
        rows.append(_row(f"{what}: gradient, jaxai / XLA's convolution", times["jaxai"], times["xla"], 1.0))
    return rows


def method_rows(name, model, images, *, repeats, masks=48, chunk=16):
    """Time Grad-CAM of one and of ten targets, and LIME per mask, in forward passes."""
    batch = images.shape[0]
    forward = jax.jit(lambda model, x: model(x))
    one = jnp.zeros(batch, jnp.int32)
    ten = jnp.tile(jnp.arange(10), (batch, 1))
    times = timing.alternate(
        {
            "forward": _block(forward, model, images),
            "one": lambda: jax.block_until_ready(jaxai.grad_cam(model, images, one)),
            "ten": lambda: jax.block_until_ready(jaxai.grad_cam(model, images, ten)),
        },
        repeats=repeats,
    )
    rows = [
        _row(f"{name}: Grad-CAM, 1 target, batch {batch} / forward", times["one"], times["forward"], 1.1),
        _row(f"{name}: Grad-CAM, 10 targets, batch {batch} / forward", times["ten"], times["forward"], 1.5),
    ]
    image = images[:1]
    positions = jnp.arange(image.shape[1]) * 7 // image.shape[1]
    segments = (positions[:, None] * 7 + positions[None])[None]
    copies = jnp.tile(image, (chunk, 1, 1, 1))

    def forwards():
        for _ in range(masks // chunk):
            jax.block_until_ready(forward(model, copies))

    def explain():
        jax.block_until_ready(
            jaxai.lime(
                model,
                image,
                0,
                segments=segments,
                key=jax.random.key(0),
                num_samples=masks,
                batch_size=chunk,
            ).weights
        )

    times = timing.alternate({"forward": forwards, "lime": explain}, repeats=repeats)
    what = f"{name}: LIME, {masks} masks in chunks of {chunk} / forwards of as many images"
    return [*rows, _row(what, times["lime"], times["forward"], 1.1)]


def _row(what, numerator, denominator, limit):
    return {
        "what": what,
        "ratio": timing.ratio(numerator, denominator),
        "range": timing.spread(numerator, denominator),
        "limit": limit,
        "milliseconds": [1e3 * statistics.median(numerator), 1e3 * statistics.median(denominator)],
        "pairs": len(numerator),
    }


def markdown(report):
    """Return the report as a table."""
    lines = [
        "# Foundation",
        "",
        f"{report['date']}; {report['machine']}; load of other programs at the start {report['load']:.1f}.",
        f"{', '.join(f'{name} {version}' for name, version in report['versions'].items())};"
        f" `{report['flags'] or 'default flags'}`. Weights: {report['weights']}.",
        "Medians of the ratios of neighbouring runs; in brackets the smallest and the largest of them.",
        "",
        "| what | ratio | range | wanted | ms | pairs |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        low, high = row["range"]
        a, b = row["milliseconds"]
        lines.append(
            f"| {row['what']} | **{row['ratio']:.2f}** | {low:.2f}-{high:.2f} | at most {row['limit']:.2f}"
            f" | {a:.1f} / {b:.1f} | {row['pairs']} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["efficientnet_lite0", "vgg16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    jaxai.configure_cpu()
    rows = depthwise_rows(repeats=options.repeats) + stock_rows(repeats=options.repeats)
    weights = []
    for name in options.networks:
        model, where = networks.load(name)
        weights.append(f"{name} {where}")
        batch = 1 if name.startswith("vgg") else 4
        images = jax.random.normal(jax.random.key(0), (batch, 224, 224, 3))
        rows += loop_rows(name, model, images, repeats=options.repeats)
        images = jax.random.normal(jax.random.key(1), (4 * batch, 224, 224, 3))
        rows += method_rows(name, model, images, repeats=options.repeats, masks=32 if batch == 1 else 96)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine.processor()}, {jax.default_backend()}",
        "load": load,
        "versions": machine.versions("jax", "jaxlib", "flax", "numpy"),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "weights": ", ".join(weights),
        "rows": rows,
    }
    machine.write(options.out, "foundation", report, markdown(report))


if __name__ == "__main__":
    main()
