"""What the compiled programs of the main methods are made of: work, memory, convolutions, no recompilation.

Facts of the program, not times: they hold on a busy machine and fail when a method does more than it must.
"""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import jaxai
from jaxai.models.layers import Conv, Logits, max_pool, relu6

SIZE, CLASSES, CONVOLUTIONS = 32, 12, 4
CANONICAL = "b01f_01io->b01f"
pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the CPU's programs")

compilations = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: compilations.append(event) if "backend_compile" in event else None
)


class Block(Conv):
    """A convolution, its ReLU and a pool."""

    def __call__(self, x):
        return max_pool(jax.nn.relu(super().__call__(x)))


class Activated(Conv):
    """A convolution and its ReLU."""

    def __call__(self, x):
        return jax.nn.relu(super().__call__(x))


class Mean(nnx.Module):
    """The mean over positions."""

    def __call__(self, x):
        return x.mean((1, 2))


@pytest.fixture(scope="module")
def net():
    rngs = nnx.Rngs(0)
    return jaxai.chain(
        {
            "conv1": Block(3, 16, rngs=rngs),
            "conv2": Activated(16, 24, stride=2, padding="same", rngs=rngs),
            "conv3": Activated(24, 24, rngs=rngs),
            "conv4": Activated(24, 32, window=1, rngs=rngs),
            "pool": Mean(),
            "logits": Logits(32, CLASSES, rngs=rngs),
        }
    )


def photos(batch, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, SIZE, SIZE, 3)), jnp.float32)


def segments(batch):
    rows = jnp.arange(SIZE) * 4 // SIZE
    return jnp.broadcast_to(rows[:, None] * 4 + rows, (batch, SIZE, SIZE))


def classes(batch, k=None):
    return jnp.zeros(batch, jnp.int32) if k is None else jnp.tile(jnp.arange(k), (batch, 1))


def first_score(model, x):
    return model(x)[:, 0]


METHODS = {
    "saliency": lambda m, x: jaxai.saliency(m, x, classes(len(x)), batch_size=2),
    "integrated_gradients": lambda m, x: jaxai.integrated_gradients(
        m, x, classes(len(x)), steps=16, batch_size=4
    ),
    "smooth_grad": lambda m, x: jaxai.smooth_grad(
        m, x, classes(len(x)), key=jax.random.key(0), num_samples=16, batch_size=4
    ),
    "lime": lambda m, x: (
        jaxai.lime(
            m,
            x,
            classes(len(x)),
            segments=segments(len(x)),
            num_segments=16,
            key=jax.random.key(0),
            num_samples=32,
            batch_size=8,
        ).weights
    ),
    "rise": lambda m, x: jaxai.rise(
        m, x, classes(len(x)), key=jax.random.key(0), num_masks=32, grid=4, batch_size=8
    ),
    "gradient_ascent": lambda m, x: jaxai.gradient_ascent(
        jax.tree_util.Partial(first_score, m), x, step_size=0.1, steps=5
    ),
}
LOOPS_WITH_GRADIENTS = ("saliency", "integrated_gradients", "smooth_grad", "gradient_ascent")


def compiled(run, *arguments):
    return jax.jit(run).lower(*arguments).compile()


def flops(program):
    analysis = program.cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


def temporary(program):
    return program.memory_analysis().temp_size_in_bytes


def convolutions(text):
    return len(re.findall(r" convolution\(|onednn\$convolution", text))


def skip_with_onednn(text):
    """Skip the rest where oneDNN runs the convolutions: XLA knows neither their work nor their layout."""
    if "onednn$convolution" in text:
        pytest.skip("oneDNN runs the convolutions, which XLA then does not analyse")


def loop_bodies(text):
    """Return the text of every computation that a while loop runs, calls included."""
    parts = re.split(r"\n(?=(?:ENTRY )?%?[\w.\-]+ \(.*\{\n)", text)
    named = {match[1]: part for part in parts if (match := re.match(r"\s*(?:ENTRY )?%?([\w.\-]+) \(", part))}
    queue, found = re.findall(r"body=%?([\w.\-]+)", text), {}
    while queue:
        name = queue.pop()
        if name in named and name not in found:
            found[name] = named[name]
            queue += re.findall(r"(?:calls|to_apply|body)=%?([\w.\-]+)", named[name])
    return "\n".join(found.values())


@pytest.mark.slow
def test_one_forward_pass_serves_grad_cam(net):
    x = photos(4)
    forward = compiled(lambda m, x: m(x), net, x)
    one = compiled(lambda m, x: jaxai.grad_cam(m, x, classes(4), layer="conv4"), net, x)
    ten = compiled(lambda m, x: jaxai.grad_cam(m, x, classes(4, 10), layer="conv4"), net, x)
    assert convolutions(forward.as_text()) == CONVOLUTIONS
    assert convolutions(one.as_text()) == convolutions(ten.as_text()) == CONVOLUTIONS
    skip_with_onednn(forward.as_text())
    assert flops(one) <= 1.1 * flops(forward)
    assert flops(ten) <= 1.5 * flops(forward)


@pytest.mark.slow
def test_saliency_has_no_weight_gradients(net):
    x = photos(4)
    forward = compiled(lambda m, x: m(x), net, x)
    gradient = compiled(lambda m, x: jaxai.saliency(m, x, classes(4)), net, x)
    assert convolutions(gradient.as_text()) == 2 * CONVOLUTIONS
    with_weights = compiled(lambda m, x: jax.grad(lambda m, x: m(x)[:, 0].sum(), (0, 1))(m, x), net, x)
    assert convolutions(with_weights.as_text()) == 3 * CONVOLUTIONS
    skip_with_onednn(forward.as_text())
    # The strided layer's gradient and the first layer's multiply some zeros.
    assert flops(gradient) <= 2.7 * flops(forward)


@pytest.mark.parametrize("steps", [8, 64])
def test_integrated_gradients_holds_one_gradient_whatever_the_steps(net, steps):
    program = compiled(
        lambda m, x: jaxai.integrated_gradients(m, x, classes(1), steps=steps, batch_size=4), net, photos(1)
    )
    assert convolutions(program.as_text()) == 2 * CONVOLUTIONS
    assert convolutions(loop_bodies(program.as_text())) == 2 * CONVOLUTIONS


@pytest.mark.parametrize("samples", [5, 50])
def test_smoothing_holds_one_gradient_whatever_the_samples(net, samples):
    def smoothed(m, x):
        return jaxai.gradients.smooth_moments(
            jaxai.saliency, m, x, classes(1), key=jax.random.key(0), num_samples=samples, batch_size=4
        )

    text = compiled(smoothed, net, photos(1)).as_text()
    assert convolutions(text) == convolutions(loop_bodies(text)) == 2 * CONVOLUTIONS


@pytest.mark.parametrize("name", LOOPS_WITH_GRADIENTS)
def test_convolutions_in_loops_are_canonical(net, name):
    body = loop_bodies(compiled(METHODS[name], net, photos(4)).as_text())
    labels = re.findall(r" convolution\(.*?dim_labels=(\S+?)[,\s]", body)
    assert convolutions(body) >= 2 * CONVOLUTIONS
    assert set(labels) <= {CANONICAL}


def test_the_loop_reader_sees_other_layouts():
    """JAX's own gradient of a convolution is of another layout, so the test above can fail."""
    kernel = jnp.ones((3, 3, 3, 3))

    def energy(x):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (y**2).sum()

    def ascend(x):
        return jax.lax.scan(lambda x, _: (x + jax.grad(energy)(x), None), x, length=3)[0]

    body = loop_bodies(compiled(ascend, photos(1)).as_text())
    skip_with_onednn(body)
    assert set(re.findall(r" convolution\(.*?dim_labels=(\S+?)[,\s]", body)) - {CANONICAL}


@pytest.mark.skipif(jax.lib.__version__.startswith("0.10."), reason="this jaxlib drops the barrier first")
def test_relu6_keeps_a_byte_a_value_for_the_gradient():
    """Where the derivative of JAX's own clipping keeps the values themselves."""
    kernels = jnp.ones((6, 32, 32)) / 32

    def energy(clip, x):
        for kernel in kernels:
            x = clip(x @ kernel)
        return x.sum()

    def needed(clip):
        return temporary(compiled(jax.grad(lambda x: energy(clip, x)), photos(4).reshape(-1, 32)[:, :32]))

    values = photos(4).size * 4
    assert needed(relu6) <= needed(lambda x: jnp.minimum(jnp.maximum(x, 0), 6)) - 3 * values


def masks_program(net, name, samples):
    runs = {
        "lime": lambda m, x: (
            jaxai.lime(
                m,
                x,
                classes(1),
                segments=segments(1),
                num_segments=16,
                key=jax.random.key(0),
                num_samples=samples,
                batch_size=8,
            ).weights
        ),
        "rise": lambda m, x: jaxai.rise(
            m, x, classes(1), key=jax.random.key(0), num_masks=samples, grid=4, batch_size=8
        ),
        "integrated_gradients": lambda m, x: jaxai.integrated_gradients(
            m, x, classes(1), steps=samples, batch_size=8
        ),
    }
    return compiled(runs[name], net, photos(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lime", "rise", "integrated_gradients"])
def test_memory_is_flat_in_the_number_of_samples(net, name):
    few, many = (temporary(masks_program(net, name, samples)) for samples in (32, 256))
    # What may grow is the masks' bits and the scores, far below one image in float32 for each sample.
    assert many - few <= (256 - 32) * SIZE * SIZE * 4 / 4
    assert many <= 1.5 * few


def test_batch_size_bounds_memory(net):
    x = photos(32)
    whole = compiled(lambda m, x: jaxai.saliency(m, x, classes(32)), net, x)
    chunked = compiled(lambda m, x: jaxai.saliency(m, x, classes(32), batch_size=4), net, x)
    assert temporary(chunked) <= temporary(whole) / 3


@pytest.mark.slow
def test_batch_size_bounds_the_views_of_an_ascent(net):
    def ascent(batch_size):
        return compiled(
            lambda m: (
                jaxai.maco(
                    m, "conv4:1", key=jax.random.key(0), size=SIZE, steps=2, crops=32, batch_size=batch_size
                ).images
            ),
            net,
        )

    assert temporary(ascent(4)) <= temporary(ascent(32)) / 3


@pytest.mark.sampled
@pytest.mark.parametrize("name", METHODS)
def test_a_second_call_compiles_nothing(net, name):
    METHODS[name](net, photos(2, seed=1))
    before = len(compilations)
    result = METHODS[name](net, photos(2, seed=2))
    jax.block_until_ready(result)
    assert len(compilations) == before
    # The counter counts: another shape is another program.
    METHODS[name](net, photos(3))
    assert len(compilations) > before


def instructions(program):
    """Return how often each operation of each shape stands in a program, whatever its name."""
    return Counter(re.findall(r"= (\(?[a-z]\w*\[[^=]*?) ([a-z][\w\-]*)\(", program.as_text()))


def shipped():
    return jaxai.models.ResNet(18, classes=CLASSES, width=8, rngs=nnx.Rngs(0))


def by_marks(net):
    """Return the network as a user marks it."""

    def scores(net, x):
        for name in net.layer_names[:-1]:
            x = checkpoint_name(getattr(net, name)(x), name)
        return net.logits(x)

    return jax.tree_util.Partial(scores, net)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["grad_cam", "saliency", "lrp"])
def test_layers_that_are_found_compile_to_the_program_of_those_that_are_marked(run):
    net, x = shipped(), photos(4)
    models = {
        "shipped": net,
        "marked": jaxai.layers.named(by_marks(net), x),
        "found": jaxai.layers.find(jax.tree_util.Partial(lambda net, x: net(x), net), x),
    }
    options = {"layer": "layer3.1"} if run == "grad_cam" else {}
    programs = {
        name: compiled(lambda m, x: getattr(jaxai, run)(m, x, classes(4), **options), model, x)
        for name, model in models.items()
    }
    expected = programs.pop("shipped")
    assert len(instructions(expected)) > 20
    for name, program in programs.items():
        assert instructions(program) == instructions(expected), name
        assert flops(program) == flops(expected), name
    shorter = compiled(lambda m, x: m(x), net, x)
    assert instructions(shorter) != instructions(expected)
