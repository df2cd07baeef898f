"""Found layers: tokens on their grid, chosen outputs, the listing, rules by layer, errors."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, slow_but
from flax import nnx
from found_networks import X, cam, nnx_net
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

import jaxai
from jaxai.layers import Tokens, find, tree

RNG = np.random.default_rng(0)


# Tokens


class Attention(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 6, decode=False, rngs=rngs)
        self.mlp = nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x):
        x = x + self.attend(self.norm(x))
        return x + jax.nn.gelu(self.mlp(x))


class ViT(nnx.Module):
    """With a class token and registers, and a head that reads the class token alone."""

    def __init__(self, rngs, others=3, read="class"):
        self.others, self.read = others, read
        self.patch = nnx.Conv(3, 6, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.before = nnx.Param(jax.random.normal(rngs(), (1, others, 6)))
        self.place = nnx.Param(jax.random.normal(rngs(), (1, others + 6, 6)))
        self.blocks = nnx.List([Attention(rngs), Attention(rngs)])
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.fc = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, x, delta=None):
        x = self.patch(x).reshape(len(x), -1, 6)
        x = jnp.concatenate([jnp.tile(self.before[...], (len(x), 1, 1)), x], axis=1) + self.place[...]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == 0 and delta is not None:
                x = x + delta
        x = self.norm(x)
        return self.fc(x[:, 0] if self.read == "class" else x[:, self.others :].mean(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", slow_but("class after 3", ["mean after 0", "class after 1", "mean after 1", "class after 3"])
)
def test_tokens_lie_on_a_grid_after_others(kind):
    read, _, others = kind.split()
    others = int(others)
    net = ViT(nnx.Rngs(0), others, read)
    model = find(net, X)
    assert model.layout_of("blocks.0", X) == (True, Tokens(grid=(2, 3), prefix=others))
    assert model.layout_of("patch", X) == (True, "NHWC")
    # The last layer whose patches the head reads.
    last = "blocks.0" if net.read == "class" else "norm"
    assert jaxai.layers.resolve(model, None, X) == last
    acts = model(X, stop="blocks.0")
    grads = jax.jit(jax.grad(lambda d: net(X, d)[:, 1].sum()))(jnp.zeros_like(acts))[:, others:]
    expected = (grads.mean(1, keepdims=True) * acts[:, others:]).sum(-1).reshape(2, 2, 3)
    # One image at a time is read as well.
    found = jaxai.grad_cam(model, X, 1, layer="blocks.0", relu=False, upsample=False, batch_size=1)
    assert np.abs(expected).max() > 0
    close(found, expected)


@pytest.mark.slow
def test_fused_cams_leave_out_tokens_that_nothing_reads():
    model = find(ViT(nnx.Rngs(0)), X)
    assert jaxai.fused_cam(model, X, 1).max() > 0
    with pytest.raises(ValueError, match="do not depend on the positions of `layer` blocks.1"):
        jaxai.fused_cam(model, X, 1, names=("blocks.1",))


class Second(nnx.Module):
    """Tokens come before the batch, as in PyTorch's transformers, and are merged with it in each block."""

    def __init__(self, rngs):
        self.patch = nnx.Conv(3, 6, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.token = nnx.Param(jax.random.normal(rngs(), (1, 2, 6)))
        self.one, self.two, self.fc = (nnx.Linear(6, c, rngs=rngs) for c in (6, 6, 5))

    def __call__(self, x, *, merged=True):
        x = self.patch(x).reshape(len(x), -1, 6)
        x = jnp.concatenate([jnp.tile(self.token[...], (len(x), 1, 1)), x], axis=1)
        x = x.swapaxes(0, 1) if merged else x
        for dense in (self.one, self.two):
            rows = dense(x.reshape(-1, 6) if merged else x)
            x = checkpoint_name(x + jax.nn.tanh(rows.reshape(x.shape)), "block")
        matrix = jax.nn.softmax((x @ x.swapaxes(1, 2)) if not merged else jnp.einsum("qnc,knc->nqk", x, x))
        x = matrix @ (x.swapaxes(0, 1) if merged else x)
        return self.fc(x[:, 0])


@pytest.mark.parametrize("method", ["grad_cam", pytest.param("score_cam", marks=pytest.mark.slow)])
def test_tokens_may_come_before_the_batch(method):
    net = Second(nnx.Rngs(0))
    merged, plain = find(net, X), find(Partial(lambda net, x: net(x, merged=False), net), X)
    assert merged.layout_of("block", X) == (True, Tokens(grid=(2, 3), prefix=2, axis=0))
    assert merged(X, stop="block#2").shape == (8, 2, 6) and plain(X, stop="block#2").shape == (2, 8, 6)
    for layer in ("block", None):
        found, wanted = (
            getattr(jaxai, method)(model, X, 1, layer=layer, upsample=False) for model in (merged, plain)
        )
        assert found.shape == (2, 2, 3) and np.abs(wanted).max() > 0
        close(found, wanted)
    assert jaxai.layers.resolve(merged, None, X) == "block#2"
    assert "tokens 2x3 after 2, batch second  <- default" in str(tree(merged, X))
    given = find(merged, X, data_format={"block": Tokens(grid=(1, 6), prefix=2, axis=0)})
    with pytest.raises(ValueError, match=r"by the program it is Tokens\(grid=\(2, 3\), prefix=2, axis=0\)"):
        given.layout_of("block", X)
    with pytest.raises(ValueError, match="along axis 0 or 1; got axis=2"):
        Tokens(grid=(1, 6), axis=2)


def test_attention_matrices_are_refused():
    net = ViT(nnx.Rngs(0))
    model = find(net, X)
    with pytest.raises(ValueError, match=r"'blocks.0.attend.query' has shape \(2, 9, 2, 3\), whose axes"):
        jaxai.grad_cam(model, X, 1, layer="blocks.0.attend.query")
    with pytest.raises(ValueError, match=r"'fc' has shape \(2, 5\)"):
        jaxai.grad_cam(model, X, 1, layer="fc")


def unreadable(x):
    x = jnp.sort(x.reshape(2, -1, 3), axis=-1)[:, jnp.asarray(RNG.permutation(96))]
    with jax.named_scope("mixed"):
        return jnp.tanh(x)


@pytest.mark.slow
def test_layouts_that_cannot_be_read_are_asked_for():
    def net(x):
        return unreadable(x).mean(1)

    with pytest.raises(
        ValueError, match=r"layout of layer 'mixed' of shape \(2, 96, 3\) cannot be read.*pass"
    ):
        jaxai.grad_cam(find(net, X), X, 1)
    given = find(net, X, data_format=Tokens(grid=(8, 12)))
    assert jaxai.grad_cam(given, X, 1, upsample=False).shape == (2, 8, 12)
    by_name = find(net, X, data_format={"mixed": Tokens(grid=(4, 6), prefix=72)})
    assert jaxai.grad_cam(by_name, X, 1, layer="mixed", upsample=False).shape == (2, 4, 6)
    contradicted = find(nnx_net(), X, data_format="NCHW")
    with pytest.raises(ValueError, match="says NCHW of layer 'stem' .* by the program it is NHWC"):
        jaxai.grad_cam(contradicted, X, 1, layer="stem")
    with pytest.raises(ValueError, match="`data_format` must be 'NHWC', 'NCHW', jaxai.layers.Tokens"):
        find(net, X, data_format="channels_last")
    with pytest.raises(ValueError, match="must have a grid"):
        Tokens(grid=(0, 3))
    with pytest.raises(ValueError, match="unknown layer 'no'"):
        find(net, X, data_format={"no": "NCHW"})


# Outputs, listing, errors


@pytest.mark.slow
def test_outputs_are_chosen():
    net = nnx_net()
    expected = cam(find(net, X), "stem")

    def outputs(net, x):
        scores = net(x)
        return {"logits": scores, "other": (x, scores)}

    for output in ("logits", lambda out: out["other"][1]):
        close(cam(find(Partial(outputs, net), X, output=output), "stem"), expected)
    close(cam(find(Partial(lambda net, x: (x, net(x)), net), X, output=1), "stem"), expected)

    class Result:
        def __init__(self, logits):
            self.logits = logits

    close(cam(find(Partial(lambda net, x: Result(net(x)), net), X, output="logits"), "stem"), expected)
    with pytest.raises(
        ValueError, match="must name an output of the model; got 'x', and it returns a dict with"
    ):
        find(Partial(outputs, net), X, output="x")
    with pytest.raises(TypeError, match="`output` must be"):
        find(net, X, output=1.5)
    with pytest.raises(ValueError, match="`image_format` must be one of NHWC, NCHW, HWC, CHW"):
        find(net, X, image_format="NWHC")


@pytest.mark.slow
def test_the_tree():
    found = tree(nnx_net(), X)
    assert found.default == "drop" and found.shapes["layer1.0"].shape == (2, 4, 6, 4)
    assert "layer1.0.conv1  float32[2,4,6,4]  NHWC" in str(found)
    assert str(
        tree(jaxai.chain({"a": lambda x: x + 1, "logits": lambda x: x.mean((1, 2))}), X)
    ).splitlines() == [
        "a       float32[2,8,12,3]  NHWC  <- default",
        "logits  float32[2,3]",
    ]
    assert "tokens 2x3 after 3" in repr(tree(ViT(nnx.Rngs(0)), X))


class Deep(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(200)])

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x.mean((1, 2))


def test_unknown_layers_are_told_the_nearest():
    model = find(Deep(nnx.Rngs(0)), X)
    with pytest.raises(
        ValueError, match=r"unknown layer 'layer.17'; the nearest of 201 layers are layers.17,"
    ):
        jaxai.grad_cam(model, X, 1, layer="layer.17")


@pytest.mark.unchecked
def test_two_hundred_layers():
    """Listing is quick once the model is traced; a second split costs little more than flattening it."""
    net = Deep(nnx.Rngs(0))
    model = find(net, X)
    start = time.perf_counter()
    assert len(tree(model, X).shapes) == 201
    assert time.perf_counter() - start < 1
    program, flat = model.program(X)

    def seconds(call):
        times = []
        for _ in range(20):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(lambda: model.program(X)) < seconds(lambda: jax.tree.flatten((net, X))) + 1e-3 + seconds(
        lambda: jax.tree.flatten(net)
    )


@pytest.mark.slow
def test_rules_for_layers_of_found_models():
    net = nnx_net()
    model = find(net, X)
    base = jaxai.rules.Composite()
    chosen = jaxai.lrp(model, X, 1, composite=jaxai.rules.Composite(layers={"layer1.0": jaxai.rules.Flat()}))
    by_part = {f"layer1.0.conv{i}": jaxai.rules.Flat() for i in (1, 2)}
    close(chosen, jaxai.lrp(model, X, 1, composite=jaxai.rules.Composite(layers=by_part)))
    assert np.abs(chosen - jaxai.lrp(model, X, 1, composite=base)).max() > 1e-3 * np.abs(chosen).max()
    close(jaxai.lrp(model, X, 1, composite=base), jaxai.lrp(net, X, 1, composite=base))
    with pytest.raises(ValueError, match="unknown layer 'layer2' in the composite; the layers are stem,"):
        jaxai.lrp(model, X, 1, composite=jaxai.rules.Composite(layers={"layer2": jaxai.rules.Flat()}))


@pytest.mark.slow
def test_signals_and_volumes_as_images():
    kernel = jnp.asarray(RNG.normal(size=(3, 3, 5)), jnp.float32)
    x = X[:, 0]

    def signals(x):
        y = jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        return jax.nn.relu(y).mean(1)

    def images(image):
        return signals(image[:, 0])

    close(jaxai.saliency(images, x[:, None], 1)[:, 0], jax.grad(lambda x: signals(x)[:, 1].sum())(x))
    found = jaxai.lrp(images, x[:, None], 1, composite=jaxai.rules.Composite(), relevance="score")
    close(found.sum((1, 2, 3)), signals(x)[:, 1], 1e-4)
    drops = jaxai.occlusion(images, x[:, None], 1, window=(1, 4), strides=(1, 4))[:, 0]
    hidden = jnp.stack([x.at[:, i : i + 4].set(0) for i in (0, 4, 8)])
    expected = jnp.stack([(signals(x) - signals(h))[:, 1] for h in hidden], axis=1)
    close(drops, jnp.repeat(expected, 4, axis=1))


# The default layer before dense scores


class Dense(nnx.Module):
    """Two stages, each with an output of its own; what is returned of them is read from `join`."""

    def __init__(self, rngs, join):
        self.first, self.second = (nnx.Conv(c, 6, (3, 3), rngs=rngs) for c in (3, 6))
        self.side1, self.side2 = (nnx.Conv(6, 1, (1, 1), rngs=rngs) for _ in range(2))
        self.head1, self.head2 = (nnx.Conv(6, c, (1, 1), rngs=rngs) for c in (5, 4))
        self.fuse = nnx.Conv(2, 1, (1, 1), rngs=rngs)
        self.join = join

    def __call__(self, x):
        return self.join(self, x)

    def sides(self, x):
        one = self.first(x)
        two = self.second(jax.nn.relu(one)[:, ::2, ::2])
        return one, jax.nn.relu(two)

    def enlarged(self, x):
        return jax.image.resize(x, (len(x), *X.shape[1:3], x.shape[-1]), "linear")


def edges(net, x):
    one, two = net.sides(x)
    return net.fuse(jnp.concatenate([net.side1(one), net.enlarged(net.side2(two))], -1))[..., 0]


def classes(net, x):
    return jax.nn.softmax(net.enlarged(net.head1(net.sides(x)[1])))


def boxes(net, x):
    """A class and a box for each place, of one shared stage, as detectors return them."""
    shared = net.sides(x)[1]
    return {"class": jax.nn.sigmoid(net.head1(shared)), "box": net.head2(shared)}


@pytest.mark.sampled
@pytest.mark.parametrize("join", [edges, classes, boxes], ids=lambda join: join.__name__)
def test_the_default_layer_of_dense_scores_comes_before_all_of_them(join):
    net = find(Dense(nnx.Rngs(0), join), X)
    assert jaxai.layers.resolve(net, None, X) == "second"

    def target(outputs):
        scores = outputs["class"] if join is boxes else outputs
        return scores.reshape(len(scores), -1)[:, ::5].mean(1)

    chosen = np.asarray(jaxai.grad_cam(net, X, target))
    np.testing.assert_array_equal(chosen, jaxai.grad_cam(net, X, target, layer="second"))
    assert np.abs(chosen).max() > 0


def test_the_default_stage_of_a_chain_comes_before_resized_scores():
    kernels = [jnp.asarray(RNG.normal(size=shape), "float32") for shape in ((3, 8), (8, 4))]
    dense = lambda kernel, x: x @ kernel  # noqa: E731
    chain = jaxai.chain(
        {
            "features": Partial(dense, kernels[0]),
            "relu": jax.nn.relu,
            "scores": Partial(dense, kernels[1]),
            "up": lambda x: jnp.repeat(x, 2, axis=1),
            "softmax": jax.nn.softmax,
        }
    )
    assert jaxai.layers.resolve(chain, None, X) == "relu"
