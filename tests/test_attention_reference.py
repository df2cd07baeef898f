"""LeGrad, AttnLRP and CP-LRP against their authors' packages, on small transformers with the same weights.

Needs torch, torchvision, legrad-torch and lxt: the `reference` group.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_vit
from common import close
from jax.tree_util import Partial

import jaxai

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(2, 16, 16, 3)), "float32")
CLASSES = np.array([1, 3])


def channels_first(images):
    return torch.tensor(np.moveaxis(np.array(images), -1, 1))


def arrays(module):
    """Return a module's parameters as JAX arrays, after filling them with numbers of a useful size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            draw = torch.randn(tensor.shape, generator=generator)
            fan = tensor[0].numel() if tensor.ndim > 1 else 1
            norm = tensor.ndim == 1 and name.endswith("weight")
            tensor.copy_(1 + 0.2 * draw if norm else draw * (0.3 if tensor.ndim == 1 else fan**-0.5))
    return {name: jnp.asarray(tensor.detach().numpy()) for name, tensor in module.named_parameters()}


# LeGrad


def clip_image_tower(p, images, *, heads, layers, patch):
    """The image tower of open_clip, whose head reads the mean of all tokens, as LeGrad's code has it."""

    def norm(name, x):
        centred = x - x.mean(-1, keepdims=True)
        spread = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
        return centred / spread * p[f"{name}.weight"] + p[f"{name}.bias"]

    def dense(name, x, middle="."):
        return x @ p[f"{name}{middle}weight"].T + p[f"{name}{middle}bias"]

    x = jax.lax.conv_general_dilated(
        images, p["conv1.weight"], (patch, patch), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    x = x.reshape(len(x), -1, x.shape[-1])
    first = jnp.broadcast_to(p["class_embedding"], (len(x), 1, x.shape[-1]))
    x = norm("ln_pre", jnp.concatenate([first, x], 1) + p["positional_embedding"])
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        qkv = dense(f"{block}.attn.in_proj", norm(f"{block}.ln_1", x), "_")
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, heads, -1), 2, 0)
        matrix = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1]))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", matrix, v).reshape(x.shape)
        x = x + dense(f"{block}.attn.out_proj", mixed)
        hidden = jax.nn.gelu(dense(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", x)), approximate=False)
        x = x + dense(f"{block}.mlp.c_proj", hidden)
    return norm("ln_post", x.mean(1)) @ p["proj"]


def test_legrad_is_that_of_its_package():
    legrad = pytest.importorskip("legrad")
    from open_clip import model as open_clip

    side, patch, layers, heads = 16, 4, 3, 3
    vision = open_clip.CLIPVisionCfg(
        layers=layers, width=24, head_width=8, mlp_ratio=2.0, patch_size=patch, image_size=side
    )
    text = open_clip.CLIPTextCfg(context_length=4, vocab_size=16, width=16, heads=2, layers=1)
    clip = open_clip.CLIP(embed_dim=10, vision_cfg=vision, text_cfg=text).eval()
    weights = arrays(clip.visual)
    tower = partial(clip_image_tower, heads=heads, layers=layers, patch=patch)
    wanted = np.random.default_rng(2).normal(size=10).astype("float32")
    wrapped = legrad.LeWrapper(clip, layer_index=-2)
    theirs = []
    for image in IMAGES:
        embedding = torch.tensor(wanted / np.linalg.norm(wanted))[None]
        theirs.append(wrapped.compute_legrad(embedding, image=channels_first(image[None])).detach().numpy())
    ours = jaxai.attention.legrad(
        Partial(tower, weights), IMAGES, jaxai.targets.likeness(wanted), start=layers - 2
    )
    # Theirs are scaled to [0, 1].
    low, high = ours.min((1, 2), keepdims=True), ours.max((1, 2), keepdims=True)
    close((ours - low) / (high - low), np.concatenate(theirs)[:, 0], 1e-4)


# LXT


@pytest.fixture
def vision_transformer():
    """torchvision's transformers, which LXT changes, classes of PyTorch among them; put back afterwards."""
    pytest.importorskip("lxt")
    found = pytest.importorskip("torchvision.models.vision_transformer")
    kinds = (torch.nn.GELU, torch.nn.LayerNorm, torch.nn.MultiheadAttention)
    before = [kind.forward for kind in kinds]
    yield found
    for kind, forward in zip(kinds, before, strict=True):
        kind.forward = forward
        if hasattr(kind, "original_forward"):
            del kind.original_forward


def as_tiny(p):
    """Return parameters of torchvision's transformer as `tiny_vit` has them."""
    blocks = []
    for i in range(tiny_vit.DEPTH):
        at = f"encoder.layers.encoder_layer_{i}"

        def dense(name, middle=".", at=at):
            return {"kernel": p[f"{at}.{name}{middle}weight"].T, "bias": p[f"{at}.{name}{middle}bias"]}

        def norm(name, at=at):
            return {"scale": p[f"{at}.{name}.weight"], "bias": p[f"{at}.{name}.bias"]}

        block = {"norm1": norm("ln_1"), "norm2": norm("ln_2"), "scales": jnp.ones((2, tiny_vit.WIDTH))}
        block |= {"qkv": dense("self_attention.in_proj", "_"), "out": dense("self_attention.out_proj")}
        blocks.append(block | {"up": dense("mlp.0"), "down": dense("mlp.3")})
    positions = p["encoder.pos_embedding"]
    return {
        "patches": p["conv_proj.weight"].transpose(2, 3, 1, 0),
        "class_token": p["class_token"] + positions[:, :1],
        "registers": jnp.zeros((1, 0, tiny_vit.WIDTH)),
        "positions": positions[:, 1:] + p["conv_proj.bias"],
        "blocks": blocks,
        "norm": {"scale": p["encoder.ln.weight"], "bias": p["encoder.ln.bias"]},
        "head": {"kernel": p["heads.head.weight"].T, "bias": p["heads.head.bias"]},
    }


def test_cp_lrp_is_that_of_its_package(vision_transformer):
    efficient = pytest.importorskip("lxt.efficient", exc_type=ImportError)
    net = vision_transformer.VisionTransformer(
        image_size=16,
        patch_size=tiny_vit.PATCH,
        num_layers=tiny_vit.DEPTH,
        num_heads=tiny_vit.HEADS,
        hidden_dim=tiny_vit.WIDTH,
        mlp_dim=2 * tiny_vit.WIDTH,
        num_classes=tiny_vit.CLASSES,
    ).eval()
    model = Partial(
        partial(tiny_vit.forward, activation=partial(jax.nn.gelu, approximate=False)), as_tiny(arrays(net))
    )
    images = channels_first(IMAGES).requires_grad_()
    close(model(IMAGES), net(images).detach().numpy())
    efficient.monkey_patch(vision_transformer)
    scores = net(images)
    scores[torch.arange(2), torch.tensor(CLASSES)].sum().backward()
    theirs = np.moveaxis((images * images.grad).detach().numpy(), 1, -1)
    ours = jaxai.lrp(model, IMAGES, CLASSES, composite="cp_lrp", relevance="score")
    close(ours, theirs, 2e-3)


def test_attn_lrp_is_that_of_its_package():
    """The package's rules for each operation, in a network that is written with them."""
    lxt = pytest.importorskip("lxt.explicit.functional")
    from lxt.explicit import rules

    p = tiny_vit.parameters(2, size=(16, 16))
    model = Partial(partial(tiny_vit.forward, activation=partial(jax.nn.gelu, approximate=False)), p)
    t = jax.tree.map(lambda x: torch.tensor(np.array(x, np.float64)), p)
    images = torch.tensor(np.array(IMAGES, np.float64)).requires_grad_()

    def dense(q, x):
        return lxt.linear_epsilon(x, q["kernel"].T, q["bias"], 1e-12)

    def norm(q, x):
        return lxt.layer_norm(x, q["scale"], q["bias"], 1e-6)

    size, batch = tiny_vit.PATCH, len(images)
    patches = images.reshape(batch, 4, size, 4, size, 3).permute(0, 1, 3, 2, 4, 5).reshape(batch, 16, -1)
    patches = lxt.linear_epsilon(patches, t["patches"].reshape(-1, tiny_vit.WIDTH).T, None, 1e-12)
    patches = lxt.add2(patches, t["positions"].expand_as(patches), False, 1e-12)
    x = torch.cat([t["class_token"].expand(batch, 1, -1), patches], 1)
    for block in t["blocks"]:
        qkv = dense(block["qkv"], norm(block["norm1"], x))
        q, k, v = qkv.reshape(batch, x.shape[1], 3, tiny_vit.HEADS, -1).permute(2, 0, 3, 1, 4)
        # Relevance is not scaled by constants.
        scaled = lxt.mul2(k, 1 / math.sqrt(q.shape[-1]))
        logits = lxt.matmul(q, scaled.transpose(-1, -2), False, 1e-12)
        mixed = lxt.matmul(lxt.softmax(logits, -1), v, False, 1e-12)
        mixed = mixed.permute(0, 2, 1, 3).reshape(x.shape)
        out = {name: each * block["scales"][0] for name, each in block["out"].items()}
        x = lxt.add2(x, dense(out, mixed), False, 1e-12)
        hidden = rules.identity(torch.nn.functional.gelu, dense(block["up"], norm(block["norm2"], x)))
        down = {name: each * block["scales"][1] for name, each in block["down"].items()}
        x = lxt.add2(x, dense(down, hidden), False, 1e-12)
    scores = dense(t["head"], norm(t["norm"], x)[:, 0])
    close(model(IMAGES), scores.detach().numpy())
    chosen = scores[torch.arange(batch), torch.tensor(CLASSES)]
    # In the package what flows back is relevance; it starts from the score.
    chosen.backward(chosen.detach())
    ours = jaxai.lrp(model, IMAGES, CLASSES, composite="attn_lrp", relevance="score")
    close(ours, images.grad.numpy(), 2e-3)
