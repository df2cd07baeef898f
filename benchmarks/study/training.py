"""Small networks in plain JAX, trained with optax on images that are drawn anew in every step."""

import math
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial

import jaxai
from jaxai import _files
from jaxai.models.layers import conv, same_padding

WIDTHS = ((8, 1), (16, 2), (16, 1), (32, 2), (32, 1))
PATCH, WIDTH, HEADS, DEPTH = 4, 32, 4, 3
BATCH, STEPS, BLOCK, HELD_OUT = 64, 1500, 50, 512
# A training that answers this share of new images rightly has learnt; the others are reported and left out.
LEARNT = 0.8
# Nothing is gained by going on after this.
ENOUGH = 0.98


class Trained(NamedTuple):
    """A network after training.

    Attributes:
        model: A callable pytree; CNNs are layered models.
        accuracy: On images that were not drawn in training.
        steps: Of the optimizer.
        seconds: What it took.
    """

    model: Any
    accuracy: float
    steps: int
    seconds: float


def _conv(parameters, x, *, stride):
    padding = tuple(same_padding(size, 3, stride) for size in x.shape[1:3])
    # The gradient of `lax`'s own convolution is slow inside of a method's loops (XLA on CPUs).
    shown = conv(x, parameters["kernel"], strides=(stride, stride), padding=padding)
    return jax.nn.relu(shown + parameters["bias"])


_STRIDES = {stride: partial(_conv, stride=stride) for _, stride in WIDTHS}


def _head(parameters, x):
    return x.mean((1, 2)) @ parameters["kernel"] + parameters["bias"]


def _dense(key, rows, columns, scale=1.0):
    kernel = scale * jax.random.normal(key, (rows, columns)) / math.sqrt(rows)
    return {"kernel": kernel, "bias": jnp.zeros(columns)}


def _convolutions(key, channels):
    """Return the stages that both CNNs begin with, and a key for what follows."""
    stages, before = {}, channels
    keys = jax.random.split(key, len(WIDTHS) + 1)
    for number, (width, stride) in enumerate(WIDTHS):
        kernel = jax.random.normal(keys[number], (3, 3, before, width)) * math.sqrt(2 / (9 * before))
        parameters = {"kernel": kernel, "bias": jnp.zeros(width)}
        stages[f"conv{number + 1}"] = Partial(_STRIDES[stride], parameters)
        before = width
    return stages, keys[-1]


def cnn(key: jax.Array, images: jax.Array, classes: int) -> Any:
    """Return a CNN of five convolutions, mean and a dense layer, as a layered model with random weights."""
    stages, key = _convolutions(key, images.shape[-1])
    stages["logits"] = Partial(_head, _dense(key, WIDTHS[-1][0], classes))
    return jaxai.chain(stages)


def _linear(parameters, x):
    return x @ parameters["kernel"] + parameters["bias"]


def _hidden(parameters, x):
    return jax.nn.relu(_linear(parameters, x.reshape(len(x), -1)))


def dense_cnn(key: jax.Array, images: jax.Array, classes: int) -> Any:
    """Return the same convolutions before a hidden layer that sees every position, and a dense layer."""
    stages, key = _convolutions(key, images.shape[-1])
    hidden_key, head_key = jax.random.split(key)
    positions = math.prod(size // math.prod(stride for _, stride in WIDTHS) for size in images.shape[1:3])
    stages["hidden"] = Partial(_hidden, _dense(hidden_key, positions * WIDTHS[-1][0], 32, 2**0.5))
    stages["logits"] = Partial(_linear, _dense(head_key, 32, classes))
    return jaxai.chain(stages)


def _norm(parameters, x):
    centred = x - x.mean(-1, keepdims=True)
    spread = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
    return centred / spread * parameters["scale"] + parameters["bias"]


def _attention(parameters, x):
    batch, count = x.shape[:2]
    mixed = _linear(parameters["qkv"], x).reshape(batch, count, 3, HEADS, -1)
    q, k, v = jnp.moveaxis(mixed, 2, 0)
    matrix = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(WIDTH // HEADS), axis=-1)
    return _linear(parameters["out"], jnp.einsum("bhqk,bkhd->bqhd", matrix, v).reshape(x.shape))


def _vit(parameters, images):
    x = lax.conv_general_dilated(
        images, parameters["patches"], (PATCH, PATCH), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = x.reshape(len(images), -1, WIDTH) + parameters["positions"]
    token = jnp.broadcast_to(parameters["class_token"], (len(images), 1, WIDTH))
    x = jnp.concatenate([token, x], axis=1)
    for block in parameters["blocks"]:
        x = x + _attention(block, _norm(block["norm1"], x))
        x = x + _linear(block["down"], jax.nn.gelu(_linear(block["up"], _norm(block["norm2"], x))))
    return _linear(parameters["head"], _norm(parameters["norm"], x)[:, 0])


def vit(key: jax.Array, images: jax.Array, classes: int) -> Any:
    """Return a vision transformer of three blocks with a class token, patches of 4 x 4 pixels."""
    keys = iter(jax.random.split(key, 4 * DEPTH + 4))
    tokens = (images.shape[1] // PATCH) * (images.shape[2] // PATCH)

    def norm():
        return {"scale": jnp.ones(WIDTH), "bias": jnp.zeros(WIDTH)}

    patches = jax.random.normal(next(keys), (PATCH, PATCH, images.shape[-1], WIDTH))
    found = {
        "patches": patches / math.sqrt(PATCH**2 * images.shape[-1]),
        "class_token": 0.02 * jax.random.normal(next(keys), (1, 1, WIDTH)),
        "positions": 0.3 * jax.random.normal(next(keys), (1, tokens, WIDTH)),
        "blocks": [
            {
                "norm1": norm(),
                "qkv": _dense(next(keys), WIDTH, 3 * WIDTH),
                "out": _dense(next(keys), WIDTH, WIDTH, 0.3),
                "norm2": norm(),
                "up": _dense(next(keys), WIDTH, 2 * WIDTH),
                "down": _dense(next(keys), 2 * WIDTH, WIDTH, 0.3),
            }
            for _ in range(DEPTH)
        ],
        "norm": norm(),
        "head": _dense(next(keys), WIDTH, classes),
    }
    return Partial(_vit, found)


MAKERS: dict[str, Callable[..., Any]] = {"CNN": cnn, "dense CNN": dense_cnn, "ViT": vit}


@lru_cache(maxsize=64)
def _programs(kind, draw, answer, steps):
    """Return a step of the optimizer and the share of right answers, compiled once for all seeds."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3 if kind == "ViT" else 4e-3, 50, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))

    def loss(model, batch):
        scores, answers = model(batch.images), getattr(batch, answer)
        if answers.ndim == 2:
            return optax.softmax_cross_entropy(scores, answers).mean()
        return optax.softmax_cross_entropy_with_integer_labels(scores, answers).mean()

    # Not in a scan: XLA's CPU client runs convolutions inside of loops many times slower.
    @jax.jit
    def step(model, state, key):
        slope = jax.grad(loss)(model, draw(key, BATCH))
        change, state = optimizer.update(slope, state, model)
        return optax.apply_updates(model, change), state

    @jax.jit
    def right(model, held):
        answers = getattr(held, answer)
        return (
            model(held.images).argmax(-1) == (answers if answers.ndim == 1 else answers.argmax(-1))
        ).mean()

    return step, right, optimizer


def train(
    kind: str,
    draw: Callable,
    *,
    key: jax.Array,
    classes: int,
    answer: str = "labels",
    steps: int = STEPS,
    held_out: Callable | None = None,
) -> Trained:
    """Train a network on a data set.

    Args:
        kind: `"CNN"`, `"dense CNN"` or `"ViT"`.
        draw: A data set (`datasets`).
        key: Of weights and images.
        classes: How many there are.
        answer: `"labels"` or `"scenes"`: what to tell; class numbers, or a probability for each class.
        steps: At most so many steps of 64 new images; fewer where 98 % are right before.
        held_out: The data set that accuracy is measured on, where it is another one.
    """
    began = time.perf_counter()
    weights_key, images_key, held_key = jax.random.split(key, 3)
    model = MAKERS[kind](weights_key, draw(images_key, 1).images, classes)
    step, right, optimizer = _programs(kind, draw, answer, steps)
    state = optimizer.init(model)
    held = jax.jit(held_out or draw, static_argnums=1)(held_key, HELD_OUT)
    done, accuracy = 0, 0.0
    while done < steps and accuracy < ENOUGH:
        for number in range(done, done + BLOCK):
            model, state = step(model, state, jax.random.fold_in(images_key, number))
        done += BLOCK
        accuracy = float(right(model, held))
    return Trained(model, accuracy, done, time.perf_counter() - began)


def kept(path: Path, make: Callable[[], Trained], like: Callable[[], Any]) -> Trained:
    """Return the network of a file, or train it and write the file.

    Args:
        path: An `.npz`.
        make: Trains it.
        like: A network of the same structure.
    """
    if path.exists():
        with np.load(path) as file:
            number = sum(name.isdigit() for name in file.files)
            leaves = [jnp.asarray(file[str(i)]) for i in range(number)]
            accuracy, steps, seconds = (file[name].item() for name in ("accuracy", "steps", "seconds"))
        return Trained(jax.tree.unflatten(jax.tree.structure(like()), leaves), accuracy, steps, seconds)
    found = make()
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(found.model))}
    facts = {"accuracy": found.accuracy, "steps": found.steps, "seconds": found.seconds}
    with _files.file(path) as new, new.open("wb") as stream:
        np.savez(stream, **arrays, **facts)
    return found
